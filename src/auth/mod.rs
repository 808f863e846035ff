//! Users, their passwords, and what they may do in each vhost.

mod access;
pub mod limits;
mod password;
mod users;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use access::{Access, Action, Permission, Rules, TopicPermission, known_as};
pub use limits::Limits;
pub use password::{PasswordHash, basic_credentials};
pub use users::Users;

/// A user with this tag cannot be deleted.
pub const PROTECTED: &str = "protected";

/// A user as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name it logs in with.
    pub name: Arc<str>,
    /// Proves the password.
    pub password: PasswordHash,
    /// What it may do beyond its permissions: `administrator`, `monitoring`, `impersonator` …
    #[serde(default)]
    pub tags: Vec<String>,
    /// How many connections and channels it may have.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

impl User {
    /// A user with a password in clear, which is not kept.
    pub fn new(name: &str, password: &str, tags: &[&str]) -> Self {
        User {
            name: name.into(),
            password: PasswordHash::sha256(password),
            tags: tags.iter().map(|&tag| tag.into()).collect(),
            limits: Limits::default(),
        }
    }

    /// Whether it has a tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|t| t == tag)
    }
}
