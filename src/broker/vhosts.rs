//! Vhosts: looked up, made, changed and taken away with all that is in them.

use std::sync::Arc;

use fancy_regex::Regex;
use tracing::warn;

use super::audit::{Actor, AdminEvent};
use super::users::{Wanted, permission_definition, topic_definition};
use super::{Broker, Change};
use crate::auth::limits::{MAX_CONNECTIONS, MAX_QUEUES, OF_VHOSTS};
use crate::auth::{Limits, PasswordHash, Permission};
use crate::error::Error;
use crate::queue::Surroundings;
use crate::tally::Tallies;
use crate::trail::Trails;
use crate::vhost::definitions::{self, Definition, UserPermission};
use crate::vhost::policy::{ApplyTo, Policy};
use crate::vhost::{Vhost, check_queue_type};

/// What is said of a vhost; what is not said stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VhostChanges {
    /// What it is for.
    pub description: Option<String>,
    /// What its operators want to find it by.
    pub tags: Option<Vec<String>>,
    /// The type of queues that are declared without one; nothing for that of the broker.
    pub default_queue_type: Option<Option<String>>,
    /// Its messages are traced.
    pub tracing: Option<bool>,
    /// It cannot be deleted.
    pub protected: Option<bool>,
    /// How many connections and queues it may have.
    pub limits: Option<Limits>,
}

impl VhostChanges {
    /// What is then said.
    ///
    /// # Errors
    /// `Invalid`: queues cannot be of that type.
    pub fn apply(self, about: &definitions::Vhost) -> Result<definitions::Vhost, Error> {
        let mut about = about.clone();
        about.description = self.description.unwrap_or(about.description);
        about.tags = self.tags.unwrap_or(about.tags);
        if let Some(kind) = self.default_queue_type {
            kind.as_deref().map_or(Ok(()), check_queue_type)?;
            about.default_queue_type = kind;
        }
        about.tracing = self.tracing.unwrap_or(about.tracing);
        about.protected = self.protected.unwrap_or(about.protected);
        about.limits = self.limits.unwrap_or(about.limits);
        Ok(about)
    }
}

impl Broker {
    /// The vhost of that name.
    ///
    /// # Errors
    /// [`Error::NoVhost`].
    pub fn vhost(&self, name: &str) -> Result<Arc<Vhost>, Error> {
        self.vhosts.get(name).map(|v| v.clone()).ok_or_else(|| Error::NoVhost(name.into()))
    }

    /// All vhosts, by name.
    pub fn vhosts(&self) -> Vec<Arc<Vhost>> {
        let mut all: Vec<Arc<Vhost>> = self.vhosts.iter().map(|vhost| vhost.value().clone()).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Makes a vhost, or says something else of it. Who makes one may do everything there. True if it is new.
    ///
    /// # Errors
    /// `Invalid`: it cannot be so. `Limit`: there are too many. `Store`.
    pub fn put_vhost(&self, actor: &Actor, name: &str, changes: VhostChanges) -> Result<bool, Error> {
        self.perform(actor, &format!("put vhost '{name}'"), || {
            let mut change = self.vhost_put(name, changes)?;
            if change.value {
                // An older one of this name has been deleted since.
                self.roster.forget_vhost(name);
            }
            if change.value && self.user(&actor.user).is_some() {
                let (user, vhost) = (actor.user.to_string(), name.to_string());
                let all = UserPermission { user, vhost, permission: Permission::all() };
                change.add(self.permission_put(all)?);
            }
            Ok(change)
        })
    }

    pub(super) fn vhost_put(&self, name: &str, changes: VhostChanges) -> Result<Change<bool>, Error> {
        if let Ok(vhost) = self.vhost(name) {
            let before = vhost.about();
            let about = changes.apply(&before)?;
            if about == *before {
                return Ok(Change::nothing(false));
            }
            let mut events = vec![AdminEvent::vhost_updated(&about)];
            if about.limits != before.limits {
                events.push(AdminEvent::vhost_limits_set(name, &about.limits));
            }
            vhost.describe(about.clone());
            return Ok(Change { operations: vec![Definition::Vhost(about).define()], events, value: false });
        }
        if name.is_empty() {
            return Err(Error::Invalid("the name of a vhost cannot be empty".into()));
        }
        if let Some(max) = self.config.vhost_max
            && self.vhosts.len() >= max as usize
        {
            return Err(Error::Limit(format!(
                "cannot create vhost '{name}': vhost limit of {max} is reached"
            )));
        }
        let defaults = self.defaults_of(name)?;
        let limits = changes.limits.clone().or(Some(defaults.limits));
        let about = VhostChanges { limits, ..changes }.apply(&definitions::Vhost::new(name))?;
        let vhost = self.add_vhost(about.clone());
        let mut change = Change {
            events: vec![AdminEvent::vhost_created(&about)],
            operations: vec![Definition::Vhost(about).define()],
            value: true,
        };
        for (user, permission) in defaults.users {
            if self.user(&user.name).is_none() {
                change.add(self.user_put(user)?);
            }
            change.add(self.permission_put(permission)?);
        }
        for policy in defaults.policies {
            change.events.push(AdminEvent::policy_set(&policy));
            // It tells the store itself.
            vhost.set_policy(policy)?;
        }
        Ok(change)
    }

    pub(super) fn add_vhost(&self, about: definitions::Vhost) -> Arc<Vhost> {
        let vhost = self.new_vhost(about);
        self.vhosts.insert(vhost.name().clone(), vhost.clone());
        vhost
    }

    /// A vhost that nobody knows yet.
    pub(super) fn new_vhost(&self, about: definitions::Vhost) -> Arc<Vhost> {
        let tallies = Arc::new(Tallies::of(&self.tallies));
        let trails = Arc::new(Trails::new(self.config.trail_steps_max));
        let surroundings = Surroundings { tallies, trails, ..self.surroundings.clone() };
        let kind = self.config.default_queue_type.clone();
        let vhost = Arc::new(Vhost::new(about, kind, surroundings, self.ids.clone()));
        if **vhost.name() == *self.config.news_vhost {
            vhost.add_news();
        }
        vhost
    }

    /// Takes a vhost away, with its queues and their messages, and with all permissions there; connections to it
    /// end.
    ///
    /// # Errors
    /// `NoVhost`, `Protected`, `Store`.
    pub fn delete_vhost(&self, actor: &Actor, name: &str) -> Result<(), Error> {
        self.perform(actor, &format!("delete vhost '{name}'"), || self.vhost_deleted(name))?;
        self.roster.guests().iter().for_each(|guest| self.look_again(guest));
        Ok(())
    }

    fn vhost_deleted(&self, name: &str) -> Result<Change<()>, Error> {
        let vhost = self.vhost(name)?;
        if vhost.about().protected {
            return Err(Error::Protected(format!(
                "vhost '{name}' is protected from deletion; lift the protection first"
            )));
        }
        let (mut operations, mut events) = (Vec::new(), Vec::new());
        let mut users = self.users_mut();
        let may = users.permissions().filter(|(_, vhost, _)| ***vhost == *name);
        let may: Vec<Arc<str>> = may.map(|(user, ..)| user.clone()).collect();
        let topics = users.topic_permissions().filter(|(_, vhost, ..)| ***vhost == *name);
        let topics: Vec<_> = topics.map(|(user, _, exchange, _)| (user.clone(), exchange.clone())).collect();
        for (user, exchange) in topics {
            users.permit_topic(&user, name, &exchange, None);
            operations.push(topic_definition(&user, name, &exchange, None).undefine());
            events.push(AdminEvent::topic_permission_deleted(&user, name, &exchange));
        }
        for user in may {
            users.permit(&user, name, None);
            operations.push(permission_definition(&user, name, None).undefine());
            events.push(AdminEvent::permission_deleted(&user, name));
        }
        users.forget_vhost(name);
        drop(users);
        self.vhosts.remove(name);
        // What its connections told the store before stands before this, and nothing comes after.
        operations.extend(vhost.close());
        operations.push(Definition::Vhost(definitions::Vhost::clone(&vhost.about())).undefine());
        if !vhost.about().limits.is_empty() {
            events.push(AdminEvent::vhost_limits_cleared(name));
        }
        events.push(AdminEvent::vhost_deleted(name));
        Ok(Change { operations, events, value: () })
    }

    /// What the configuration gives to a new vhost of that name.
    fn defaults_of(&self, name: &str) -> Result<Defaults, Error> {
        let fits = |what: &str, whose: &str, pattern: &str| match Regex::new(pattern) {
            Ok(regex) => Ok(regex.is_match(name).unwrap_or(false)),
            Err(error) => Err(Error::Invalid(format!(
                "vhost_defaults.{what}: the vhost_pattern of '{whose}' is '{pattern}': {error}"
            ))),
        };
        let mut defaults = Defaults::default();
        let wanted = &self.config.vhost_defaults;
        for user in &wanted.users {
            if !fits("users", &user.name, &user.vhost_pattern)? {
                continue;
            }
            let random = || {
                warn!(
                    user = user.name,
                    vhost = name,
                    "the user gets a random password; somebody has to set one"
                );
                crate::vhost::generated("")
            };
            let password = user.password.clone().unwrap_or_else(random);
            let (configure, write, read) = (user.configure.clone(), user.write.clone(), user.read.clone());
            let permission = Permission { configure, write, read };
            permission.check()?;
            defaults.users.push((
                Wanted {
                    name: user.name.clone(),
                    password: PasswordHash::sha256(&password),
                    tags: user.tags.clone(),
                    limits: None,
                },
                UserPermission { user: user.name.clone(), vhost: name.into(), permission },
            ));
        }
        for limits in &wanted.limits {
            if fits("limits", &limits.name, &limits.vhost_pattern)? {
                let values = [(MAX_CONNECTIONS, limits.max_connections), (MAX_QUEUES, limits.max_queues)];
                for (key, value) in values {
                    value.map_or(Ok(()), |value| defaults.limits.set(key, &value.into(), OF_VHOSTS))?;
                }
                break;
            }
        }
        for policy in &wanted.policies {
            if fits("policies", &policy.name, &policy.vhost_pattern)? {
                let policy = Policy {
                    vhost: name.into(),
                    name: policy.name.clone(),
                    pattern: policy.queue_pattern.clone(),
                    apply_to: ApplyTo::Queues,
                    priority: 0,
                    definition: policy.definition.clone(),
                    operator: true,
                };
                policy.check()?;
                defaults.policies.push(policy);
            }
        }
        Ok(defaults)
    }
}

/// What a new vhost gets by itself.
#[derive(Default)]
struct Defaults {
    users: Vec<(Wanted, UserPermission)>,
    limits: Limits,
    policies: Vec<Policy>,
}
