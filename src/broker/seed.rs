//! What is to be there after a start: in a new data directory vhost `/` and user guest, and in each what the
//! configuration asks for.

use serde_json::Value as Json;

use super::parameters::CLUSTER_ID;
use super::users::Wanted;
use super::vhosts::VhostChanges;
use super::{Broker, Change};
use crate::auth::{PasswordHash, Permission, TopicPermission};
use crate::config::Seed;
use crate::error::Error;
use crate::vhost::definitions::{UserPermission, UserTopicPermission};
use crate::vhost::{generated, policy::Policy};

impl Broker {
    /// Makes what is to be there, so far as it is not.
    pub(super) fn seed(&self) -> Result<(), Error> {
        let mut news = Change::nothing(());
        // Who brings definitions says there who may log in, and nobody else is to.
        let is_new =
            self.vhosts.is_empty() && self.users().is_empty() && self.config.load_definitions.is_empty();
        let first = is_new.then_some(&self.config.first);
        for seed in first.into_iter().chain([&self.config.seed]) {
            self.seed_with(seed, &mut news)?;
        }
        if self.cluster_id().is_empty() {
            let id = generated("rabbitmq-cluster-id-");
            news.add(self.global_parameter_put(CLUSTER_ID, Json::String(id))?);
        }
        self.keep(news.operations)
    }

    fn seed_with(&self, seed: &Seed, news: &mut Change<()>) -> Result<(), Error> {
        for vhost in &seed.vhosts {
            if self.vhost(&vhost.name).is_err() {
                let description = (vhost.name == "/").then(|| "Default virtual host".to_string());
                news.add(
                    self.vhost_put(&vhost.name, VhostChanges { description, ..VhostChanges::default() })?,
                );
            }
        }
        for wanted in &seed.users {
            let has_it = self
                .user(&wanted.name)
                .is_some_and(|user| user.password.fits(&wanted.password) && user.tags == wanted.tags);
            if !has_it {
                news.add(self.user_put(Wanted {
                    name: wanted.name.clone(),
                    password: PasswordHash::sha256(&wanted.password),
                    tags: wanted.tags.clone(),
                    limits: None,
                })?);
            }
        }
        let no_user = |user: &str| {
            Error::Invalid(format!(
                "the configuration gives permissions to user '{user}', who is not there; add a [[users]] entry"
            ))
        };
        for wanted in &seed.permissions {
            let permission = Permission {
                configure: wanted.configure.clone(),
                write: wanted.write.clone(),
                read: wanted.read.clone(),
            };
            self.user(&wanted.user).ok_or_else(|| no_user(&wanted.user))?;
            if self.permission(&wanted.user, &wanted.vhost).as_ref() != Some(&permission) {
                let (user, vhost) = (wanted.user.clone(), wanted.vhost.clone());
                // A bad expression stops the start and not the first login.
                news.add(self.permission_put(UserPermission { user, vhost, permission })?);
            }
        }
        for wanted in &seed.policies {
            let policy: Policy = serde_json::from_value(wanted.clone()).map_err(|error| {
                Error::Invalid(format!("a policy of the configuration: {error}: {wanted}"))
            })?;
            let vhost = self.vhost(&policy.vhost)?;
            if !vhost.policies().contains(&policy) {
                vhost.set_policy(policy)?;
            }
        }
        for wanted in &seed.topic_permissions {
            let (user, vhost, exchange) = (&wanted.user, &wanted.vhost, &wanted.exchange);
            let permission = TopicPermission { write: wanted.write.clone(), read: wanted.read.clone() };
            self.user(user).ok_or_else(|| no_user(user))?;
            if self.users().topic_permission(user, vhost, exchange) == Some(&permission) {
                continue;
            }
            let (user, vhost, exchange) = (user.clone(), vhost.clone(), exchange.clone());
            news.add(self.topic_permission_put(UserTopicPermission { user, vhost, exchange, permission })?);
        }
        Ok(())
    }
}
