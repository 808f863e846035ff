//! What one user may do in one vhost: shared by all its connections there, and changed under them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::error::{Error, Resource, What};

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

    /// Whether the three are expressions.
    ///
    /// # Errors
    /// `Invalid` naming the one that is none.
    pub fn check(&self) -> Result<(), Error> {
        Rules::new(self).map(drop)
    }

    /// The expression for an action.
    pub fn of(&self, action: Action) -> &str {
        match action {
            Action::Configure => &self.configure,
            Action::Write => &self.write,
            Action::Read => &self.read,
        }
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

impl TopicPermission {
    /// Whether the two are expressions.
    ///
    /// # Errors
    /// `Invalid` naming the one that is none.
    pub fn check(&self, user: &str, vhost: &str) -> Result<(), Error> {
        self.compile(user, vhost).map(drop)
    }

    fn compile(&self, user: &str, vhost: &str) -> Result<(Regex, Regex), Error> {
        let fill = |expression: &str| expression.replace("{username}", user).replace("{vhost}", vhost);
        Ok((compile("write", &fill(&self.write))?, compile("read", &fill(&self.read))?))
    }
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
    generation: AtomicU64,
    // Held for a look, and for an exchange of the pointer.
    rules: RwLock<Arc<Rules>>,
}

/// What they are at the moment.
#[derive(Debug, Default)]
pub struct Rules {
    /// Configure, write, read; nothing is allowed without.
    names: Option<[Regex; 3]>,
    /// By topic exchange: what may be written and read.
    topics: Vec<(Arc<str>, Regex, Regex)>,
}

impl Rules {
    /// Compiles the three expressions.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the expression that is none.
    pub fn new(permission: &Permission) -> Result<Rules, Error> {
        let names = [
            compile("configure", &permission.configure)?,
            compile("write", &permission.write)?,
            compile("read", &permission.read)?,
        ];
        Ok(Rules { names: Some(names), topics: Vec::new() })
    }

    /// Adds the permissions on the keys of a topic exchange. Of an expression that is none with this user's name
    /// in it no key can be allowed.
    pub fn add_topic(&mut self, user: &str, vhost: &str, exchange: &Arc<str>, permission: &TopicPermission) {
        match permission.compile(user, vhost) {
            Ok((write, read)) => self.topics.push((exchange.clone(), write, read)),
            Err(error) => {
                warn!(user, vhost, exchange = %exchange, %error, "a topic permission cannot be read: no key is allowed");
                let nothing = || Regex::new("$^a").expect("an expression that nothing fits");
                self.topics.push((exchange.clone(), nothing(), nothing()));
            }
        }
    }
}

impl Access {
    /// The permissions of a user, whatever they are.
    pub fn new(user: Arc<str>, vhost: Arc<str>, rules: Rules) -> Access {
        Access { user, vhost, generation: AtomicU64::new(0), rules: RwLock::new(Arc::new(rules)) }
    }

    /// Other permissions hold from now on.
    pub fn set(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Changes with the permissions: what was allowed before may not be any more.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether `action` with this key on a topic exchange is allowed. Without topic permissions for
    /// the exchange it is.
    ///
    /// # Errors
    /// [`Error::RefusedTopic`] if not.
    pub fn check_topic(&self, action: Action, exchange: &str, key: &str) -> Result<(), Error> {
        let rules = self.rules();
        let Some((_, write, read)) = rules.topics.iter().find(|(name, ..)| **name == *exchange) else {
            return Ok(());
        };
        if fits(if action == Action::Write { write } else { read }, key) {
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
        self.rules().topics.iter().any(|(name, ..)| **name == *exchange)
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
        let asked = known_as(what, name);
        let rules = self.rules();
        let expression = rules.names.as_ref().map(|[configure, write, read]| match action {
            Action::Configure => configure,
            Action::Write => write,
            Action::Read => read,
        });
        if expression.is_some_and(|expression| fits(expression, asked)) {
            return Ok(());
        }
        let resource = Resource { what, name: asked.into(), vhost: self.vhost.to_string() };
        Err(Error::Refused { resource, user: self.user.to_string() })
    }
}

/// The default exchange goes by this name in permissions.
pub fn known_as(what: What, name: &str) -> &str {
    if what == What::Exchange && name.is_empty() { "amq.default" } else { name }
}

/// A search that takes too long has found nothing.
fn fits(expression: &Regex, name: &str) -> bool {
    expression.is_match(name).unwrap_or(false)
}

/// An expression as RabbitMQ reads it: it may match anywhere, and the empty one matches only the empty
/// name.
fn compile(which: &str, expression: &str) -> Result<Regex, Error> {
    let whole = if expression.is_empty() { "^$" } else { expression };
    Regex::new(whole)
        .map_err(|error| Error::Invalid(format!("invalid_regexp: {which} is '{expression}': {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(permission: Permission) -> Access {
        Access::new("u".into(), "/".into(), Rules::new(&permission).unwrap())
    }

    #[test]
    fn expressions_match_anywhere_and_the_empty_one_matches_nothing() {
        let access = access(Permission { configure: "".into(), write: "^a".into(), read: "b(?!x)".into() });

        assert!(access.check(Action::Read, What::Queue, "abc").is_ok());
        assert!(access.check(Action::Read, What::Queue, "abx").is_err());
        assert!(access.check(Action::Write, What::Queue, "abc").is_ok());
        assert!(access.check(Action::Write, What::Exchange, "").is_ok(), "amq.default begins with a");
        let refused = access.check(Action::Configure, What::Queue, "abc").unwrap_err();
        assert_eq!(refused.to_string(), "access to queue 'abc' in vhost '/' refused for user 'u'");
    }

    #[test]
    fn keys_of_topic_exchanges_can_depend_on_the_user() {
        let mut rules = Rules::new(&Permission::all()).unwrap();
        let topics = TopicPermission { write: "^{username}\\.".into(), read: "".into() };
        rules.add_topic("u", "/", &"t".into(), &topics);
        rules.add_topic("(", "/", &"broken".into(), &topics);
        let access = Access::new("u".into(), "/".into(), rules);

        assert!(access.check_topic(Action::Write, "t", "u.x").is_ok());
        assert!(access.check_topic(Action::Write, "t", "v.x").is_err());
        assert!(access.check_topic(Action::Write, "other", "v.x").is_ok());
        assert!(access.check_topic(Action::Write, "broken", "(.x").is_err());
    }

    #[test]
    fn who_holds_permissions_sees_them_change() {
        let access = access(Permission::all());
        let before = access.generation();

        access.set(Rules::default());

        assert!(access.check(Action::Read, What::Queue, "q").is_err());
        assert_ne!(access.generation(), before);
    }

    #[test]
    fn an_expression_that_is_none_is_named() {
        let permission = Permission { write: "(".into(), ..Permission::all() };

        let error = permission.check().unwrap_err().to_string();
        assert!(error.starts_with("invalid_regexp: write is '(': "), "{error}");
    }
}
