//! What administrators do: who, from where, what, and how it went. Each deed is a line of the log with the target
//! `audit`, and is shown to whoever wants to hear of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value as Json, json};
use tracing::{info, warn};

use crate::auth::{Limits, Permission, TopicPermission};
use crate::clock::Clock;
use crate::error::Error;
use crate::news::NOBODY;
use crate::vhost::definitions;
use crate::vhost::policy::Policy;

/// Who does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: Arc<str>,
    /// Where the user is; nowhere if it is the broker itself.
    pub peer: Option<SocketAddr>,
}

impl Actor {
    /// A user.
    pub fn new(user: &str, peer: SocketAddr) -> Actor {
        Actor { user: user.into(), peer: Some(peer) }
    }

    /// The broker itself, at its start.
    pub fn broker() -> Actor {
        Actor { user: NOBODY.into(), peer: None }
    }
}

/// Something that was done, as RabbitMQ's event exchange tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminEvent {
    /// What: the routing key, such as `user.created`.
    pub key: &'static str,
    /// To what.
    pub fields: Map<String, Json>,
}

/// A deed.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    /// Who.
    pub actor: Actor,
    /// What.
    pub event: AdminEvent,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Deed {
    /// All that is told of it, as the event exchange has it in headers.
    pub fn fields(&self) -> Map<String, Json> {
        let mut fields = self.event.fields.clone();
        fields.insert("user_who_performed_action".into(), (*self.actor.user).into());
        fields.insert("timestamp_in_ms".into(), self.at_ms.into());
        fields
    }
}

/// Hears of deeds. It must not take long, and must not do any itself.
pub type Hook = Box<dyn Fn(&Deed) + Send + Sync>;

/// Tells of deeds.
#[derive(Default)]
pub struct Audit(RwLock<Vec<Hook>>);

impl Audit {
    /// Has somebody hear of every deed from now on.
    pub fn tell(&self, hook: Hook) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(hook);
    }

    /// Something was done.
    pub(super) fn done(&self, actor: &Actor, event: AdminEvent, clock: &Clock) {
        let deed = Deed { actor: actor.clone(), event, at_ms: clock.now_ms() };
        let AdminEvent { key, fields } = &deed.event;
        let fields = Json::Object(fields.clone());
        match actor.peer {
            Some(from) => {
                info!(target: "audit", user = %actor.user, %from, action = key, %fields, outcome = "done")
            }
            None => info!(target: "audit", user = %actor.user, action = key, %fields, outcome = "done"),
        }
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(|hook| hook(&deed));
    }

    /// Something was tried.
    pub(super) fn refused(&self, actor: &Actor, action: &str, error: &Error) {
        let from = actor.peer.map(|peer| peer.to_string()).unwrap_or_default();
        warn!(target: "audit", user = %actor.user, from, action, reason = %error, outcome = "refused");
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}

/// The events, with RabbitMQ's names of the fields.
impl AdminEvent {
    fn new(key: &'static str, fields: Json) -> AdminEvent {
        let fields = if let Json::Object(fields) = fields { fields } else { Map::new() };
        AdminEvent { key, fields }
    }

    /// A user was made.
    pub fn user_created(name: &str) -> AdminEvent {
        AdminEvent::new("user.created", json!({"name": name}))
    }

    /// A user is gone.
    pub fn user_deleted(name: &str) -> AdminEvent {
        AdminEvent::new("user.deleted", json!({"name": name}))
    }

    /// A user has another password.
    pub fn user_password_changed(name: &str) -> AdminEvent {
        AdminEvent::new("user.password.changed", json!({"name": name}))
    }

    /// A user has no password any more.
    pub fn user_password_cleared(name: &str) -> AdminEvent {
        AdminEvent::new("user.password.cleared", json!({"name": name}))
    }

    /// A user has these tags.
    pub fn user_tags_set(name: &str, tags: &[String]) -> AdminEvent {
        AdminEvent::new("user.tags.set", json!({"name": name, "tags": tags}))
    }

    /// A user has these limits.
    pub fn user_limits_set(name: &str, limits: &Limits) -> AdminEvent {
        AdminEvent::new("user.limits.set", with_limits(json!({"name": "limits", "username": name}), limits))
    }

    /// A user has no limits any more.
    pub fn user_limits_cleared(name: &str) -> AdminEvent {
        AdminEvent::new("user.limits.cleared", json!({"name": "limits", "username": name}))
    }

    /// A user may do something in a vhost.
    pub fn permission_created(user: &str, vhost: &str, permission: &Permission) -> AdminEvent {
        let Permission { configure, write, read } = permission;
        let fields =
            json!({"user": user, "vhost": vhost, "configure": configure, "write": write, "read": read});
        AdminEvent::new("permission.created", fields)
    }

    /// A user may do nothing in a vhost any more.
    pub fn permission_deleted(user: &str, vhost: &str) -> AdminEvent {
        AdminEvent::new("permission.deleted", json!({"user": user, "vhost": vhost}))
    }

    /// A user may use some keys of a topic exchange.
    pub fn topic_permission_created(
        user: &str,
        vhost: &str,
        exchange: &str,
        permission: &TopicPermission,
    ) -> AdminEvent {
        let TopicPermission { write, read } = permission;
        let fields =
            json!({"user": user, "vhost": vhost, "exchange": exchange, "write": write, "read": read});
        AdminEvent::new("topic.permission.created", fields)
    }

    /// Nothing is said any more of the keys of a topic exchange.
    pub fn topic_permission_deleted(user: &str, vhost: &str, exchange: &str) -> AdminEvent {
        let fields = json!({"user": user, "vhost": vhost, "exchange": exchange});
        AdminEvent::new("topic.permission.deleted", fields)
    }

    /// A vhost was made.
    pub fn vhost_created(about: &definitions::Vhost) -> AdminEvent {
        AdminEvent::new("vhost.created", of_vhost(about))
    }

    /// Something else is said of a vhost.
    pub fn vhost_updated(about: &definitions::Vhost) -> AdminEvent {
        AdminEvent::new("vhost.updated", of_vhost(about))
    }

    /// A vhost is gone.
    pub fn vhost_deleted(name: &str) -> AdminEvent {
        AdminEvent::new("vhost.deleted", json!({"name": name}))
    }

    /// A vhost has these limits.
    pub fn vhost_limits_set(vhost: &str, limits: &Limits) -> AdminEvent {
        let fields = with_limits(json!({"name": "limits", "vhost": vhost}), limits);
        AdminEvent::new("vhost.limits.set", fields)
    }

    /// A vhost has no limits any more.
    pub fn vhost_limits_cleared(vhost: &str) -> AdminEvent {
        AdminEvent::new("vhost.limits.cleared", json!({"name": "limits", "vhost": vhost}))
    }

    /// A policy was made, or changed.
    pub fn policy_set(policy: &Policy) -> AdminEvent {
        let key = if policy.operator { "operator.policy.set" } else { "policy.set" };
        let fields = json!({
            "vhost": policy.vhost, "name": policy.name, "pattern": policy.pattern, "apply-to": policy.apply_to,
            "priority": policy.priority, "definition": policy.definition,
        });
        AdminEvent::new(key, fields)
    }

    /// A policy is gone.
    pub fn policy_cleared(vhost: &str, name: &str, operator: bool) -> AdminEvent {
        let key = if operator { "operator.policy.cleared" } else { "policy.cleared" };
        AdminEvent::new(key, json!({"vhost": vhost, "name": name}))
    }

    /// A global parameter was set.
    pub fn global_parameter_set(name: &str, value: &Json) -> AdminEvent {
        AdminEvent::new("parameter.set", json!({"component": "global", "name": name, "value": value}))
    }

    /// A global parameter is gone.
    pub fn global_parameter_cleared(name: &str) -> AdminEvent {
        AdminEvent::new("parameter.cleared", json!({"component": "global", "name": name}))
    }

    /// Definitions were imported, so many of them new and so many changed.
    pub fn definitions_imported(created: usize, changed: usize) -> AdminEvent {
        AdminEvent::new("definitions.imported", json!({"created": created, "changed": changed}))
    }
}

fn with_limits(mut fields: Json, limits: &Limits) -> Json {
    if let Json::Object(fields) = &mut fields {
        fields.extend(limits.to_json());
    }
    fields
}

fn of_vhost(about: &definitions::Vhost) -> Json {
    json!({
        "name": about.name, "description": about.description, "tags": about.tags, "tracing": about.tracing,
        "default_queue_type": about.default_queue_type,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn who_listens_hears_who_did_what_and_when() {
        let audit = Audit::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = heard.clone();
        audit.tell(Box::new(move |deed| ears.lock().unwrap().push((deed.event.key, deed.fields()))));

        audit.done(&Actor::broker(), AdminEvent::user_created("anna"), &Clock::system());

        let heard = heard.lock().unwrap();
        let (key, fields) = &heard[0];
        assert_eq!((*key, &fields["name"]), ("user.created", &json!("anna")));
        assert_eq!(fields["user_who_performed_action"], json!("rmq-internal"));
        assert!(fields["timestamp_in_ms"].as_u64().unwrap() > 0);
    }
}
