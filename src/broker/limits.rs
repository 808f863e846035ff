//! How many connections and channels users, vhosts and the broker may have: set, and kept to.
//!
//! Each connection holds a place, which goes with it. Places are counted where they are taken, so that no two
//! connections get the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use serde_json::Value as Json;

use super::audit::{Actor, AdminEvent};
use super::{Broker, Change};
use crate::auth::limits::{MAX_CHANNELS, MAX_CONNECTIONS, OF_USERS, OF_VHOSTS};
use crate::auth::{Limits, User};
use crate::error::Error;
use crate::vhost::definitions::{self, Definition};

/// How many there are.
#[derive(Debug, Default)]
struct Taken {
    connections: AtomicU64,
    channels: AtomicU64,
}

/// Who takes places: users, vhosts, and all together.
#[derive(Debug, Default)]
pub struct Places {
    all: Arc<Taken>,
    users: DashMap<Arc<str>, Arc<Taken>>,
    vhosts: DashMap<Arc<str>, Arc<Taken>>,
}

/// A connection's place, with those of its channels.
#[derive(Debug)]
pub struct Place {
    user: Arc<str>,
    all: Arc<Taken>,
    of_user: Arc<Taken>,
    of_vhost: Arc<Taken>,
    /// Only its connection's task changes this.
    channels: AtomicU64,
    has_left: AtomicBool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Place {
    /// Gives the place back, with those of its channels. The connection may linger until its client hangs up.
    pub fn leave(&self) {
        if self.has_left.swap(true, Ordering::Relaxed) {
            return;
        }
        let channels = self.channels.load(Ordering::Relaxed);
        for taken in [&self.all, &self.of_user, &self.of_vhost] {
            taken.connections.fetch_sub(1, Ordering::Relaxed);
            taken.channels.fetch_sub(channels, Ordering::Relaxed);
        }
    }
}

/// One more, unless there are so many. How many there may be, if not.
fn take(number: &AtomicU64, max: Option<u64>) -> Result<(), u64> {
    let max = max.unwrap_or(u64::MAX);
    let taken =
        number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < max).then_some(taken + 1));
    taken.map(drop).map_err(|_| max)
}

impl Places {
    fn of(map: &DashMap<Arc<str>, Arc<Taken>>, name: &Arc<str>) -> Arc<Taken> {
        map.entry(name.clone()).or_default().clone()
    }
}

impl Broker {
    // Kept to -------------------------------------------------------------------------------------

    /// Takes a place for a connection of a user to a vhost.
    ///
    /// # Errors
    /// `Limit`, with RabbitMQ's text.
    pub fn take_place(&self, user: &str, vhost: &definitions::Vhost) -> Result<Place, Error> {
        let (user, name): (Arc<str>, Arc<str>) = (user.into(), vhost.name.as_str().into());
        let all = self.places.all.clone();
        let of_user = Places::of(&self.places.users, &user);
        let of_vhost = Places::of(&self.places.vhosts, &name);
        let max = self.config.connection_max.map(u64::from);
        take(&all.connections, max).map_err(|max| {
            Error::Limit(format!("connection refused: node connection limit ({max}) is reached"))
        })?;
        let undo = |taken: &[&Arc<Taken>]| {
            for taken in taken {
                taken.connections.fetch_sub(1, Ordering::Relaxed);
            }
        };
        take(&of_vhost.connections, vhost.limits.get(MAX_CONNECTIONS)).map_err(|max| {
            undo(&[&all]);
            Error::Limit(format!(
                "access to vhost '{name}' refused for user '{user}': connection limit ({max}) is reached"
            ))
        })?;
        let limits = self.user(&user).map(|user| user.limits.clone()).unwrap_or_default();
        take(&of_user.connections, limits.get(MAX_CONNECTIONS)).map_err(|max| {
            undo(&[&all, &of_vhost]);
            Error::Limit(format!(
                "connection refused for user '{user}': user connection limit ({max}) is reached"
            ))
        })?;
        Ok(Place {
            user,
            all,
            of_user,
            of_vhost,
            channels: AtomicU64::new(0),
            has_left: AtomicBool::new(false),
        })
    }

    /// Takes a place for one more channel of a connection.
    ///
    /// # Errors
    /// `Limit`, with RabbitMQ's text.
    pub fn take_channel(&self, place: &Place) -> Result<(), Error> {
        let max = self.config.channel_max_per_node.map(u64::from);
        take(&place.all.channels, max).map_err(|max| {
            let node = &self.config.node_name;
            Error::Limit(format!(
                "number of channels opened on node '{node}' has reached the maximum allowed limit of ({max})"
            ))
        })?;
        let limits = self.user(&place.user).map(|user| user.limits.clone()).unwrap_or_default();
        take(&place.of_user.channels, limits.get(MAX_CHANNELS)).map_err(|max| {
            place.all.channels.fetch_sub(1, Ordering::Relaxed);
            Error::Limit(format!(
                "number of channels opened for user '{}' has reached the maximum allowed user limit of ({max})",
                place.user
            ))
        })?;
        place.of_vhost.channels.fetch_add(1, Ordering::Relaxed);
        place.channels.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the place of a channel back.
    pub fn give_channel_back(&self, place: &Place) {
        for taken in [&place.channels, &place.all.channels, &place.of_user.channels, &place.of_vhost.channels]
        {
            taken.fetch_sub(1, Ordering::Relaxed);
        }
    }

    // Set -----------------------------------------------------------------------------------------

    /// Limits a user in something.
    ///
    /// # Errors
    /// `NoUser`; `Invalid` naming the limit; `Store`.
    pub fn set_user_limit(&self, actor: &Actor, user: &str, name: &str, value: &Json) -> Result<(), Error> {
        let what = format!("set limit '{name}' of user '{user}'");
        self.change_user_limits(actor, &what, user, |limits| limits.set(name, value, OF_USERS))
    }

    /// Limits a user in something no more; nothing happens if it was not.
    ///
    /// # Errors
    /// `NoUser`, `Store`.
    pub fn clear_user_limit(&self, actor: &Actor, user: &str, name: &str) -> Result<(), Error> {
        let what = format!("clear limit '{name}' of user '{user}'");
        self.change_user_limits(actor, &what, user, |limits| {
            limits.clear(name);
            Ok(())
        })
    }

    fn change_user_limits(
        &self,
        actor: &Actor,
        what: &str,
        name: &str,
        change: impl FnOnce(&mut Limits) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.perform(actor, what, || {
            let mut users = self.users_mut();
            let before = users.get(name).cloned().ok_or_else(|| Error::NoUser(name.into()))?;
            let mut user = User::clone(&before);
            change(&mut user.limits)?;
            if user == *before {
                return Ok(Change::nothing(()));
            }
            users.insert(user.clone());
            let event = match user.limits.is_empty() {
                true => AdminEvent::user_limits_cleared(name),
                false => AdminEvent::user_limits_set(name, &user.limits),
            };
            Ok(Change { operations: vec![Definition::User(user).define()], events: vec![event], value: () })
        })
    }

    /// Limits a vhost in something.
    ///
    /// # Errors
    /// `NoVhost`; `Invalid` naming the limit; `Store`.
    pub fn set_vhost_limit(&self, actor: &Actor, vhost: &str, name: &str, value: &Json) -> Result<(), Error> {
        let what = format!("set limit '{name}' of vhost '{vhost}'");
        self.change_vhost_limits(actor, &what, vhost, |limits| limits.set(name, value, OF_VHOSTS))
    }

    /// Limits a vhost in something no more; nothing happens if it was not.
    ///
    /// # Errors
    /// `NoVhost`, `Store`.
    pub fn clear_vhost_limit(&self, actor: &Actor, vhost: &str, name: &str) -> Result<(), Error> {
        let what = format!("clear limit '{name}' of vhost '{vhost}'");
        self.change_vhost_limits(actor, &what, vhost, |limits| {
            limits.clear(name);
            Ok(())
        })
    }

    /// Gives a vhost other limits than it had.
    ///
    /// # Errors
    /// `NoVhost`, `Store`.
    pub fn set_vhost_limits(&self, actor: &Actor, vhost: &str, limits: Limits) -> Result<(), Error> {
        let what = format!("set limits of vhost '{vhost}'");
        self.change_vhost_limits(actor, &what, vhost, |before| {
            *before = limits;
            Ok(())
        })
    }

    fn change_vhost_limits(
        &self,
        actor: &Actor,
        what: &str,
        name: &str,
        change: impl FnOnce(&mut Limits) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.perform(actor, what, || {
            let vhost = self.vhost(name)?;
            let mut about = definitions::Vhost::clone(&vhost.about());
            change(&mut about.limits)?;
            if about == *vhost.about() {
                return Ok(Change::nothing(()));
            }
            vhost.describe(about.clone());
            let event = match about.limits.is_empty() {
                true => AdminEvent::vhost_limits_cleared(name),
                false => AdminEvent::vhost_limits_set(name, &about.limits),
            };
            Ok(Change { operations: vec![Definition::Vhost(about).define()], events: vec![event], value: () })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_places_are_taken_than_there_are() {
        let number = AtomicU64::new(0);

        assert_eq!(
            [take(&number, Some(2)), take(&number, Some(2)), take(&number, Some(2))],
            [Ok(()), Ok(()), Err(2)]
        );
        assert_eq!(take(&number, None), Ok(()));
        assert_eq!(number.load(Ordering::Relaxed), 3);
    }
}
