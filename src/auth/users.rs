//! All users and permissions, by name. What is found here is decided on elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, Permission, Rules, TopicPermission, User};
use crate::error::Error;

/// User and vhost.
type Place = (Arc<str>, Arc<str>);

/// User, vhost and topic exchange.
type TopicKey = (Arc<str>, Arc<str>, Arc<str>);

/// All users and permissions.
#[derive(Debug, Default)]
pub struct Users {
    users: BTreeMap<Arc<str>, Arc<User>>,
    /// By user and vhost.
    permissions: BTreeMap<Place, Permission>,
    topic_permissions: BTreeMap<TopicKey, TopicPermission>,
    /// What connections hold: compiled expressions are large, and changes have to reach them.
    held: Mutex<HashMap<Place, Arc<Access>>>,
}

impl Users {
    /// The user of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Adds a user or replaces it.
    pub fn insert(&mut self, user: User) {
        self.users.insert(user.name.clone(), Arc::new(user));
    }

    /// Takes a user away, whose permissions are gone already.
    pub fn remove(&mut self, name: &str) {
        self.users.remove(name);
        self.held().retain(|(user, _), _| **user != *name);
    }

    /// Nobody has anything to do with this vhost any more.
    pub fn forget_vhost(&mut self, name: &str) {
        self.held().retain(|(_, vhost), _| **vhost != *name);
    }

    /// Sets a user's permissions in a vhost, or takes them away.
    pub fn permit(&mut self, user: &str, vhost: &str, permission: Option<Permission>) {
        let place = (Arc::from(user), Arc::from(vhost));
        match permission {
            Some(permission) => self.permissions.insert(place, permission),
            None => self.permissions.remove(&place),
        };
        self.refresh(user, vhost);
    }

    /// Sets a user's permissions on the keys of a topic exchange, or takes them away.
    pub fn permit_topic(
        &mut self,
        user: &str,
        vhost: &str,
        exchange: &str,
        permission: Option<TopicPermission>,
    ) {
        let key = (user.into(), vhost.into(), exchange.into());
        match permission {
            Some(permission) => self.topic_permissions.insert(key, permission),
            None => self.topic_permissions.remove(&key),
        };
        self.refresh(user, vhost);
    }

    /// A user's permissions in a vhost as kept.
    pub fn permission(&self, user: &str, vhost: &str) -> Option<&Permission> {
        self.permissions.get(&(Arc::from(user), Arc::from(vhost)))
    }

    /// All permissions: user, vhost, and what.
    pub fn permissions(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Permission)> {
        self.permissions.iter().map(|((user, vhost), permission)| (user, vhost, permission))
    }

    /// A user's permissions on the keys of a topic exchange as kept.
    pub fn topic_permission(&self, user: &str, vhost: &str, exchange: &str) -> Option<&TopicPermission> {
        self.topic_permissions.get(&(user.into(), vhost.into(), exchange.into()))
    }

    /// All permissions on the keys of topic exchanges: user, vhost, exchange, and what.
    pub fn topic_permissions(
        &self,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Arc<str>, &TopicPermission)> {
        self.topic_permissions
            .iter()
            .map(|((user, vhost, exchange), permission)| (user, vhost, exchange, permission))
    }

    /// What a user may do in a vhost. Who holds it sees it change.
    ///
    /// # Errors
    /// [`Error::RefusedVhost`] if it has no permissions there.
    pub fn access(&self, user: &str, vhost: &str) -> Result<Arc<Access>, Error> {
        let rules = self.rules(user, vhost)?;
        let key = (Arc::from(user), Arc::from(vhost));
        let mut held = self.held();
        if let Some(access) = held.get(&key) {
            return Ok(access.clone());
        }
        let access = Arc::new(Access::new(key.0.clone(), key.1.clone(), rules.compile(self, user, vhost)?));
        held.insert(key, access.clone());
        Ok(access)
    }

    fn rules(&self, user: &str, vhost: &str) -> Result<&Permission, Error> {
        self.permission(user, vhost)
            .ok_or_else(|| Error::RefusedVhost { vhost: vhost.into(), user: user.into() })
    }

    /// Has those who hold permissions hold those of now.
    fn refresh(&self, user: &str, vhost: &str) {
        let held = self.held();
        let Some(access) = held.get(&(Arc::from(user), Arc::from(vhost))) else { return };
        let rules = self.permission(user, vhost).and_then(|p| p.compile(self, user, vhost).ok());
        access.set(rules.unwrap_or_default());
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Place, Arc<Access>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permission {
    fn compile(&self, users: &Users, user: &str, vhost: &str) -> Result<Rules, Error> {
        let mut rules = Rules::new(self)?;
        let topics = users.topic_permissions();
        for (_, _, exchange, permission) in topics.filter(|(u, v, ..)| ***u == *user && ***v == *vhost) {
            rules.add_topic(user, vhost, exchange, permission);
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Action;
    use crate::error::What;

    #[test]
    fn who_holds_permissions_has_them_changed_taken_and_given_back() {
        let mut users = Users::default();
        users.insert(User::new("u", "p", &[]));
        users.permit("u", "/", Some(Permission::all()));
        let access = users.access("u", "/").unwrap();
        let may = |access: &Access| access.check(Action::Read, What::Queue, "q").is_ok();
        assert!(may(&access));

        users.permit("u", "/", None);
        assert!(!may(&access));
        assert!(users.access("u", "/").is_err());

        users.permit("u", "/", Some(Permission::all()));
        assert!(may(&access));
        let topics = TopicPermission { write: "^a".into(), read: "".into() };
        users.permit_topic("u", "/", "t", Some(topics));
        assert!(access.has_topics("t"));
        assert!(Arc::ptr_eq(&access, &users.access("u", "/").unwrap()));
    }
}
