//! Policies: arguments that operators give to many queues and exchanges at once, by their names.
//!
//! Of the user policies that fit a name the one with the highest priority holds, and likewise of the operator
//! policies; nothing is merged among them. Where both speak of a number, or an argument does too, the smaller
//! one counts (`queue::Arguments::within`).

use amqp::{Table, Value};
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::Error;
use crate::queue::{Arguments, QueueKind};

/// What a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyTo {
    /// Queues of all types.
    Queues,
    /// Classic queues.
    ClassicQueues,
    /// Quorum queues.
    QuorumQueues,
    /// Streams, which this version does not have.
    Streams,
    /// Exchanges.
    Exchanges,
    /// Queues and exchanges.
    #[default]
    All,
}

/// A policy as it is given and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Where it holds.
    pub vhost: String,
    /// Its name, which no other of its kind in the vhost has.
    pub name: String,
    /// A regular expression that is looked for in names.
    pub pattern: String,
    /// What it is for.
    #[serde(rename = "apply-to", alias = "apply_to", default)]
    pub apply_to: ApplyTo,
    /// Of those that fit, the one with the highest holds.
    #[serde(default)]
    pub priority: i64,
    /// What it says, by key.
    pub definition: Map<String, Json>,
    /// It is an operator's, who has the last word.
    #[serde(default)]
    pub operator: bool,
}

/// What a policy says, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meaning {
    /// Of queues.
    pub arguments: Arguments,
    /// Where an exchange sends what it cannot route.
    pub alternate_exchange: Option<String>,
    /// Messages of an exchange can be delayed.
    pub delayed: Option<bool>,
    /// How many delayed messages of an exchange go on in a second.
    pub release_rate: Option<u64>,
}

/// Keys that say something of exchanges.
const OF_EXCHANGES: &[&str] = &["alternate-exchange", "delayed", "delayed-release-rate"];

/// Keys of RabbitMQ's that steer what Garenne has no need of, or does not have: they are accepted.
const WITHOUT_EFFECT: &[&str] = &[
    "dead-letter-strategy",
    "max-in-memory-length",
    "max-in-memory-bytes",
    "queue-mode",
    "queue-version",
    "queue-master-locator",
    "queue-leader-locator",
    "consumer-disconnected-timeout",
    "max-age",
    "stream-max-segment-size-bytes",
    "stream-filter-size-bytes",
    "initial-cluster-size",
    "target-group-size",
    "ha-mode",
    "ha-params",
    "ha-sync-mode",
    "ha-sync-batch-size",
    "ha-promote-on-shutdown",
    "ha-promote-on-failure",
];

/// The policies of a vhost, ready to be asked.
#[derive(Debug, Default)]
pub struct Policies(Vec<Known>);

#[derive(Debug)]
struct Known {
    policy: Policy,
    pattern: Regex,
    meaning: Meaning,
}

/// The two policies that hold for something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holding<'a> {
    user: Option<&'a Known>,
    operator: Option<&'a Known>,
}

/// What policies hold for something, as operators ask for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effective {
    /// The name of the user's policy.
    pub policy: Option<String>,
    /// The name of the operator's policy.
    pub operator_policy: Option<String>,
    /// What the two say together, by key.
    pub definition: Map<String, Json>,
}

impl Holding<'_> {
    /// What arguments come to under them.
    pub fn settle(&self, arguments: &Arguments) -> Arguments {
        let of =
            |known: Option<&Known>| known.map_or_else(Arguments::default, |k| k.meaning.arguments.clone());
        arguments.clone().within(&of(self.user), &of(self.operator))
    }

    /// Where an exchange sends what it cannot route.
    pub fn alternate_exchange(&self) -> Option<&str> {
        self.user.and_then(|known| known.meaning.alternate_exchange.as_deref())
    }

    /// Whether messages of an exchange can be delayed.
    pub fn is_delayed(&self) -> bool {
        self.user.and_then(|known| known.meaning.delayed) == Some(true)
    }

    /// How many delayed messages of an exchange go on in a second.
    pub fn release_rate(&self) -> Option<u64> {
        self.user.and_then(|known| known.meaning.release_rate)
    }

    /// What they are, and what they say together: the smaller number where both say one.
    pub fn effective(&self) -> Effective {
        let mut definition = Map::new();
        for (key, value) in
            [self.user, self.operator].into_iter().flatten().flat_map(|k| &k.policy.definition)
        {
            let smaller = match (definition.get(key).and_then(Json::as_i64), value.as_i64()) {
                (Some(before), Some(now)) => before.min(now).into(),
                _ => value.clone(),
            };
            definition.insert(key.clone(), smaller);
        }
        let name = |known: &Known| known.policy.name.clone();
        Effective { policy: self.user.map(name), operator_policy: self.operator.map(name), definition }
    }
}

impl Policies {
    /// Adds a policy, or changes the one of that name.
    ///
    /// # Errors
    /// `Invalid`: what is wrong with it.
    pub fn set(&mut self, policy: Policy) -> Result<(), Error> {
        let pattern = Regex::new(&policy.pattern).map_err(|error| {
            Error::Invalid(format!(
                "the pattern of policy '{}' is '{}': {error}",
                policy.name, policy.pattern
            ))
        })?;
        let meaning = Meaning::read(&policy)?;
        self.remove(&policy.name, policy.operator);
        self.0.push(Known { policy, pattern, meaning });
        // The first that fits is the one that holds.
        self.0.sort_by(|a, b| {
            let by = |known: &Known| (-known.policy.priority, known.policy.name.clone());
            by(a).cmp(&by(b))
        });
        Ok(())
    }

    /// Takes a policy away; the policy, if there was one of that name.
    pub fn remove(&mut self, name: &str, operator: bool) -> Option<Policy> {
        let is_this = |known: &Known| known.policy.name == name && known.policy.operator == operator;
        let at = self.0.iter().position(is_this)?;
        Some(self.0.remove(at).policy)
    }

    /// The policy of that name.
    pub fn get(&self, name: &str, operator: bool) -> Option<&Policy> {
        let mut all = self.0.iter().map(|known| &known.policy);
        all.find(|policy| policy.name == name && policy.operator == operator)
    }

    /// All of them, the highest priority first.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.iter().map(|known| &known.policy)
    }

    /// What holds for a queue.
    pub fn of_queue(&self, name: &str, kind: QueueKind) -> Holding<'_> {
        self.holding(name, |apply_to| match apply_to {
            ApplyTo::All | ApplyTo::Queues => true,
            ApplyTo::ClassicQueues => kind == QueueKind::Classic,
            ApplyTo::QuorumQueues => kind == QueueKind::Quorum,
            ApplyTo::Streams | ApplyTo::Exchanges => false,
        })
    }

    /// What holds for an exchange.
    pub fn of_exchange(&self, name: &str) -> Holding<'_> {
        self.holding(name, |apply_to| matches!(apply_to, ApplyTo::All | ApplyTo::Exchanges))
    }

    fn holding(&self, name: &str, applies: impl Fn(ApplyTo) -> bool) -> Holding<'_> {
        if self.0.is_empty() {
            return Holding::default();
        }
        let first = |operator| {
            self.0.iter().find(|known| {
                let policy = &known.policy;
                // A pattern that takes too long to look for does not fit.
                policy.operator == operator
                    && applies(policy.apply_to)
                    && known.pattern.is_match(name).unwrap_or(false)
            })
        };
        Holding { user: first(false), operator: first(true) }
    }
}

impl Policy {
    /// Whether it can be.
    ///
    /// # Errors
    /// `Invalid`: what is wrong with it.
    pub fn check(&self) -> Result<(), Error> {
        Policies::default().set(self.clone())
    }
}

impl Meaning {
    /// Reads what a policy says.
    fn read(policy: &Policy) -> Result<Meaning, Error> {
        let mut meaning = Meaning::default();
        let mut table = Table::new();
        let invalid = |reason: String| Error::Invalid(format!("policy '{}': {reason}", policy.name));
        if policy.definition.is_empty() {
            return Err(invalid("it says nothing".into()));
        }
        for (key, value) in &policy.definition {
            if OF_EXCHANGES.contains(&key.as_str()) && !policy.operator {
                match (key.as_str(), value) {
                    ("alternate-exchange", Json::String(name)) => {
                        meaning.alternate_exchange = Some(name.clone())
                    }
                    ("delayed", Json::Bool(is_delayed)) => meaning.delayed = Some(*is_delayed),
                    ("delayed-release-rate", Json::Number(n)) if n.as_u64().is_some_and(|n| n > 0) => {
                        meaning.release_rate = n.as_u64();
                    }
                    _ => return Err(invalid(format!("{key} is {value}, which it cannot be"))),
                }
                continue;
            }
            if WITHOUT_EFFECT.contains(&key.as_str()) {
                continue;
            }
            let value =
                plain(value).ok_or_else(|| invalid(format!("{key} is {value}, which it cannot be")))?;
            table.insert(key.as_str(), value);
        }
        meaning.arguments = Arguments::of_policy(&table, policy.operator).map_err(invalid)?;
        Ok(meaning)
    }
}

/// A value of JSON as a queue's arguments have it.
fn plain(value: &Json) -> Option<Value> {
    Some(match value {
        Json::Bool(bool) => Value::Bool(*bool),
        Json::Number(number) => match number.as_i64() {
            Some(int) => Value::Int(int),
            None => Value::Float(number.as_f64()?),
        },
        Json::String(text) => Value::text(text.as_str()),
        Json::Null | Json::Array(_) | Json::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(name: &str, pattern: &str, priority: i64, definition: Json) -> Policy {
        let Json::Object(definition) = definition else { panic!("an object") };
        Policy {
            vhost: "/".into(),
            name: name.into(),
            pattern: pattern.into(),
            apply_to: ApplyTo::All,
            priority,
            definition,
            operator: false,
        }
    }

    fn ttl(policies: &Policies, queue: &str) -> Option<u64> {
        let holding = policies.of_queue(queue, QueueKind::Classic);
        holding.settle(&Arguments::default()).message_ttl_ms
    }

    #[test]
    fn of_those_that_fit_the_one_with_the_highest_priority_holds_alone() {
        let mut policies = Policies::default();
        policies.set(policy("all", "", 0, json!({"message-ttl": 1, "max-length": 5}))).unwrap();
        policies.set(policy("jobs", "^jobs", 7, json!({"message-ttl": 2}))).unwrap();
        policies.set(policy("not-amq", "^(?!amq\\.).*", -1, json!({"message-ttl": 3}))).unwrap();

        assert_eq!((ttl(&policies, "jobs.1"), ttl(&policies, "my.jobs")), (Some(2), Some(1)));
        let jobs = policies.of_queue("jobs", QueueKind::Classic).settle(&Arguments::default());
        assert_eq!(jobs.length_max, None);

        policies.remove("all", false);
        assert_eq!((ttl(&policies, "my.jobs"), ttl(&policies, "amq.gen-x")), (Some(3), None));
    }

    #[test]
    fn an_operator_can_only_make_numbers_smaller() {
        let mut policies = Policies::default();
        policies.set(policy("user", "q", 0, json!({"message-ttl": 100, "max-length": 5}))).unwrap();
        let operators = policy("operator", "q", 0, json!({"message-ttl": 50, "max-length": 9}));
        policies.set(Policy { operator: true, ..operators }).unwrap();

        let holding = policies.of_queue("q", QueueKind::Quorum);
        let settled = holding.settle(&Arguments::default());
        assert_eq!((settled.message_ttl_ms, settled.length_max), (Some(50), Some(5)));
        let effective = holding.effective();
        assert_eq!(effective.policy.as_deref(), Some("user"));
        assert_eq!(effective.operator_policy.as_deref(), Some("operator"));
        assert_eq!(Json::Object(effective.definition), json!({"message-ttl": 50, "max-length": 5}));
    }

    #[test]
    fn a_policy_is_only_for_what_it_says() {
        let mut policies = Policies::default();
        let quorum =
            Policy { apply_to: ApplyTo::QuorumQueues, ..policy("p", "", 0, json!({"message-ttl": 1})) };
        policies.set(quorum).unwrap();
        let alternate = json!({"alternate-exchange": "other", "delayed": true});
        policies.set(Policy { apply_to: ApplyTo::Exchanges, ..policy("x", "", 0, alternate) }).unwrap();

        assert_eq!(ttl(&policies, "q"), None);
        let quorum = policies.of_queue("q", QueueKind::Quorum).effective();
        assert_eq!(quorum.policy.as_deref(), Some("p"));
        let exchange = policies.of_exchange("x");
        assert_eq!((exchange.alternate_exchange(), exchange.is_delayed()), (Some("other"), true));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let refused = |pattern: &str, definition: Json, text: &str| {
            let error = Policies::default().set(policy("p", pattern, 0, definition)).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };

        refused("(", json!({"message-ttl": 1}), "the pattern of policy 'p' is '('");
        refused("", json!({}), "policy 'p': it says nothing");
        refused("", json!({"message-tt": 1}), "'message-tt' is not a key of policies");
        refused("", json!({"max-priority": 1}), "'max-priority' is not a key of policies");
        refused("", json!({"message-ttl": -1}), "message-ttl: {value_negative,-1}");
        refused("", json!({"message-ttl": [1]}), "message-ttl is [1], which it cannot be");
        let operator = Policy { operator: true, ..policy("p", "", 0, json!({"dead-letter-exchange": "x"})) };
        assert!(Policies::default().set(operator).is_err());
    }
}
