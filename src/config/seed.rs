//! Users, vhosts, permissions and policies that are to be there after a start.

use serde::{Deserialize, Serialize};

/// Users, vhosts and permissions that are made at the start, so far as they are not there.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Seed {
    /// Vhosts.
    pub vhosts: Vec<VhostSeed>,
    /// Users; one that is there with another password or other tags is changed.
    pub users: Vec<UserSeed>,
    /// Permissions of users in vhosts.
    pub permissions: Vec<PermissionSeed>,
    /// Permissions of users on the keys of topic exchanges.
    pub topic_permissions: Vec<TopicPermissionSeed>,
    /// Policies: `vhost`, `name`, `pattern`, `apply-to`, `priority`, `definition`, `operator`.
    pub policies: Vec<serde_json::Value>,
}

/// A vhost to be there.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VhostSeed {
    /// Its name.
    pub name: String,
}

/// A user to be there.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UserSeed {
    /// Its name.
    pub name: String,
    /// Its password in clear; a hash of it is kept.
    pub password: String,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Permissions to be there: regular expressions over names.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionSeed {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// What it may declare and delete.
    pub configure: String,
    /// What it may publish and bind to.
    pub write: String,
    /// What it may consume and bind from.
    pub read: String,
}

/// Permissions on routing keys to be there: regular expressions over keys.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TopicPermissionSeed {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// On which topic exchange.
    pub exchange: String,
    /// Keys it may publish with.
    pub write: String,
    /// Keys it may bind with.
    pub read: String,
}

impl Seed {
    /// What a new data directory starts with: vhost `/`, and guest, who may do everything there.
    pub fn first() -> Seed {
        let all = || ".*".to_string();
        Seed {
            vhosts: vec![VhostSeed { name: "/".into() }],
            users: vec![UserSeed {
                name: "guest".into(),
                password: "guest".into(),
                tags: vec!["administrator".into()],
            }],
            permissions: vec![PermissionSeed {
                user: "guest".into(),
                vhost: "/".into(),
                configure: all(),
                write: all(),
                read: all(),
            }],
            ..Seed::default()
        }
    }
}

/// A user for every new vhost whose name fits, as RabbitMQ's `default_users` has it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DefaultUser {
    /// Its name.
    pub name: String,
    /// Vhosts it is made for: a regular expression over names.
    #[serde(default = "everything")]
    pub vhost_pattern: String,
    /// Its password in clear; without one a random password is set, and somebody has to change it.
    pub password: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What it may declare and delete.
    #[serde(default = "everything")]
    pub configure: String,
    /// What it may publish and bind to.
    #[serde(default = "everything")]
    pub write: String,
    /// What it may consume and bind from.
    #[serde(default = "everything")]
    pub read: String,
}

impl DefaultUser {
    /// One with a name, who may do everything in every vhost.
    pub fn of(name: &str) -> DefaultUser {
        DefaultUser {
            name: name.into(),
            vhost_pattern: everything(),
            password: None,
            tags: Vec::new(),
            configure: everything(),
            write: everything(),
            read: everything(),
        }
    }
}

/// Limits of every new vhost whose name fits.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct DefaultLimits {
    /// What these limits are called.
    pub name: String,
    /// Vhosts they hold for: a regular expression over names.
    #[serde(default = "everything")]
    pub vhost_pattern: String,
    /// How many connections the vhost may have.
    pub max_connections: Option<u32>,
    /// How many queues.
    pub max_queues: Option<u32>,
}

/// An operator policy of every new vhost whose name fits.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DefaultPolicy {
    /// What the policy is called.
    pub name: String,
    /// Vhosts it is made for: a regular expression over names.
    #[serde(default = "everything")]
    pub vhost_pattern: String,
    /// Queues it holds for: a regular expression over names.
    #[serde(default = "everything")]
    pub queue_pattern: String,
    /// Its definition, such as `message-ttl`.
    pub definition: serde_json::Map<String, serde_json::Value>,
}

/// What new vhosts get by themselves.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct VhostDefaults {
    /// Users with permissions there.
    pub users: Vec<DefaultUser>,
    /// Limits; the first that fits holds.
    pub limits: Vec<DefaultLimits>,
    /// Operator policies.
    pub policies: Vec<DefaultPolicy>,
}

fn everything() -> String {
    ".*".into()
}
