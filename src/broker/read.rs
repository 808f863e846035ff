//! What a file of definitions says, item by item, in the shapes that RabbitMQ 3.8 to 4.x and LavinMQ have given it.
//!
//! Every item is read whole before anything is done; what is wrong is named by its place in the file.

use std::collections::BTreeMap;

use amqp::{Table, Value};
use serde_json::{Map, Value as Json};

use super::VhostChanges;
use super::parameters::{OPERATOR_POLICY, VHOST_LIMITS};
use crate::auth::limits::{OF_USERS, OF_VHOSTS};
use crate::auth::{Limits, PasswordHash, Permission, TopicPermission};
use crate::error::Error;
use crate::json::json_to_table;
use crate::vhost::definitions::{self, Binding, UserPermission, UserTopicPermission};
use crate::vhost::policy::Policy;
use crate::vhost::{Contents, WantedExchange, WantedQueue};

/// Lists that are read.
const LISTS: &[&str] = &[
    "users",
    "vhosts",
    "permissions",
    "topic_permissions",
    "parameters",
    "global_parameters",
    "policies",
    "operator_policies",
    "queues",
    "exchanges",
    "bindings",
];

/// What says where a file comes from.
const ORIGINS: &[&str] = &[
    "rabbit_version",
    "rabbitmq_version",
    "product_name",
    "product_version",
    "rabbitmq_definition_format",
    "original_cluster_name",
    "original_vhost_name",
    "explanation",
    "lavinmq_version",
    "description",
    "metadata",
    "default_queue_type",
    "limits",
    "name",
];

/// Components of plugins that are not here: what is said to them is passed over.
const PLUGINS: &[&str] = &["shovel", "federation-upstream", "federation-upstream-set", "federation"];

/// What RabbitMQ kept passwords with before 3.6, when files did not say it.
const OLD_HASHES: &str = "rabbit_password_hashing_md5";

/// What a file says.
#[derive(Debug, Default)]
pub struct Said {
    pub users: Vec<SaidUser>,
    pub vhosts: Vec<(String, VhostChanges)>,
    pub limits: Vec<(String, Limits)>,
    pub permissions: Vec<UserPermission>,
    pub topic_permissions: Vec<UserTopicPermission>,
    pub global_parameters: Vec<(String, Json)>,
    /// What is in vhosts, by vhost.
    pub contents: BTreeMap<String, Contents>,
    /// What is passed over, and why.
    pub skip: Vec<String>,
}

/// A user as a file says it.
#[derive(Debug)]
pub struct SaidUser {
    pub name: String,
    pub password: Password,
    pub tags: Vec<String>,
    pub limits: Option<Limits>,
}

/// A password, or what proves one.
#[derive(Debug)]
pub enum Password {
    Clear(String),
    Hash(PasswordHash),
}

impl Password {
    /// What is kept of it, if it may be one.
    pub fn hash(self, check: impl Fn(&str) -> Result<(), Error>) -> Result<PasswordHash, Error> {
        match self {
            Password::Clear(password) => {
                check(&password)?;
                let is_none = password.is_empty();
                Ok(if is_none { PasswordHash::none() } else { PasswordHash::sha256(&password) })
            }
            Password::Hash(hash) => Ok(hash),
        }
    }
}

/// Reads a file, or that part of it which goes into a vhost.
///
/// # Errors
/// `Invalid`: what is wrong, and where.
pub fn definitions(json: &Json, vhost: Option<&str>) -> Result<Said, Error> {
    let Json::Object(whole) = json else {
        return Err(Error::Invalid("definitions must be a JSON object".into()));
    };
    let mut said = Said::default();
    for key in whole.keys().filter(|key| !LISTS.contains(&key.as_str()) && !ORIGINS.contains(&key.as_str())) {
        said.skip.push(format!("'{key}': definitions have no such part"));
    }
    if vhost.is_none() {
        each(whole, "users", |item| said.user(item, is_old(whole)))?;
        each(whole, "vhosts", |item| said.vhost(item))?;
        each(whole, "permissions", |item| said.permission(item))?;
        each(whole, "topic_permissions", |item| said.topic_permission(item))?;
        each(whole, "global_parameters", |item| said.global_parameter(item))?;
    } else {
        let others = ["users", "vhosts", "permissions", "topic_permissions", "global_parameters"];
        for key in others.iter().filter(|key| whole.contains_key(**key)) {
            said.skip.push(format!("'{key}': they are not part of a vhost"));
        }
    }
    each(whole, "parameters", |item| said.parameter(item, vhost))?;
    each(whole, "policies", |item| said.policy(item, vhost, false))?;
    each(whole, "operator_policies", |item| said.policy(item, vhost, true))?;
    each(whole, "exchanges", |item| said.exchange(item, vhost))?;
    each(whole, "queues", |item| said.queue(item, vhost))?;
    each(whole, "bindings", |item| said.binding(item, vhost))?;
    Ok(said)
}

/// Whether the file comes from a RabbitMQ before 3.6.
fn is_old(whole: &Map<String, Json>) -> bool {
    let version = whole.get("rabbitmq_version").or_else(|| whole.get("rabbit_version"));
    let Some(version) = version.and_then(Json::as_str) else { return false };
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    (major, minor) < (3, 6) && major > 0
}

fn each(
    whole: &Map<String, Json>,
    list: &str,
    mut read: impl FnMut(&Map<String, Json>) -> Result<(), Error>,
) -> Result<(), Error> {
    let items = match whole.get(list) {
        None | Some(Json::Null) => return Ok(()),
        Some(Json::Array(items)) => items,
        Some(other) => return Err(Error::Invalid(format!("{list} must be a list, and is {}", short(other)))),
    };
    for (n, item) in items.iter().enumerate() {
        let Json::Object(item) = item else {
            return Err(Error::Invalid(format!("{list}[{n}] must be an object, and is {}", short(item))));
        };
        let place = || match item.get("name").and_then(Json::as_str) {
            Some(name) => format!("{list}[{n}] '{name}'"),
            None => format!("{list}[{n}]"),
        };
        read(item).map_err(|error| Error::Invalid(format!("{}: {error}", place())))?;
    }
    Ok(())
}

impl Said {
    fn user(&mut self, item: &Map<String, Json>, is_old: bool) -> Result<(), Error> {
        let algorithm = optional_text(item, "hashing_algorithm")?;
        let algorithm = algorithm.or_else(|| is_old.then(|| OLD_HASHES.to_string()));
        let password = match (optional_text(item, "password")?, optional_text(item, "password_hash")?) {
            (Some(clear), None) => Password::Clear(clear),
            (None, Some(hash)) => Password::Hash(PasswordHash::import(&hash, algorithm.as_deref())?),
            (None, None) => Password::Hash(PasswordHash::none()),
            (Some(_), Some(_)) => {
                return Err(Error::Invalid("both password and password_hash are provided".into()));
            }
        };
        let limits = match optional_object(item, "limits")? {
            Some(limits) => Some(Limits::read(&limits, OF_USERS)?),
            None => None,
        };
        let tags = tags(item, "tags")?.unwrap_or_default();
        self.users.push(SaidUser { name: name(item)?, password, tags, limits });
        Ok(())
    }

    fn vhost(&mut self, item: &Map<String, Json>) -> Result<(), Error> {
        let metadata = optional_object(item, "metadata")?.unwrap_or_default();
        let either = |key: &str| item.get(key).or_else(|| metadata.get(key)).filter(|value| !value.is_null());
        let merged: Map<String, Json> =
            ["description", "tags", "default_queue_type", "tracing", "protected_from_deletion"]
                .into_iter()
                .filter_map(|key| Some((key.to_string(), either(key)?.clone())))
                .collect();
        let limits = match optional_object(item, "limits")? {
            Some(limits) => Some(Limits::read(&limits, OF_VHOSTS)?),
            None => None,
        };
        let kind = optional_text(&merged, "default_queue_type")?.filter(|kind| kind != "undefined");
        let changes = VhostChanges {
            description: optional_text(&merged, "description")?,
            tags: tags(&merged, "tags")?,
            default_queue_type: kind.map(Some),
            tracing: optional_flag(&merged, "tracing")?,
            protected: optional_flag(&merged, "protected_from_deletion")?,
            limits,
        };
        self.vhosts.push((name(item)?, changes));
        Ok(())
    }

    fn permission(&mut self, item: &Map<String, Json>) -> Result<(), Error> {
        let permission = Permission {
            configure: text(item, "configure")?,
            write: text(item, "write")?,
            read: text(item, "read")?,
        };
        self.permissions.push(UserPermission {
            user: text(item, "user")?,
            vhost: text(item, "vhost")?,
            permission,
        });
        Ok(())
    }

    fn topic_permission(&mut self, item: &Map<String, Json>) -> Result<(), Error> {
        self.topic_permissions.push(UserTopicPermission {
            user: text(item, "user")?,
            vhost: text(item, "vhost")?,
            exchange: text(item, "exchange")?,
            permission: TopicPermission { write: text(item, "write")?, read: text(item, "read")? },
        });
        Ok(())
    }

    fn global_parameter(&mut self, item: &Map<String, Json>) -> Result<(), Error> {
        let value = item.get("value").cloned().ok_or_else(|| missing("value"))?;
        self.global_parameters.push((name(item)?, value));
        Ok(())
    }

    fn parameter(&mut self, item: &Map<String, Json>, vhost: Option<&str>) -> Result<(), Error> {
        let (vhost, component, name) = (place(item, vhost)?, text(item, "component")?, name(item)?);
        match component.as_str() {
            VHOST_LIMITS => {
                let value = optional_object(item, "value")?.unwrap_or_default();
                self.limits.push((vhost, Limits::read(&value, OF_VHOSTS)?));
            }
            OPERATOR_POLICY => {
                let value = optional_object(item, "value")?.ok_or_else(|| missing("value"))?;
                let policy = Policy::read(&vhost, &name, &value, true)?;
                self.contents.entry(vhost).or_default().policies.push(policy);
            }
            other if PLUGINS.contains(&other) => {
                self.skip.push(format!(
                    "parameter '{name}' in vhost '{vhost}': there is no component '{other}' here"
                ));
            }
            other => return Err(Error::Invalid(format!("component {other} not found"))),
        }
        Ok(())
    }

    fn policy(&mut self, item: &Map<String, Json>, vhost: Option<&str>, operator: bool) -> Result<(), Error> {
        let vhost = place(item, vhost)?;
        let policy = Policy::read(&vhost, &name(item)?, item, operator)?;
        self.contents.entry(vhost).or_default().policies.push(policy);
        Ok(())
    }

    fn exchange(&mut self, item: &Map<String, Json>, vhost: Option<&str>) -> Result<(), Error> {
        let vhost = place(item, vhost)?;
        let durable = optional_flag(item, "durable")?.unwrap_or(true);
        let kept = definitions::Exchange {
            vhost: vhost.clone(),
            name: text(item, "name")?,
            kind: text(item, "type")?,
            auto_delete: optional_flag(item, "auto_delete")?.unwrap_or(false),
            internal: optional_flag(item, "internal")?.unwrap_or(false),
            arguments: arguments(item)?,
        };
        self.contents.entry(vhost).or_default().exchanges.push(WantedExchange { kept, durable });
        Ok(())
    }

    fn queue(&mut self, item: &Map<String, Json>, vhost: Option<&str>) -> Result<(), Error> {
        let vhost = place(item, vhost)?;
        let mut arguments = arguments(item)?;
        // Some versions say the type beside the arguments.
        let kind = optional_text(item, "type")?.filter(|kind| kind != "classic" && kind != "undefined");
        if let Some(kind) = kind
            && arguments.get("x-queue-type").is_none()
        {
            arguments.insert("x-queue-type", Value::text(kind));
        }
        let queue = WantedQueue {
            name: text(item, "name")?,
            durable: optional_flag(item, "durable")?.unwrap_or(true),
            auto_delete: optional_flag(item, "auto_delete")?.unwrap_or(false),
            arguments,
        };
        self.contents.entry(vhost).or_default().queues.push(queue);
        Ok(())
    }

    fn binding(&mut self, item: &Map<String, Json>, vhost: Option<&str>) -> Result<(), Error> {
        let vhost = place(item, vhost)?;
        let to_queue = match optional_text(item, "destination_type")?.as_deref() {
            None | Some("queue") => true,
            Some("exchange") => false,
            Some(other) => {
                return Err(Error::Invalid(format!(
                    "destination_type is '{other}', and must be queue or exchange"
                )));
            }
        };
        let binding = Binding {
            vhost: vhost.clone(),
            source: text(item, "source")?,
            destination: text(item, "destination")?,
            to_queue,
            routing_key: optional_text(item, "routing_key")?.unwrap_or_default(),
            arguments: arguments(item)?,
        };
        self.contents.entry(vhost).or_default().bindings.push(binding);
        Ok(())
    }
}

fn missing(key: &str) -> Error {
    Error::Invalid(format!("{key} is missing"))
}

fn wrong(key: &str, wanted: &str, value: &Json) -> Error {
    Error::Invalid(format!("{key} must be {wanted}, and is {}", short(value)))
}

/// A value as an error shows it.
fn short(value: &Json) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn optional_text(item: &Map<String, Json>, key: &str) -> Result<Option<String>, Error> {
    match item.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(key, "text", other)),
    }
}

fn text(item: &Map<String, Json>, key: &str) -> Result<String, Error> {
    optional_text(item, key)?.ok_or_else(|| missing(key))
}

fn name(item: &Map<String, Json>) -> Result<String, Error> {
    text(item, "name").and_then(|name| match name.as_str() {
        "" => Err(Error::Invalid("name is empty".into())),
        _ => Ok(name),
    })
}

/// The vhost of an item, unless all go into one.
fn place(item: &Map<String, Json>, vhost: Option<&str>) -> Result<String, Error> {
    vhost.map_or_else(|| text(item, "vhost"), |vhost| Ok(vhost.into()))
}

fn optional_flag(item: &Map<String, Json>, key: &str) -> Result<Option<bool>, Error> {
    match item.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(wrong(key, "true or false", other)),
    }
}

/// An object; Erlang cannot tell an empty one from an empty list.
fn optional_object(item: &Map<String, Json>, key: &str) -> Result<Option<Map<String, Json>>, Error> {
    match item.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Object(object)) => Ok(Some(object.clone())),
        Some(Json::Array(items)) if items.is_empty() => Ok(Some(Map::new())),
        Some(other) => Err(wrong(key, "an object", other)),
    }
}

/// Tags: a list, or text with commas.
pub fn tags(item: &Map<String, Json>, key: &str) -> Result<Option<Vec<String>>, Error> {
    let tag = |value: &Json| match value {
        Json::String(tag) => Ok(tag.trim().to_string()),
        other => Err(wrong(key, "a list of texts", other)),
    };
    let tags = match item.get(key) {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(text)) => text.split(',').map(|tag| tag.trim().to_string()).collect(),
        Some(Json::Array(tags)) => tags.iter().map(tag).collect::<Result<Vec<_>, _>>()?,
        Some(other) => return Err(wrong(key, "a list of texts", other)),
    };
    Ok(Some(tags.into_iter().filter(|tag| !tag.is_empty()).collect()))
}

fn arguments(item: &Map<String, Json>) -> Result<Table, Error> {
    let object = optional_object(item, "arguments")?.unwrap_or_default();
    json_to_table(&object).map_err(|reason| Error::Invalid(format!("arguments: {reason}")))
}
