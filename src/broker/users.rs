//! Users and what they may do: looked up, made, changed and taken away.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use amqp::{Exception, ReplyCode};
use fancy_regex::Regex;

use super::audit::{Actor, AdminEvent};
use super::{Broker, Change, Protocol};
use crate::auth::{Access, Limits, PROTECTED, PasswordHash, Permission, TopicPermission, User};
use crate::error::Error;
use crate::roster::Guest;
use crate::vhost::definitions::{Definition, UserPermission, UserTopicPermission};

/// A user as somebody wants it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The name.
    pub name: String,
    /// The password; none keeps it from logging in with one.
    pub password: PasswordHash,
    /// The tags.
    pub tags: Vec<String>,
    /// Limits; as before if nothing is said.
    pub limits: Option<Limits>,
}

/// A login that was refused. Whoever tells it waits first: that makes guessing slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How long.
    pub wait: Duration,
}

impl Broker {
    /// Whether something may be a password.
    ///
    /// # Errors
    /// `Invalid`: why not. RabbitMQ says no more than the first word.
    pub fn check_password(&self, password: &str) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Invalid(format!("credential_validation_failed: {why}")));
        let min = self.config.password_length_min;
        if password.chars().count() < min {
            return refuse(format!("minimum required password length is {min}"));
        }
        match &self.config.password_pattern {
            Some(pattern) if !fits(pattern, password) => {
                refuse("provided password does not match the validator regular expression".into())
            }
            _ => Ok(()),
        }
    }

    // Logging in ----------------------------------------------------------------------------------

    /// The user, if the password is right.
    pub fn authenticate(&self, name: &str, password: &str) -> Option<Arc<User>> {
        self.users().get(name).filter(|user| user.password.fits(password)).cloned()
    }

    /// Logs a user in who says a password, and counts how it went.
    ///
    /// # Errors
    /// [`Refused`]: the password is wrong, there is no such user, or it may not come from there.
    pub fn log_in(
        &self,
        name: &str,
        password: &str,
        peer: SocketAddr,
        protocol: Protocol,
    ) -> Result<Arc<User>, Refused> {
        let user = self.authenticate(name, password);
        self.admit(user, name, peer, protocol)
    }

    /// Logs a user in whose name has been proved in another way, and counts how it went.
    ///
    /// # Errors
    /// [`Refused`]: there is no such user, or it may not come from there.
    pub fn log_in_known(
        &self,
        name: &str,
        peer: SocketAddr,
        protocol: Protocol,
    ) -> Result<Arc<User>, Refused> {
        self.admit(self.user(name), name, peer, protocol)
    }

    fn admit(
        &self,
        user: Option<Arc<User>>,
        name: &str,
        peer: SocketAddr,
        protocol: Protocol,
    ) -> Result<Arc<User>, Refused> {
        match user.filter(|_| may_come_from(&self.config.loopback_users, name, peer.ip())) {
            Some(user) => {
                self.attempts.succeeded(peer.ip(), name, protocol);
                Ok(user)
            }
            None => {
                Err(Refused { wait: self.attempts.failed(peer.ip(), name, protocol, self.clock().now_ms()) })
            }
        }
    }

    /// What a user may do in a vhost.
    ///
    /// # Errors
    /// [`Error::RefusedVhost`] if it has no permissions there.
    pub fn access(&self, user: &str, vhost: &str) -> Result<Arc<Access>, Error> {
        self.users().access(user, vhost)
    }

    // Users ---------------------------------------------------------------------------------------

    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.users().get(name).cloned()
    }

    /// All users, by name.
    pub fn all_users(&self) -> Vec<Arc<User>> {
        self.users().iter().cloned().collect()
    }

    /// Users who have no permissions anywhere, by name.
    pub fn users_without_permissions(&self) -> Vec<Arc<User>> {
        let users = self.users();
        let has_any = |user: &Arc<User>| users.permissions().any(|(name, ..)| *name == user.name);
        users.iter().filter(|user| !has_any(user)).cloned().collect()
    }

    /// Makes a user, or changes it. True if it is new.
    ///
    /// # Errors
    /// `Invalid`: the name is empty. `Store`.
    pub fn put_user(&self, actor: &Actor, wanted: Wanted) -> Result<bool, Error> {
        let what = format!("put user '{}'", wanted.name);
        self.perform(actor, &what, || self.user_put(wanted))
    }

    pub(super) fn user_put(&self, wanted: Wanted) -> Result<Change<bool>, Error> {
        if wanted.name.is_empty() {
            return Err(Error::Invalid("the name of a user cannot be empty".into()));
        }
        let mut users = self.users_mut();
        let before = users.get(&wanted.name).cloned();
        let limits = wanted.limits.or_else(|| before.as_ref().map(|user| user.limits.clone()));
        let user = User {
            name: wanted.name.as_str().into(),
            password: wanted.password,
            tags: wanted.tags,
            limits: limits.unwrap_or_default(),
        };
        let name = &*user.name;
        let mut events = Vec::new();
        match &before {
            None => events.push(AdminEvent::user_created(name)),
            Some(before) if before.password == user.password => {}
            Some(_) if user.password.is_none() => events.push(AdminEvent::user_password_cleared(name)),
            Some(_) => events.push(AdminEvent::user_password_changed(name)),
        }
        if before.as_ref().is_none_or(|before| before.tags != user.tags) {
            events.push(AdminEvent::user_tags_set(name, &user.tags));
        }
        if before.as_ref().map_or(!user.limits.is_empty(), |before| before.limits != user.limits) {
            events.push(AdminEvent::user_limits_set(name, &user.limits));
        }
        users.insert(user.clone());
        let operations = vec![Definition::User(user).define()];
        Ok(Change { operations, events, value: before.is_none() })
    }

    /// Takes users away, all or none, with their permissions; their connections end.
    ///
    /// # Errors
    /// `NoUser`, `Protected`, `Store`.
    pub fn delete_users(&self, actor: &Actor, names: &[&str]) -> Result<(), Error> {
        let what = format!("delete user '{}'", names.join("', '"));
        self.perform(actor, &what, || self.users_deleted(names))?;
        self.roster.guests().iter().for_each(|guest| self.look_again(guest));
        Ok(())
    }

    /// Ends a connection whose user or vhost is gone: also for one that has just come in past that.
    pub fn look_again(&self, guest: &Guest) {
        let Guest { user, vhost, .. } = guest;
        let text = match (self.user(user), self.vhost(vhost)) {
            (None, _) => format!("user '{user}' is deleted"),
            (_, Err(_)) => format!("vhost '{vhost}' is deleted"),
            _ => return,
        };
        guest.close(Exception::new(ReplyCode::ConnectionForced, text));
    }

    fn users_deleted(&self, names: &[&str]) -> Result<Change<()>, Error> {
        let mut users = self.users_mut();
        for &name in names {
            let user = users.get(name).ok_or_else(|| Error::NoUser(name.into()))?;
            if user.has_tag(PROTECTED) {
                return Err(Error::Protected(format!(
                    "user '{name}' is protected from deletion; take the tag '{PROTECTED}' away first"
                )));
            }
        }
        let (mut operations, mut events) = (Vec::new(), Vec::new());
        for &name in names {
            let Some(user) = users.get(name).cloned() else { continue };
            let vhosts = users.permissions().filter(|(user, ..)| ***user == *name);
            let vhosts: Vec<Arc<str>> = vhosts.map(|(_, vhost, _)| vhost.clone()).collect();
            let topics = users.topic_permissions().filter(|(user, ..)| ***user == *name);
            let topics: Vec<_> =
                topics.map(|(_, vhost, exchange, _)| (vhost.clone(), exchange.clone())).collect();
            for (vhost, exchange) in topics {
                users.permit_topic(name, &vhost, &exchange, None);
                operations.push(topic_definition(name, &vhost, &exchange, None).undefine());
                events.push(AdminEvent::topic_permission_deleted(name, &vhost, &exchange));
            }
            for vhost in vhosts {
                users.permit(name, &vhost, None);
                operations.push(permission_definition(name, &vhost, None).undefine());
                events.push(AdminEvent::permission_deleted(name, &vhost));
            }
            users.remove(name);
            operations.push(Definition::User(User::clone(&user)).undefine());
            events.push(AdminEvent::user_deleted(name));
        }
        Ok(Change { operations, events, value: () })
    }

    // Permissions ---------------------------------------------------------------------------------

    /// A user's permissions in a vhost.
    pub fn permission(&self, user: &str, vhost: &str) -> Option<Permission> {
        self.users().permission(user, vhost).cloned()
    }

    /// All permissions, by user and vhost.
    pub fn permissions(&self) -> Vec<UserPermission> {
        let users = self.users();
        let all = users.permissions();
        all.map(|(user, vhost, permission)| UserPermission {
            user: user.to_string(),
            vhost: vhost.to_string(),
            permission: permission.clone(),
        })
        .collect()
    }

    /// All permissions on the keys of topic exchanges, by user, vhost and exchange.
    pub fn topic_permissions(&self) -> Vec<UserTopicPermission> {
        let users = self.users();
        let all = users.topic_permissions();
        all.map(|(user, vhost, exchange, permission)| UserTopicPermission {
            user: user.to_string(),
            vhost: vhost.to_string(),
            exchange: exchange.to_string(),
            permission: permission.clone(),
        })
        .collect()
    }

    /// Sets what a user may do in a vhost; it holds at once for connections that are open. True if it might do
    /// nothing there before.
    ///
    /// # Errors
    /// `NoUser`, `NoVhost`, `Invalid` naming the expression that is none, `Store`.
    pub fn put_permission(&self, actor: &Actor, wanted: UserPermission) -> Result<bool, Error> {
        let what = format!("put permissions of user '{}' in vhost '{}'", wanted.user, wanted.vhost);
        self.perform(actor, &what, || self.permission_put(wanted))
    }

    pub(super) fn permission_put(&self, wanted: UserPermission) -> Result<Change<bool>, Error> {
        let UserPermission { user, vhost, permission } = &wanted;
        permission.check()?;
        let place = self.vhost(vhost)?;
        let mut users = self.users_mut();
        if users.get(user).is_none() {
            return Err(Error::NoUser(user.clone()));
        }
        let before = users.permission(user, vhost).cloned();
        users.permit(user, vhost, Some(permission.clone()));
        drop(users);
        place.forget_routes();
        let events = vec![AdminEvent::permission_created(user, vhost, permission)];
        let operations = vec![Definition::Permission(wanted).define()];
        Ok(Change { operations, events, value: before.is_none() })
    }

    /// A user may do nothing in a vhost any more. False if it might not before.
    ///
    /// # Errors
    /// `Store`.
    pub fn delete_permission(&self, actor: &Actor, user: &str, vhost: &str) -> Result<bool, Error> {
        self.perform(actor, &format!("delete permissions of user '{user}' in vhost '{vhost}'"), || {
            let mut users = self.users_mut();
            let Some(permission) = users.permission(user, vhost).cloned() else {
                return Ok(Change::nothing(false));
            };
            users.permit(user, vhost, None);
            drop(users);
            if let Ok(vhost) = self.vhost(vhost) {
                vhost.forget_routes();
            }
            let operations = vec![permission_definition(user, vhost, Some(permission)).undefine()];
            Ok(Change { operations, events: vec![AdminEvent::permission_deleted(user, vhost)], value: true })
        })
    }

    /// Sets what a user may do with the keys of a topic exchange, which need not be there. True if nothing was
    /// said of that before.
    ///
    /// # Errors
    /// `NoUser`, `NoVhost`, `Invalid` naming the expression that is none, `Store`.
    pub fn put_topic_permission(&self, actor: &Actor, wanted: UserTopicPermission) -> Result<bool, Error> {
        let UserTopicPermission { user, vhost, exchange, .. } = &wanted;
        let what =
            format!("put topic permissions of user '{user}' on exchange '{exchange}' in vhost '{vhost}'");
        self.perform(actor, &what, || self.topic_permission_put(wanted))
    }

    pub(super) fn topic_permission_put(&self, wanted: UserTopicPermission) -> Result<Change<bool>, Error> {
        let UserTopicPermission { user, vhost, exchange, permission } = &wanted;
        let place = self.vhost(vhost)?;
        permission.check(user, vhost)?;
        let mut users = self.users_mut();
        if users.get(user).is_none() {
            return Err(Error::NoUser(user.clone()));
        }
        let is_new = users.topic_permission(user, vhost, exchange).is_none();
        users.permit_topic(user, vhost, exchange, Some(permission.clone()));
        drop(users);
        place.forget_routes();
        let events = vec![AdminEvent::topic_permission_created(user, vhost, exchange, permission)];
        let operations = vec![Definition::TopicPermission(wanted).define()];
        Ok(Change { operations, events, value: is_new })
    }

    /// Nothing is said any more of a user and the keys of a topic exchange, or of all of them in a vhost. False
    /// if nothing was.
    ///
    /// # Errors
    /// `Store`.
    pub fn delete_topic_permissions(
        &self,
        actor: &Actor,
        user: &str,
        vhost: &str,
        exchange: Option<&str>,
    ) -> Result<bool, Error> {
        self.perform(actor, &format!("delete topic permissions of user '{user}' in vhost '{vhost}'"), || {
            let mut users = self.users_mut();
            let all = users.topic_permissions().filter(|(u, v, e, _)| {
                ***u == *user && ***v == *vhost && exchange.is_none_or(|exchange| ***e == *exchange)
            });
            let gone: Vec<Arc<str>> = all.map(|(_, _, exchange, _)| exchange.clone()).collect();
            for exchange in &gone {
                users.permit_topic(user, vhost, exchange, None);
            }
            drop(users);
            if let Ok(vhost) = self.vhost(vhost) {
                vhost.forget_routes();
            }
            let operations = gone.iter().map(|e| topic_definition(user, vhost, e, None).undefine()).collect();
            let events = gone.iter().map(|e| AdminEvent::topic_permission_deleted(user, vhost, e)).collect();
            Ok(Change { operations, events, value: !gone.is_empty() })
        })
    }
}

/// Everybody knows guest's password, so guest comes from this machine only, and likewise who else is configured
/// so. A listener for both families sees 127.0.0.1 as ::ffff:127.0.0.1.
fn may_come_from(loopback_users: &[String], user: &str, address: IpAddr) -> bool {
    !loopback_users.iter().any(|name| name == user) || address.to_canonical().is_loopback()
}

/// What is kept of a permission; to take it away, what it was does not matter.
pub(super) fn permission_definition(user: &str, vhost: &str, permission: Option<Permission>) -> Definition {
    let permission = permission.unwrap_or_else(Permission::all);
    Definition::Permission(UserPermission { user: user.into(), vhost: vhost.into(), permission })
}

/// The same of a topic permission.
pub(super) fn topic_definition(
    user: &str,
    vhost: &str,
    exchange: &str,
    permission: Option<TopicPermission>,
) -> Definition {
    let permission = permission.unwrap_or(TopicPermission { write: String::new(), read: String::new() });
    let (user, vhost, exchange) = (user.into(), vhost.into(), exchange.into());
    Definition::TopicPermission(UserTopicPermission { user, vhost, exchange, permission })
}

/// An expression that cannot be, or takes too long, fits nothing.
fn fits(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).is_ok_and(|regex| regex.is_match(text).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_comes_from_this_machine_only_whatever_its_address_looks_like() {
        let guest = ["guest".to_string()];
        let may = |user: &str, address: &str| may_come_from(&guest, user, address.parse().unwrap());

        for here in ["127.0.0.1", "127.8.0.2", "::1", "::ffff:127.0.0.1"] {
            assert!(may("guest", here), "{here}");
        }
        for elsewhere in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(!may("guest", elsewhere), "{elsewhere}");
            assert!(may("anna", elsewhere), "{elsewhere}");
        }
        assert!(may_come_from(&[], "guest", "192.0.2.1".parse().unwrap()));
    }
}
