//! Users, their passwords, and what they may do in each vhost.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use regex::Regex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

use crate::error::{Error, Resource, What};

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
}

impl User {
    /// A user with a password in clear, which is not kept.
    pub fn new(name: &str, password: &str, tags: &[&str]) -> Self {
        User {
            name: name.into(),
            password: PasswordHash::sha256(password),
            tags: tags.iter().map(|&tag| tag.into()).collect(),
        }
    }

    /// Whether it has a tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|t| t == tag)
    }
}

/// A salted hash of a password, as RabbitMQ's definition files have it: base64 of four bytes of salt
/// and the hash of salt and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash {
    /// base64(salt + hash)
    pub hash: String,
    /// `rabbit_password_hashing_sha256` or `rabbit_password_hashing_sha512`
    pub algorithm: String,
}

const SHA256: &str = "rabbit_password_hashing_sha256";
const SHA512: &str = "rabbit_password_hashing_sha512";
const SALT_BYTES: usize = 4;

impl PasswordHash {
    /// Hashes a password with fresh salt.
    pub fn sha256(password: &str) -> Self {
        let salt: [u8; SALT_BYTES] = rand::random();
        let hash = Sha256::new_with_prefix(salt).chain_update(password).finalize();
        let hash = BASE64.encode([&salt[..], &hash[..]].concat());
        PasswordHash { hash, algorithm: SHA256.into() }
    }

    /// Whether this is the password. An unknown algorithm or a broken hash fits none.
    pub fn fits(&self, password: &str) -> bool {
        let Ok(bytes) = BASE64.decode(&self.hash) else { return false };
        let Some((salt, kept)) = bytes.split_at_checked(SALT_BYTES) else { return false };
        let hash: Vec<u8> = match self.algorithm.as_str() {
            SHA256 => Sha256::new_with_prefix(salt).chain_update(password).finalize().to_vec(),
            SHA512 => Sha512::new_with_prefix(salt).chain_update(password).finalize().to_vec(),
            _ => return false,
        };
        // Every byte is looked at whatever the first ones say, so that the time tells nothing.
        kept.len() == hash.len() && kept.iter().zip(&hash).fold(0, |d, (a, b)| d | (a ^ b)) == 0
    }
}

/// A user's permissions in a vhost as they are kept: three regular expressions over names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// Names it may declare and delete.
    pub configure: String,
    /// Names it may publish to and bind to.
    pub write: String,
    /// Names it may consume from, purge, and bind from.
    pub read: String,
}

impl Permission {
    /// Everything.
    pub fn all() -> Self {
        Permission { configure: ".*".into(), write: ".*".into(), read: ".*".into() }
    }
}

/// A user's permissions on the routing keys of a topic exchange as they are kept. `{username}` and
/// `{vhost}` stand for themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPermission {
    /// Keys it may publish with.
    pub write: String,
    /// Keys it may bind with.
    pub read: String,
}

/// What a user wants to do to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make or delete it.
    Configure,
    /// Put messages into it.
    Write,
    /// Take messages from it.
    Read,
}

/// The permissions of one user in one vhost, ready to be asked.
#[derive(Debug)]
pub struct Access {
    user: Arc<str>,
    vhost: Arc<str>,
    configure: Regex,
    write: Regex,
    read: Regex,
    /// By topic exchange: what may be written and read.
    topics: Vec<(Arc<str>, Regex, Regex)>,
}

impl Access {
    /// Compiles the three expressions.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the expression that is none.
    pub fn new(user: Arc<str>, vhost: Arc<str>, permission: &Permission) -> Result<Access, Error> {
        Ok(Access {
            user,
            vhost,
            configure: compile("configure", &permission.configure)?,
            write: compile("write", &permission.write)?,
            read: compile("read", &permission.read)?,
            topics: Vec::new(),
        })
    }

    /// Adds the permissions on the keys of a topic exchange.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the expression that is none.
    pub fn add_topic(&mut self, exchange: Arc<str>, permission: &TopicPermission) -> Result<(), Error> {
        let fill = |e: &str| e.replace("{username}", &self.user).replace("{vhost}", &self.vhost);
        let write = compile("topic write", &fill(&permission.write))?;
        let read = compile("topic read", &fill(&permission.read))?;
        self.topics.push((exchange, write, read));
        Ok(())
    }

    /// Whether `action` with this key on a topic exchange is allowed. Without topic permissions for
    /// the exchange it is.
    ///
    /// # Errors
    /// [`Error::RefusedTopic`] if not.
    pub fn check_topic(&self, action: Action, exchange: &str, key: &str) -> Result<(), Error> {
        let Some((_, write, read)) = self.topics.iter().find(|(name, ..)| **name == *exchange) else {
            return Ok(());
        };
        let expression = if action == Action::Write { write } else { read };
        if expression.is_match(key) {
            return Ok(());
        }
        Err(Error::RefusedTopic {
            key: key.into(),
            exchange: Resource::exchange(exchange, &self.vhost),
            user: self.user.to_string(),
        })
    }

    /// Whether there are permissions on the keys of this exchange.
    pub fn has_topics(&self, exchange: &str) -> bool {
        self.topics.iter().any(|(name, ..)| **name == *exchange)
    }

    /// Whose permissions these are.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// Whether `action` on the thing is allowed.
    ///
    /// # Errors
    /// [`Error::Refused`] if not.
    pub fn check(&self, action: Action, what: What, name: &str) -> Result<(), Error> {
        // The default exchange goes by this name in permissions.
        let asked = if what == What::Exchange && name.is_empty() { "amq.default" } else { name };
        let expression = match action {
            Action::Configure => &self.configure,
            Action::Write => &self.write,
            Action::Read => &self.read,
        };
        if expression.is_match(asked) {
            return Ok(());
        }
        let resource = Resource { what, name: asked.into(), vhost: self.vhost.to_string() };
        Err(Error::Refused { resource, user: self.user.to_string() })
    }
}

/// An expression as RabbitMQ reads it: it may match anywhere, and the empty one matches only the empty
/// name.
fn compile(which: &str, expression: &str) -> Result<Regex, Error> {
    let expression = if expression.is_empty() { "^$" } else { expression };
    Regex::new(expression)
        .map_err(|e| Error::Invalid(format!("the {which} permission is no regular expression: {e}")))
}

/// Name and password in the header `Authorization` of a request, if it has Basic credentials.
pub fn basic_credentials(header: Option<&[u8]>) -> Option<(String, String)> {
    let (scheme, encoded) = std::str::from_utf8(header?).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.into(), password.into()))
}

/// User and vhost.
type Place = (Arc<str>, Arc<str>);

/// User, vhost and topic exchange.
type TopicKey = (Arc<str>, Arc<str>, Arc<str>);

/// All users and permissions.
#[derive(Debug, Default)]
pub struct Users {
    users: BTreeMap<Arc<str>, User>,
    /// By user and vhost.
    permissions: BTreeMap<Place, Permission>,
    topic_permissions: BTreeMap<TopicKey, TopicPermission>,
    /// What was asked for before: compiled expressions are large, and connections share them.
    compiled: Mutex<HashMap<Place, Arc<Access>>>,
}

impl Users {
    /// The user of that name.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The user, if the password is right.
    pub fn authenticate(&self, name: &str, password: &str) -> Option<&User> {
        self.get(name).filter(|user| user.password.fits(password))
    }

    /// Adds a user or replaces it.
    pub fn insert(&mut self, user: User) {
        self.users.insert(user.name.clone(), user);
    }

    /// Sets a user's permissions in a vhost.
    pub fn permit(&mut self, user: Arc<str>, vhost: Arc<str>, permission: Permission) {
        self.permissions.insert((user, vhost), permission);
        self.forget_compiled();
    }

    /// What a user may do in a vhost.
    ///
    /// # Errors
    /// [`Error::RefusedVhost`] if it has no permissions there.
    pub fn access(&self, user: &str, vhost: &str) -> Result<Arc<Access>, Error> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (user.into(), vhost.into());
        if let Some(access) = compiled.get(&key) {
            return Ok(access.clone());
        }
        let access = Arc::new(self.compile(user, vhost)?);
        compiled.insert(key, access.clone());
        Ok(access)
    }

    fn forget_compiled(&mut self) {
        self.compiled.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What a user may do in a vhost, for somebody who wants to add to it.
    ///
    /// # Errors
    /// [`Error::RefusedVhost`] if it has no permissions there.
    pub fn compile(&self, user: &str, vhost: &str) -> Result<Access, Error> {
        let key = (Arc::from(user), Arc::from(vhost));
        let Some(permission) = self.permissions.get(&key) else {
            return Err(Error::RefusedVhost { vhost: vhost.into(), user: user.into() });
        };
        let mut access = Access::new(key.0, key.1, permission)?;
        let topics = self.topic_permissions.iter();
        for ((_, _, exchange), permission) in topics.filter(|((u, v, _), _)| **u == *user && **v == *vhost) {
            access.add_topic(exchange.clone(), permission)?;
        }
        Ok(access)
    }

    /// Sets a user's permissions on the keys of a topic exchange.
    pub fn permit_topic(&mut self, user: &str, vhost: &str, exchange: &str, permission: TopicPermission) {
        self.topic_permissions.insert((user.into(), vhost.into(), exchange.into()), permission);
        self.forget_compiled();
    }

    /// A user's permissions on the keys of a topic exchange as kept.
    pub fn topic_permission(&self, user: &str, vhost: &str, exchange: &str) -> Option<&TopicPermission> {
        self.topic_permissions.get(&(user.into(), vhost.into(), exchange.into()))
    }

    /// A user's permissions in a vhost as kept.
    pub fn permission(&self, user: &str, vhost: &str) -> Option<&Permission> {
        self.permissions.get(&(Arc::from(user), Arc::from(vhost)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_hash_and_no_other() {
        let hash = PasswordHash::sha256("secret");

        assert!(hash.fits("secret"));
        assert!(!hash.fits("Secret"));
        assert!(!PasswordHash { hash: "??".into(), ..hash }.fits("secret"));
    }

    #[test]
    fn a_hash_made_by_rabbitmq_is_understood() {
        // `rabbitmqctl hash_password test12` with the salt 90 8D C6 0A, from RabbitMQ's own guide.
        let hash = PasswordHash {
            hash: "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR".into(),
            algorithm: SHA256.into(),
        };

        assert!(hash.fits("test12"));
    }

    #[test]
    fn expressions_match_anywhere_and_the_empty_one_matches_nothing() {
        let permission = Permission { configure: "".into(), write: "^a".into(), read: "b".into() };
        let access = Access::new("u".into(), "/".into(), &permission).unwrap();

        assert!(access.check(Action::Read, What::Queue, "abc").is_ok());
        assert!(access.check(Action::Write, What::Queue, "abc").is_ok());
        assert!(access.check(Action::Write, What::Exchange, "").is_ok(), "amq.default begins with a");
        let mut access = access;
        let topics = TopicPermission { write: "^{username}\\.".into(), read: "".into() };
        access.add_topic("t".into(), &topics).unwrap();
        assert!(access.check_topic(Action::Write, "t", "u.x").is_ok());
        assert!(access.check_topic(Action::Write, "t", "v.x").is_err());
        assert!(access.check_topic(Action::Write, "other", "v.x").is_ok());
        let refused = access.check(Action::Configure, What::Queue, "abc").unwrap_err();
        assert_eq!(refused.to_string(), "access to queue 'abc' in vhost '/' refused for user 'u'");
    }
}
