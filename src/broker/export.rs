//! Definitions written out: everything that outlives the broker but messages, in the format of RabbitMQ's files.

use exchanges::Kind;
use serde_json::{Map, Value as Json, json};

use super::Broker;
use crate::error::Error;
use crate::json::table_to_json;
use crate::node::COMPATIBLE;
use crate::vhost::Vhost;

impl Broker {
    /// The definitions of the whole broker, or of what is in one vhost, where the vhost is not named.
    ///
    /// # Errors
    /// `NoVhost`.
    pub fn export_definitions(&self, vhost: Option<&str>) -> Result<Json, Error> {
        match vhost {
            Some(name) => self.export_vhost(name),
            None => Ok(self.export_all()),
        }
    }

    fn export_all(&self) -> Json {
        let mut all = Contents::default();
        let vhosts = self.vhosts();
        vhosts.iter().for_each(|vhost| all.add(vhost, true));
        let users: Vec<Json> = self
            .all_users()
            .iter()
            .map(|user| {
                json!({
                    "name": &*user.name, "password_hash": user.password.hash,
                    "hashing_algorithm": user.password.algorithm, "tags": user.tags, "limits": user.limits,
                })
            })
            .collect();
        let vhosts: Vec<Json> = vhosts.iter().map(|vhost| described(vhost)).collect();
        let parameters: Vec<Json> = self
            .parameters()
            .into_iter()
            .map(|parameter| {
                json!({
                    "vhost": parameter.vhost, "component": parameter.component, "name": parameter.name,
                    "value": parameter.value,
                })
            })
            .collect();
        json!({
            "rabbit_version": COMPATIBLE,
            "rabbitmq_version": COMPATIBLE,
            "product_name": "Garenne",
            "product_version": env!("CARGO_PKG_VERSION"),
            "rabbitmq_definition_format": "cluster",
            "original_cluster_name": self.cluster_name(),
            "users": users,
            "vhosts": vhosts,
            "permissions": self.permissions(),
            "topic_permissions": self.topic_permissions(),
            "parameters": parameters,
            "global_parameters": self.global_parameters(),
            "policies": all.policies,
            "queues": all.queues,
            "exchanges": all.exchanges,
            "bindings": all.bindings,
        })
    }

    fn export_vhost(&self, name: &str) -> Result<Json, Error> {
        let vhost = self.vhost(name)?;
        let mut all = Contents::default();
        all.add(&vhost, false);
        let parameters = self.parameters().into_iter().filter(|parameter| parameter.vhost == name);
        let parameters: Vec<Json> =
            parameters.map(|p| json!({"component": p.component, "name": p.name, "value": p.value})).collect();
        let about = vhost.about();
        Ok(json!({
            "rabbit_version": COMPATIBLE,
            "rabbitmq_version": COMPATIBLE,
            "product_name": "Garenne",
            "product_version": env!("CARGO_PKG_VERSION"),
            "rabbitmq_definition_format": "single_virtual_host",
            "original_cluster_name": self.cluster_name(),
            "original_vhost_name": name,
            "description": about.description,
            "metadata": metadata(&vhost),
            "parameters": parameters,
            "policies": all.policies,
            "queues": all.queues,
            "exchanges": all.exchanges,
            "bindings": all.bindings,
        }))
    }
}

/// What is in vhosts.
#[derive(Default)]
struct Contents {
    policies: Vec<Json>,
    queues: Vec<Json>,
    exchanges: Vec<Json>,
    bindings: Vec<Json>,
}

impl Contents {
    fn add(&mut self, vhost: &Vhost, is_named: bool) {
        let put = |items: &mut Vec<Json>, item: Json| {
            let Json::Object(mut item) = item else { return };
            if is_named {
                item.insert("vhost".into(), (**vhost.name()).into());
            }
            items.push(Json::Object(item));
        };
        for policy in vhost.policies().into_iter().filter(|policy| !policy.operator) {
            let item = json!({
                "name": policy.name, "pattern": policy.pattern, "apply-to": policy.apply_to,
                "priority": policy.priority, "definition": policy.definition,
            });
            put(&mut self.policies, item);
        }
        let mut queues = vhost.declared_queues();
        queues.retain(|queue| queue.declaration().owner.is_none());
        queues.sort_by(|a, b| a.name().cmp(b.name()));
        for queue in &queues {
            let declaration = queue.declaration();
            let item = json!({
                "name": queue.name(), "durable": declaration.durable, "auto_delete": declaration.auto_delete,
                "arguments": table_to_json(&queue.declared().table),
            });
            put(&mut self.queues, item);
        }
        let is_own = |name: &str| name.is_empty() || name.starts_with("amq.");
        let mut exchanges = vhost.exchanges();
        exchanges.retain(|(exchange, _)| !is_own(&exchange.name.to_string()));
        exchanges.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        for (exchange, table) in &exchanges {
            let item = json!({
                "name": exchange.name.to_string(), "type": Kind::name(exchange.kind), "durable": exchange.durable,
                "auto_delete": exchange.auto_delete, "internal": exchange.internal,
                "arguments": table_to_json(table),
            });
            put(&mut self.exchanges, item);
        }
        let is_exported = |name: &str| queues.binary_search_by(|queue| queue.name().cmp(name)).is_ok();
        let mut bindings = vhost.bindings();
        bindings.retain(|b| !b.source.is_empty() && (!b.to_queue || is_exported(&b.destination)));
        bindings.sort_by(|a, b| {
            (&a.source, &a.destination, &a.routing_key).cmp(&(&b.source, &b.destination, &b.routing_key))
        });
        for binding in &bindings {
            let item = json!({
                "source": binding.source, "destination": binding.destination,
                "destination_type": if binding.to_queue { "queue" } else { "exchange" },
                "routing_key": binding.routing_key, "arguments": table_to_json(&binding.arguments),
            });
            put(&mut self.bindings, item);
        }
    }
}

/// What definition files say of a vhost itself.
fn described(vhost: &Vhost) -> Json {
    let about = vhost.about();
    json!({
        "name": &**vhost.name(), "description": about.description, "tags": about.tags, "tracing": about.tracing,
        "default_queue_type": about.default_queue_type.as_deref().unwrap_or("undefined"),
        "limits": about.limits, "metadata": metadata(vhost),
    })
}

/// The same as RabbitMQ keeps it.
pub fn metadata(vhost: &Vhost) -> Map<String, Json> {
    let about = vhost.about();
    let mut metadata = Map::new();
    metadata.insert("description".into(), about.description.as_str().into());
    metadata.insert("tags".into(), about.tags.clone().into());
    if let Some(kind) = &about.default_queue_type {
        metadata.insert("default_queue_type".into(), kind.as_str().into());
    }
    if about.protected {
        metadata.insert("protected_from_deletion".into(), true.into());
    }
    metadata
}
