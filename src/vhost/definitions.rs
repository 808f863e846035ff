//! What outlives the broker: users, vhosts, their durable exchanges, queues and bindings, as the store keeps
//! them. Declaring and restoring go through the same values.
//!
//! A key is a letter and names, each with its length in front (u16, big-endian); a value is JSON with
//! AMQP tables in base64, so that every field keeps its type.

use amqp::Table;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use store::Operation;

use super::policy::Policy;
use crate::auth::{Limits, Permission, TopicPermission, User};

/// Something that is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Definition {
    /// A vhost.
    Vhost(Vhost),
    /// A user.
    User(User),
    /// What a user may do in a vhost.
    Permission(UserPermission),
    /// What a user may do with the keys of a topic exchange.
    TopicPermission(UserTopicPermission),
    /// A global parameter.
    GlobalParameter(GlobalParameter),
    /// A policy.
    Policy(Policy),
    /// A durable exchange.
    Exchange(Exchange),
    /// Where an exchange keeps the messages that it holds back.
    Delays(Delays),
    /// Where an exchange keeps what it knows again.
    Window(Delays),
    /// A durable queue.
    Queue(Queue),
    /// A binding between durable things.
    Binding(Binding),
}

/// A vhost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vhost {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whatever its operators want to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The type of queues that are declared without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_queue_type: Option<String>,
    /// Its messages are traced.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tracing: bool,
    /// It cannot be deleted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub protected: bool,
    /// How many connections and queues it may have.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

impl Vhost {
    /// A vhost of which nothing is said.
    pub fn new(name: &str) -> Vhost {
        Vhost { name: name.into(), ..Vhost::default() }
    }
}

/// A value that is known by its name everywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlobalParameter {
    /// Its name.
    pub name: String,
    /// What it is.
    pub value: Json,
}

/// What a user may do in a vhost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserPermission {
    /// Who.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// What.
    #[serde(flatten)]
    pub permission: Permission,
}

/// What a user may do with the keys of a topic exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserTopicPermission {
    /// Who.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// The topic exchange.
    pub exchange: String,
    /// What.
    #[serde(flatten)]
    pub permission: TopicPermission,
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// Its vhost.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// It goes with its last binding.
    pub auto_delete: bool,
    /// Clients cannot publish to it.
    pub internal: bool,
    /// Its arguments.
    #[serde(with = "table")]
    pub arguments: Table,
}

/// A queue of an exchange's own: for the messages that it holds back, or for what it knows again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    /// Its vhost.
    pub vhost: String,
    /// The exchange.
    pub exchange: String,
    /// The number of its queue in the log.
    pub id: u64,
}

/// A durable queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Its vhost.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// Its number in the log.
    pub id: u64,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// The arguments that it was made with.
    #[serde(with = "table")]
    pub arguments: Table,
    /// Those that it has now, if they have been changed.
    #[serde(with = "table::optional", default, skip_serializing_if = "Option::is_none")]
    pub altered: Option<Table>,
    /// It delivers nothing before this time, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub paused_until_ms: u64,
}

/// A binding between durable things.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// Its vhost.
    pub vhost: String,
    /// The exchange it leaves from.
    pub source: String,
    /// Where it leads.
    pub destination: String,
    /// It leads to a queue, not to an exchange.
    pub to_queue: bool,
    /// Its key.
    pub routing_key: String,
    /// Its arguments.
    #[serde(with = "table")]
    pub arguments: Table,
}

impl Definition {
    /// The operation that keeps it.
    pub fn define(&self) -> Operation {
        Operation::Define { key: self.key(), value: self.value() }
    }

    /// The operation that forgets it.
    pub fn undefine(&self) -> Operation {
        Operation::Undefine { key: self.key() }
    }

    /// Reads what the store kept.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Definition, String> {
        fn json<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
            serde_json::from_slice(value).map_err(|e| e.to_string())
        }
        match key.first() {
            Some(b'v') => json(value).map(Definition::Vhost),
            Some(b'u') => json(value).map(Definition::User),
            Some(b'p') => json(value).map(Definition::Permission),
            Some(b't') => json(value).map(Definition::TopicPermission),
            Some(b'g') => json(value).map(Definition::GlobalParameter),
            Some(b'o') => json(value).map(Definition::Policy),
            Some(b'e') => json(value).map(Definition::Exchange),
            Some(b'd') => json(value).map(Definition::Delays),
            Some(b'w') => json(value).map(Definition::Window),
            Some(b'q') => json(value).map(Definition::Queue),
            Some(b'b') => json(value).map(Definition::Binding),
            other => Err(format!("a key of unknown kind {other:?}")),
        }
    }

    /// What it is kept under: no two things have the same.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Definition::Vhost(v) => key(b'v', &[v.name.as_bytes()]),
            Definition::User(u) => key(b'u', &[u.name.as_bytes()]),
            Definition::Permission(p) => key(b'p', &[p.user.as_bytes(), p.vhost.as_bytes()]),
            Definition::TopicPermission(p) => {
                key(b't', &[p.user.as_bytes(), p.vhost.as_bytes(), p.exchange.as_bytes()])
            }
            Definition::GlobalParameter(g) => key(b'g', &[g.name.as_bytes()]),
            Definition::Policy(p) => {
                let whose: &[u8] = if p.operator { b"operator" } else { b"user" };
                key(b'o', &[p.vhost.as_bytes(), whose, p.name.as_bytes()])
            }
            Definition::Exchange(e) => key(b'e', &[e.vhost.as_bytes(), e.name.as_bytes()]),
            Definition::Delays(d) => key(b'd', &[d.vhost.as_bytes(), d.exchange.as_bytes()]),
            Definition::Window(w) => key(b'w', &[w.vhost.as_bytes(), w.exchange.as_bytes()]),
            Definition::Queue(q) => key(b'q', &[q.vhost.as_bytes(), q.name.as_bytes()]),
            Definition::Binding(b) => {
                // Arguments are part of a binding's identity, in whatever order they came.
                let mut entries = b.arguments.0.clone();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                let mut arguments = Vec::new();
                Table(entries).encode(&mut arguments);
                let kind: &[u8] = if b.to_queue { b"q" } else { b"e" };
                let (source, destination) = (b.source.as_bytes(), b.destination.as_bytes());
                let parts = [b.vhost.as_bytes(), source, kind, destination, b.routing_key.as_bytes()];
                let mut bytes = key(b'b', &parts);
                bytes.extend(arguments);
                bytes
            }
        }
    }

    fn value(&self) -> Vec<u8> {
        let json = match self {
            Definition::Vhost(v) => serde_json::to_vec(v),
            Definition::User(u) => serde_json::to_vec(u),
            Definition::Permission(p) => serde_json::to_vec(p),
            Definition::TopicPermission(p) => serde_json::to_vec(p),
            Definition::GlobalParameter(g) => serde_json::to_vec(g),
            Definition::Policy(p) => serde_json::to_vec(p),
            Definition::Exchange(e) => serde_json::to_vec(e),
            Definition::Delays(d) => serde_json::to_vec(d),
            Definition::Window(w) => serde_json::to_vec(w),
            Definition::Queue(q) => serde_json::to_vec(q),
            Definition::Binding(b) => serde_json::to_vec(b),
        };
        json.expect("names and numbers are always JSON")
    }
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    for part in parts {
        key.extend((part.len() as u16).to_be_bytes());
        key.extend(*part);
    }
    key
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

mod table {
    use super::*;

    /// One that need not be there.
    pub mod optional {
        use super::*;

        pub fn serialize<S: Serializer>(table: &Option<Table>, serializer: S) -> Result<S::Ok, S::Error> {
            match table {
                Some(table) => super::serialize(table, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Table>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }

    pub fn serialize<S: Serializer>(table: &Table, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Table, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(serde::de::Error::custom)?;
        Table::decode(&bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::limits::OF_VHOSTS;
    use amqp::Value;

    fn check(definition: Definition) {
        let Operation::Define { key, value } = definition.define() else { panic!("not a define") };

        assert_eq!(Definition::decode(&key, &value), Ok(definition.clone()));
        assert_eq!(definition.undefine(), Operation::Undefine { key });
    }

    fn binding(arguments: &[(&str, i64)]) -> Definition {
        Definition::Binding(Binding {
            vhost: "/".into(),
            source: "s".into(),
            destination: "d".into(),
            to_queue: true,
            routing_key: "k".into(),
            arguments: arguments.iter().map(|&(n, v)| (n, Value::Int(v))).collect(),
        })
    }

    #[test]
    fn what_is_kept_is_read_back() {
        check(Definition::Vhost(Vhost::new("/")));
        check(Definition::Vhost(Vhost {
            description: "d".into(),
            tags: vec!["t".into()],
            default_queue_type: Some("quorum".into()),
            tracing: true,
            protected: true,
            limits: Limits::read(&[("max-queues".into(), 5.into())].into_iter().collect(), OF_VHOSTS)
                .unwrap(),
            ..Vhost::new("v")
        }));
        check(Definition::GlobalParameter(GlobalParameter {
            name: "g".into(),
            value: serde_json::json!([1]),
        }));
        check(Definition::User(User::new("guest", "guest", &["administrator"])));
        check(Definition::Permission(UserPermission {
            user: "guest".into(),
            vhost: "/".into(),
            permission: Permission::all(),
        }));
        check(Definition::Queue(Queue {
            vhost: "/".into(),
            name: "q".into(),
            id: 7,
            auto_delete: true,
            arguments: Table::from_iter([("x-expires", Value::Int(5))]),
            altered: Some(Table::from_iter([("x-max-length", Value::Int(5))])),
            paused_until_ms: u64::MAX,
        }));
        check(binding(&[("a", 1), ("b", 2)]));
    }

    #[test]
    fn the_order_of_arguments_does_not_make_another_binding() {
        assert_eq!(binding(&[("a", 1), ("b", 2)]).key(), binding(&[("b", 2), ("a", 1)]).key());
        assert_ne!(binding(&[("a", 1)]).key(), binding(&[("a", 2)]).key());
    }
}
