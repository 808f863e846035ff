//! The `x-` arguments of a queue and the keys of policies: which there are, what they may be, and what comes
//! of them.
//!
//! To add one: a line in [`ARGUMENTS`], a field in [`Arguments`] with its line in [`Arguments::within`], and
//! its effect in `state`, `ready` or `consumers`.

use std::sync::Arc;

use amqp::limits::SHORT_STRING_BYTES_MAX;
use amqp::{Table, Value};
use store::SyncMode;

use crate::error::Error;
use crate::message::TTL_MS_MAX;

/// What the arguments of a queue, or a policy, ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    /// `x-queue-type`
    pub kind: QueueKind,
    /// `x-message-ttl`: how long a message may wait, in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// `x-expires`: how long the queue may be unused before it goes, in milliseconds.
    pub expires_ms: Option<u64>,
    /// `x-dead-letter-exchange`: where messages go that were rejected, have expired, or found no room.
    pub dead_letter_exchange: Option<Arc<str>>,
    /// `x-dead-letter-routing-key`: with which key; with their own if there is none.
    pub dead_letter_routing_key: Option<Arc<str>>,
    /// `x-dead-letter-unroutable`: what becomes of a dead letter that reaches no queue.
    pub unroutable: Option<Unroutable>,
    /// `x-max-length`: how many messages may be ready.
    pub length_max: Option<u64>,
    /// `x-max-length-bytes`: how many octets of bodies may be ready.
    pub body_bytes_max: Option<u64>,
    /// `x-overflow`: what gives way when there is no room.
    pub overflow: Option<Overflow>,
    /// `x-max-priority`: the highest priority that is told from those below it.
    pub priority_max: Option<u8>,
    /// `x-single-active-consumer`: one consumer at a time gets everything.
    pub single_active_consumer: Option<bool>,
    /// `x-delivery-limit`: how often a message may fail before it is a dead letter; negative for ever.
    pub delivery_limit: Option<i64>,
    /// `x-consumer-timeout`: how long a consumer may keep a message unsettled, in milliseconds.
    pub consumer_timeout_ms: Option<u64>,
    /// `x-delayed-retry-type`: which messages rest before they are delivered again.
    pub retry: Option<Retry>,
    /// `x-delayed-retry-min`: how long after the first failure, in milliseconds.
    pub retry_min_ms: Option<u64>,
    /// `x-delayed-retry-max`: how long at most, in milliseconds.
    pub retry_max_ms: Option<u64>,
    /// `x-delayed-retry-multiplier`: so many times longer with each failure, in thousandths; without it the
    /// time grows by the first with each failure.
    pub retry_multiplier: Option<u64>,
    /// `x-delivery-rate`: how many messages a second leave for consumers.
    pub delivery_rate: Option<u64>,
    /// `x-consumer-delivery-rate`: how many a second go to each of them.
    pub consumer_delivery_rate: Option<u64>,
    /// `x-pause-until`: nothing is delivered before this time, in milliseconds since 1970.
    pub pause_until_ms: Option<u64>,
    /// `x-trace-messages`: what happens to its messages is noted.
    pub trace_messages: Option<bool>,
    /// `x-dispatch`: which of the consumers that can take a message gets it.
    pub dispatch: Option<Dispatch>,
    /// How many messages a second leave because they are due; only of those that hold delayed messages.
    pub release_rate: Option<u64>,
    /// `x-message-deduplication`: of messages with the same `x-deduplication-header` it has one at a time.
    pub deduplicates: bool,
    /// `x-deduplication-on-duplicate`: what becomes of the others.
    pub on_duplicate: OnDuplicate,
    /// `x-sync`: when its messages are synced, `group`, `os` or `interval:` and milliseconds, if not as the
    /// broker says.
    pub sync: Option<SyncMode>,
}

/// The types of queue, as far as this version has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueKind {
    /// The plain one.
    #[default]
    Classic,
    /// Durable, and counts deliveries.
    Quorum,
}

/// What gives way when a queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The message that is first.
    DropHead,
    /// The new one: its publisher is told.
    RejectPublish,
    /// The same, and it is a dead letter.
    RejectPublishDlx,
}

/// What becomes of a dead letter that reaches no queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// It is counted, and gone.
    Drop,
    /// It goes to the queue `amq.dead`.
    Park,
}

/// Which messages rest before they are delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// None.
    Disabled,
    /// All that come back.
    All,
    /// Those that failed: rejected, or lost with their consumer.
    Failed,
    /// Those that were given back: nacked or recovered.
    Returned,
}

/// Which of the consumers that can take a message gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest unsettled messages.
    LeastLoaded,
}

/// What becomes of a message that has come before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDuplicate {
    /// It is confirmed, and goes nowhere.
    #[default]
    Ack,
    /// It is refused.
    Nack,
    /// It comes back to its publisher, and is confirmed.
    Return,
    /// It is a dead letter; of an exchange, it goes to the alternate.
    DeadLetter,
}

impl OnDuplicate {
    /// Reads its name.
    pub fn parse(name: &[u8]) -> Option<OnDuplicate> {
        Some(match name {
            b"ack" => OnDuplicate::Ack,
            b"nack" => OnDuplicate::Nack,
            b"return" => OnDuplicate::Return,
            b"dead-letter" => OnDuplicate::DeadLetter,
            _ => return None,
        })
    }
}

/// How often a message of a quorum queue may fail, if nobody says otherwise and dead letters have somewhere
/// to go.
const QUORUM_DELIVERY_LIMIT: u16 = 20;

/// The longest a message rests, if only the shortest time is given: an hour.
const RETRY_MS_MAX: u64 = 3_600_000;

/// An argument that the broker knows.
struct Argument {
    name: &'static str,
    /// The types of queue that have it.
    of: Of,
    /// Whether a policy may say it, under its name without `x-`, and whose.
    policies: Policies,
    /// What its value may be; otherwise the reason, in RabbitMQ's words.
    check: fn(&Value) -> Result<(), String>,
    effect: Effect,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    All,
    Classic,
    Quorum,
    /// Of types that this version does not have.
    Others,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policies {
    None,
    Users,
    /// Those of users and of operators.
    All,
}

/// What comes of an argument whose value can be.
enum Effect {
    /// It is set in [`Arguments`].
    Set(fn(&mut Arguments, &Value)),
    /// Nothing: it steers what Garenne has no need of.
    None,
}

type Check = fn(&Value) -> Result<(), String>;

const fn set(
    name: &'static str,
    policies: Policies,
    check: Check,
    set: fn(&mut Arguments, &Value),
) -> Argument {
    Argument { name, of: Of::All, policies, check, effect: Effect::Set(set) }
}

const fn none(name: &'static str, of: Of, check: Check) -> Argument {
    Argument { name, of, policies: Policies::All, check, effect: Effect::None }
}

const fn others(name: &'static str) -> Argument {
    Argument { name, of: Of::Others, policies: Policies::None, check: |_| Ok(()), effect: Effect::None }
}

const ARGUMENTS: &[Argument] = &[
    Argument {
        name: "x-queue-type",
        of: Of::All,
        policies: Policies::None,
        check: queue_type,
        effect: Effect::Set(|a, v| a.kind = kind(v).unwrap_or_default()),
    },
    set("x-expires", Policies::All, milliseconds_above_zero, |a, v| a.expires_ms = as_u64(v)),
    set("x-message-ttl", Policies::All, milliseconds, |a, v| a.message_ttl_ms = as_u64(v)),
    set("x-dead-letter-exchange", Policies::Users, name, |a, v| a.dead_letter_exchange = as_text(v)),
    set("x-dead-letter-routing-key", Policies::Users, name, |a, v| a.dead_letter_routing_key = as_text(v)),
    Argument {
        name: "x-dead-letter-strategy",
        of: Of::All,
        policies: Policies::Users,
        check: |v| one_of(&["at-most-once", "at-least-once"], "invalid_dlx_strategy", v),
        // Dead letters move in one record: it is at least once, and at most once, whatever is asked.
        effect: Effect::None,
    },
    set(
        "x-dead-letter-unroutable",
        Policies::Users,
        |v| one_of(&["drop", "park"], "must be drop or park", v),
        |a, v| a.unroutable = Some(if is(v, "park") { Unroutable::Park } else { Unroutable::Drop }),
    ),
    set("x-max-length", Policies::All, not_negative, |a, v| a.length_max = as_u64(v)),
    set("x-max-length-bytes", Policies::All, not_negative, |a, v| a.body_bytes_max = as_u64(v)),
    set("x-overflow", Policies::All, overflow, |a, v| a.overflow = as_overflow(v)),
    Argument {
        name: "x-max-priority",
        of: Of::Classic,
        policies: Policies::None,
        check: max_priority,
        effect: Effect::Set(|a, v| a.priority_max = as_u64(v).map(|max| max as u8)),
    },
    set("x-single-active-consumer", Policies::Users, boolean, |a, v| {
        a.single_active_consumer = Some(*v == Value::Bool(true));
    }),
    set("x-delivery-limit", Policies::All, limit, |a, v| a.delivery_limit = integer(v).ok()),
    set("x-consumer-timeout", Policies::Users, not_negative, |a, v| a.consumer_timeout_ms = as_u64(v)),
    set(
        "x-delayed-retry-type",
        Policies::Users,
        |v| {
            one_of(&["disabled", "all", "failed", "returned"], "must be disabled, all, failed or returned", v)
        },
        |a, v| {
            a.retry = Some(match v.as_str() {
                Some("all") => Retry::All,
                Some("failed") => Retry::Failed,
                Some("returned") => Retry::Returned,
                _ => Retry::Disabled,
            })
        },
    ),
    set("x-delayed-retry-min", Policies::Users, milliseconds, |a, v| a.retry_min_ms = as_u64(v)),
    set("x-delayed-retry-max", Policies::Users, milliseconds, |a, v| a.retry_max_ms = as_u64(v)),
    set(
        "x-delayed-retry-multiplier",
        Policies::Users,
        |v| multiplier(v).map(|_| ()),
        |a, v| a.retry_multiplier = multiplier(v).ok(),
    ),
    set("x-delivery-rate", Policies::Users, above_zero, |a, v| a.delivery_rate = as_u64(v)),
    set("x-consumer-delivery-rate", Policies::Users, above_zero, |a, v| a.consumer_delivery_rate = as_u64(v)),
    set("x-pause-until", Policies::Users, not_negative, |a, v| a.pause_until_ms = as_u64(v)),
    set("x-trace-messages", Policies::Users, boolean, |a, v| {
        a.trace_messages = Some(*v == Value::Bool(true))
    }),
    set(
        "x-dispatch",
        Policies::Users,
        |v| one_of(&["round-robin", "least-loaded"], "must be round-robin or least-loaded", v),
        |a, v| {
            let is_least_loaded = is(v, "least-loaded");
            a.dispatch = Some(if is_least_loaded { Dispatch::LeastLoaded } else { Dispatch::RoundRobin });
        },
    ),
    set("x-sync", Policies::None, |v| sync(v).map(|_| ()), |a, v| a.sync = sync(v).ok()),
    none("x-queue-mode", Of::Classic, queue_mode),
    none("x-queue-version", Of::Classic, queue_version),
    none("x-queue-master-locator", Of::All, text),
    none("x-queue-leader-locator", Of::All, |v| {
        const LOCATORS: &[&str] = &["client-local", "balanced", "random", "least-leaders"];
        one_of(LOCATORS, "invalid_queue_locator_arg", v)
    }),
    none("x-quorum-initial-group-size", Of::All, above_zero),
    none("x-quorum-target-group-size", Of::All, above_zero),
    none("x-initial-cluster-size", Of::All, above_zero),
    none("x-member-placement-tag", Of::All, |_| Ok(())),
    none("x-max-in-memory-length", Of::All, not_negative),
    none("x-max-in-memory-bytes", Of::All, not_negative),
    none("x-consumer-disconnected-timeout", Of::Quorum, not_negative),
    others("x-max-age"),
    others("x-stream-max-segment-size-bytes"),
    others("x-stream-filter-size-bytes"),
    set("x-message-deduplication", Policies::None, boolean, |a, v| a.deduplicates = *v == Value::Bool(true)),
    set(
        "x-deduplication-on-duplicate",
        Policies::None,
        |v| {
            const ALL: &[&str] = &["ack", "nack", "return", "dead-letter"];
            one_of(ALL, "must be ack, nack, return or dead-letter", v)
        },
        |a, v| a.on_duplicate = v.as_str().and_then(|v| OnDuplicate::parse(v.as_bytes())).unwrap_or_default(),
    ),
];

/// The arguments that a second declare must repeat, as RabbitMQ compares them.
const COMPARED: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-queue-type",
    "x-single-active-consumer",
    "x-delivery-limit",
    "x-dead-letter-unroutable",
    "x-consumer-timeout",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
    "x-delayed-retry-multiplier",
    "x-delivery-rate",
    "x-consumer-delivery-rate",
    "x-pause-until",
    "x-trace-messages",
    "x-dispatch",
    "x-message-deduplication",
    "x-deduplication-on-duplicate",
    "x-sync",
];

/// The flags of a declaration that some types of queue do not have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// It outlives the broker.
    pub durable: bool,
    /// It belongs to a connection.
    pub exclusive: bool,
    /// It goes with its last consumer.
    pub auto_delete: bool,
}

impl Arguments {
    /// Reads the arguments of queue `name` in vhost `vhost`. Arguments that nobody knows are kept by
    /// the caller and have no effect, as in RabbitMQ.
    ///
    /// # Errors
    /// [`Error::Invalid`] with RabbitMQ's text when a value cannot be, when the type of queue does not have the
    /// argument or flag, or when it is not built yet.
    pub fn parse(table: &Table, flags: Flags, name: &str, vhost: &str) -> Result<Arguments, Error> {
        let mut arguments = Arguments::default();
        let place = format!("for queue '{name}' in vhost '{vhost}'");
        if let Some(value) = table.get("x-queue-type") {
            queue_type(value)
                .map_err(|reason| Error::Invalid(format!("invalid arg 'x-queue-type' {place}: {reason}")))?;
            arguments.kind = kind(value).unwrap_or_default();
        }
        let kind = arguments.kind;
        if let Some(property) = kind.missing(flags) {
            return Err(Error::Invalid(format!("invalid property '{property}' {place}")));
        }
        let given = || ARGUMENTS.iter().filter_map(|known| Some((known, table.get(known.name)?)));
        if let Some((other, _)) = given().find(|(known, _)| !known.of.has(kind)) {
            return Err(Error::Invalid(other_type_text(other.name, name, vhost, kind)));
        }
        for (known, value) in given() {
            let key = known.name;
            if key == "x-dead-letter-exchange" && text(value).is_err() {
                let text = format!(
                    "invalid type '{}' for arg '{key}' in queue '{name}' in vhost '{vhost}'",
                    type_name(value)
                );
                return Err(Error::Invalid(text));
            }
            let invalid = |reason: String| Error::Invalid(format!("invalid arg '{key}' {place}: {reason}"));
            (known.check)(value).map_err(invalid)?;
            match known.effect {
                Effect::Set(set) => set(&mut arguments, value),
                Effect::None => {}
            }
        }
        if arguments.dead_letter_routing_key.is_some() && arguments.dead_letter_exchange.is_none() {
            let reason = "routing_key_but_no_dlx_defined";
            let text = format!("invalid arg 'x-dead-letter-routing-key' {place}: {reason}");
            return Err(Error::Invalid(text));
        }
        Ok(arguments)
    }

    /// Reads what a policy says of queues, by the names of arguments without `x-`.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn of_policy(table: &Table, is_operators: bool) -> Result<Arguments, String> {
        let mut arguments = Arguments::default();
        for (key, value) in table.iter() {
            let known = ARGUMENTS.iter().find(|known| known.name.strip_prefix("x-") == Some(key));
            let known = known.filter(|known| match known.policies {
                Policies::None => false,
                Policies::Users => !is_operators,
                Policies::All => true,
            });
            let Some(known) = known else {
                let whose = if is_operators { "operator policies" } else { "policies" };
                return Err(format!("'{key}' is not a key of {whose}"));
            };
            (known.check)(value).map_err(|reason| format!("{key}: {reason}"))?;
            if let Effect::Set(set) = known.effect {
                set(&mut arguments, value);
            }
        }
        Ok(arguments)
    }

    /// What these arguments and two policies come to. The smaller number counts where several speak, also
    /// between arguments and policies; of other things the arguments' word goes before the user's policy,
    /// and the operator's before that.
    pub fn within(self, policy: &Arguments, operator: &Arguments) -> Arguments {
        let least = |own: Option<u64>, policy: Option<u64>, operator: Option<u64>| {
            [own, policy, operator].into_iter().flatten().min()
        };
        // A negative limit is none at all, which anything is smaller than.
        let limit = |limit: Option<i64>| limit.map(|n| u64::try_from(n).unwrap_or(u64::MAX));
        let limits =
            [limit(self.delivery_limit), limit(policy.delivery_limit), limit(operator.delivery_limit)];
        Arguments {
            kind: self.kind,
            message_ttl_ms: least(self.message_ttl_ms, policy.message_ttl_ms, operator.message_ttl_ms),
            expires_ms: least(self.expires_ms, policy.expires_ms, operator.expires_ms),
            length_max: least(self.length_max, policy.length_max, operator.length_max),
            body_bytes_max: least(self.body_bytes_max, policy.body_bytes_max, operator.body_bytes_max),
            delivery_limit: least(limits[0], limits[1], limits[2]).map(|n| i64::try_from(n).unwrap_or(-1)),
            overflow: operator.overflow.or(self.overflow).or(policy.overflow),
            dead_letter_routing_key: self.dead_letter_routing_key.or(policy.dead_letter_routing_key.clone()),
            dead_letter_exchange: self.dead_letter_exchange.or(policy.dead_letter_exchange.clone()),
            unroutable: self.unroutable.or(policy.unroutable),
            priority_max: self.priority_max,
            single_active_consumer: self.single_active_consumer.or(policy.single_active_consumer),
            consumer_timeout_ms: self.consumer_timeout_ms.or(policy.consumer_timeout_ms),
            retry: self.retry.or(policy.retry),
            retry_min_ms: self.retry_min_ms.or(policy.retry_min_ms),
            retry_max_ms: self.retry_max_ms.or(policy.retry_max_ms),
            retry_multiplier: self.retry_multiplier.or(policy.retry_multiplier),
            delivery_rate: self.delivery_rate.or(policy.delivery_rate),
            consumer_delivery_rate: self.consumer_delivery_rate.or(policy.consumer_delivery_rate),
            pause_until_ms: self.pause_until_ms.or(policy.pause_until_ms),
            trace_messages: self.trace_messages.or(policy.trace_messages),
            dispatch: self.dispatch.or(policy.dispatch),
            release_rate: self.release_rate,
            deduplicates: self.deduplicates,
            on_duplicate: self.on_duplicate,
            sync: self.sync,
        }
    }

    /// How often a message may fail before it is a dead letter; nothing if it may for ever.
    pub fn delivery_limit(&self) -> Option<u16> {
        match self.delivery_limit {
            // More than is counted.
            Some(limit) => u16::try_from(limit).ok().filter(|limit| *limit < u16::MAX),
            None => {
                let has_limit = self.kind == QueueKind::Quorum && self.dead_letter_exchange.is_some();
                has_limit.then_some(QUORUM_DELIVERY_LIMIT)
            }
        }
    }

    /// Whether deliveries are counted, which consumers see in their headers.
    pub fn counts_deliveries(&self) -> bool {
        self.kind == QueueKind::Quorum
            || self.delivery_limit.is_some()
            || self.retry.is_some_and(|retry| retry != Retry::Disabled)
    }

    /// Whether a new message may be refused.
    pub fn may_refuse(&self) -> bool {
        let refuses = matches!(self.overflow, Some(Overflow::RejectPublish | Overflow::RejectPublishDlx));
        refuses && (self.length_max.is_some() || self.body_bytes_max.is_some())
    }

    /// Whether new messages have to be looked at one by one: some may not be let in.
    pub fn looks_at_each(&self) -> bool {
        self.may_refuse() || self.deduplicates
    }

    /// How long a message rests that has come back so many times, in milliseconds; nothing if it does not.
    pub fn rest_ms(&self, times: u16) -> Option<u64> {
        let min_ms = self.retry_min_ms.filter(|ms| *ms > 0)?;
        let max_ms = self.retry_max_ms.unwrap_or(RETRY_MS_MAX.max(min_ms));
        let ms = match self.retry_multiplier {
            None => min_ms.saturating_mul(u64::from(times.max(1))),
            Some(thousandths) => {
                let factor = (thousandths as f64 / 1000.0).powi(i32::from(times.max(1)) - 1);
                // Saturates where it is more than a number can hold.
                (min_ms as f64 * factor) as u64
            }
        };
        Some(ms.min(max_ms))
    }

    /// How many lines of messages the queue has.
    pub fn levels(&self) -> usize {
        usize::from(self.priority_max.unwrap_or(0)) + 1
    }

    /// The first compared argument in which two declarations differ: its name, received, current, each
    /// printed as RabbitMQ does.
    pub fn difference(received: &Table, current: &Table) -> Option<(&'static str, String, String)> {
        COMPARED.iter().find_map(|&key| {
            let (received, current) = (received.get(key), current.get(key));
            let is_same = received == current || (key == "x-queue-type" && is_classic(received, current));
            // The type is named only where one side has no value at all.
            let is_plain = received.is_some() && current.is_some();
            (!is_same).then(|| (key, print(received, is_plain), print(current, is_plain)))
        })
    }
}

impl QueueKind {
    /// Its name in a declaration.
    pub fn name(self) -> &'static str {
        match self {
            QueueKind::Classic => "classic",
            QueueKind::Quorum => "quorum",
        }
    }

    /// The property of these flags that the type does not have, in RabbitMQ's words.
    fn missing(self, flags: Flags) -> Option<&'static str> {
        match (self, flags) {
            (QueueKind::Classic, _) => None,
            (QueueKind::Quorum, Flags { durable: false, .. }) => Some("non-durable"),
            (QueueKind::Quorum, Flags { auto_delete: true, .. }) => Some("auto-delete"),
            (QueueKind::Quorum, Flags { exclusive: true, .. }) => Some("exclusive-owner"),
            (QueueKind::Quorum, _) => None,
        }
    }
}

impl Of {
    fn has(self, kind: QueueKind) -> bool {
        match self {
            Of::All => true,
            Of::Classic => kind == QueueKind::Classic,
            Of::Quorum => kind == QueueKind::Quorum,
            Of::Others => false,
        }
    }
}

const NOT_YET: &str = "this version of Garenne does not support it yet";

/// RabbitMQ's words for an argument that a type of queue does not have.
pub fn other_type_text(argument: &str, queue: &str, vhost: &str, kind: QueueKind) -> String {
    let kind = kind.name();
    format!(
        "invalid arg '{argument}' for queue '{queue}' in vhost '{vhost}' of queue type rabbit_{kind}_queue"
    )
}

/// A queue without a type is classic.
fn is_classic(a: Option<&Value>, b: Option<&Value>) -> bool {
    [a, b].iter().all(|v| v.is_none_or(|v| v.as_str() == Some("classic")))
}

fn print(value: Option<&Value>, is_plain: bool) -> String {
    let Some(value) = value else { return "none".into() };
    let text = match value {
        Value::Int(i) => i.to_string(),
        Value::Float(f) => format!("{f:?}"),
        Value::Bool(b) => b.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    if is_plain { format!("'{text}'") } else { format!("the value '{text}' of type '{}'", type_name(value)) }
}

fn as_u64(value: &Value) -> Option<u64> {
    match value {
        Value::Int(i) => u64::try_from(*i).ok(),
        _ => None,
    }
}

fn as_text(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into()),
        _ => None,
    }
}

fn as_overflow(value: &Value) -> Option<Overflow> {
    Some(match value.as_str()? {
        "drop-head" => Overflow::DropHead,
        "reject-publish" => Overflow::RejectPublish,
        "reject-publish-dlx" => Overflow::RejectPublishDlx,
        _ => return None,
    })
}

fn is(value: &Value, text: &str) -> bool {
    value.as_str() == Some(text)
}

/// A whole number: queues and consumers share the words.
pub fn integer(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(i) => Ok(*i),
        other => Err(format!("\"expected integer, got {}\"", type_name(other))),
    }
}

fn sync(value: &Value) -> Result<SyncMode, String> {
    let Some(text) = value.as_str() else {
        return Err(format!("\"expected string, got {}\"", type_name(value)));
    };
    text.parse().map_err(|_| format!("{{value_not_allowed,<<\"{text}\">>}}"))
}

fn not_negative(value: &Value) -> Result<(), String> {
    match integer(value)? {
        i if i < 0 => Err(format!("{{value_negative,{i}}}")),
        _ => Ok(()),
    }
}

/// A limit; -1 is none.
fn limit(value: &Value) -> Result<(), String> {
    match integer(value)? {
        -1 => Ok(()),
        _ => not_negative(value),
    }
}

fn above_zero(value: &Value) -> Result<(), String> {
    match integer(value)? {
        0 => Err("{value_zero,0}".into()),
        _ => not_negative(value),
    }
}

fn milliseconds(value: &Value) -> Result<(), String> {
    not_negative(value)?;
    match integer(value)? {
        i if i > TTL_MS_MAX as i64 => Err(format!("{{value_too_large,{i}}}")),
        _ => Ok(()),
    }
}

fn milliseconds_above_zero(value: &Value) -> Result<(), String> {
    match integer(value)? {
        0 => Err("{value_zero,0}".into()),
        _ => milliseconds(value),
    }
}

/// A factor of at least one, in thousandths.
fn multiplier(value: &Value) -> Result<u64, String> {
    let factor = match value {
        Value::Int(i) => *i as f64,
        Value::Float(f) => *f,
        Value::Decimal(scale, digits) => f64::from(*digits) / 10f64.powi(i32::from(*scale)),
        Value::Bytes(_) => {
            value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| unacceptable(value))?
        }
        other => return Err(unacceptable(other)),
    };
    match factor {
        factor if (1.0..=1000.0).contains(&factor) => Ok((factor * 1000.0) as u64),
        factor => Err(format!("{{value_not_allowed,{factor:?}}}, it must be from 1 to 1000")),
    }
}

fn max_priority(value: &Value) -> Result<(), String> {
    not_negative(value)?;
    match integer(value)? {
        i if i > 255 => Err(format!("{{max_value_exceeded,{i}}}")),
        _ => Ok(()),
    }
}

fn text(value: &Value) -> Result<(), String> {
    match value {
        Value::Bytes(_) => Ok(()),
        other => Err(unacceptable(other)),
    }
}

/// Something that has to fit into a short string of the wire.
fn name(value: &Value) -> Result<(), String> {
    text(value)?;
    match value {
        Value::Bytes(bytes) if bytes.len() > SHORT_STRING_BYTES_MAX => {
            Err(format!("{{value_too_long,{}}}, it may have {SHORT_STRING_BYTES_MAX} bytes", bytes.len()))
        }
        _ => Ok(()),
    }
}

fn boolean(value: &Value) -> Result<(), String> {
    match value {
        Value::Bool(_) => Ok(()),
        other => Err(unacceptable(other)),
    }
}

fn one_of(choices: &[&str], reason: &str, value: &Value) -> Result<(), String> {
    text(value)?;
    match value.as_str() {
        Some(choice) if choices.contains(&choice) => Ok(()),
        _ => Err(reason.into()),
    }
}

fn overflow(value: &Value) -> Result<(), String> {
    one_of(&["drop-head", "reject-publish", "reject-publish-dlx"], "invalid_overflow", value)
}

fn queue_mode(value: &Value) -> Result<(), String> {
    text(value)?;
    match value.as_str() {
        Some("default" | "lazy") => Ok(()),
        other => Err(format!("\"unsupported queue mode '{}'\"", other.unwrap_or_default())),
    }
}

fn queue_version(value: &Value) -> Result<(), String> {
    match integer(value)? {
        1 | 2 => Ok(()),
        i => Err(format!("\"unsupported queue version '{i}'\"")),
    }
}

fn kind(value: &Value) -> Option<QueueKind> {
    Some(match value.as_str()? {
        "classic" => QueueKind::Classic,
        "quorum" => QueueKind::Quorum,
        _ => return None,
    })
}

fn queue_type(value: &Value) -> Result<(), String> {
    text(value)?;
    match value.as_str() {
        Some("classic" | "quorum") => Ok(()),
        Some("stream" | "partitioned") => Err(NOT_YET.into()),
        other => Err(format!("\"unsupported queue type '{}'\"", other.unwrap_or_default())),
    }
}
fn unacceptable(value: &Value) -> String {
    format!("{{unacceptable_type,{}}}", type_name(value))
}

/// The type of a value as RabbitMQ's texts name it, so far as widths are still known.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Void => "void",
        Value::Bool(_) => "bool",
        Value::Int(_) => "signedint",
        Value::Float(_) => "double",
        Value::Bytes(_) => "longstr",
        Value::Timestamp(_) => "timestamp",
        Value::Decimal(..) => "decimal",
        Value::Array(_) => "array",
        Value::Table(_) => "table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: Value) -> Result<Arguments, String> {
        let flags = Flags { durable: true, ..Flags::default() };
        Arguments::parse(&Table::from_iter([(key, value)]), flags, "q", "/").map_err(|e| e.to_string())
    }

    fn refused(key: &str, value: Value, reason: &str) {
        let expected = format!("invalid arg '{key}' for queue 'q' in vhost '/': {reason}");
        assert_eq!(parse(key, value), Err(expected));
    }

    #[test]
    fn a_time_to_live_is_a_number_of_milliseconds() {
        let ttl = |ms| Ok(Arguments { message_ttl_ms: Some(ms), ..Arguments::default() });

        assert_eq!(parse("x-message-ttl", Value::Int(0)), ttl(0));
        assert_eq!(parse("x-message-ttl", Value::Int(134_217_728_000)), ttl(134_217_728_000));
        refused("x-message-ttl", Value::Int(-1), "{value_negative,-1}");
        refused("x-message-ttl", Value::text("10"), "\"expected integer, got longstr\"");
        refused("x-expires", Value::Int(0), "{value_zero,0}");
    }

    #[test]
    fn what_is_not_built_is_refused_and_what_nobody_knows_is_kept() {
        refused("x-max-length", Value::Int(-1), "{value_negative,-1}");
        refused("x-queue-type", Value::text("stream"), NOT_YET);
        assert_eq!(parse("x-my-own", Value::Int(1)), Ok(Arguments::default()));
    }

    #[test]
    fn the_smaller_number_counts_and_otherwise_arguments_go_before_policies() {
        let of = |key: &str, value| parse(key, value).unwrap();
        let number = |n| of("x-max-length", Value::Int(n));
        let both = number(5).within(&number(3), &number(4));
        assert_eq!(both.length_max, Some(3));

        let unlimited = of("x-delivery-limit", Value::Int(-1));
        assert_eq!(unlimited.delivery_limit(), None);
        let limited = unlimited.within(&of("x-delivery-limit", Value::Int(2)), &Arguments::default());
        assert_eq!(limited.delivery_limit(), Some(2));

        let dlx = |name: &str| of("x-dead-letter-exchange", Value::text(name));
        let argued = dlx("own").within(&dlx("policy"), &Arguments::default());
        assert_eq!(argued.dead_letter_exchange.as_deref(), Some("own"));
        let told = Arguments::default().within(&dlx("policy"), &Arguments::default());
        assert_eq!(told.dead_letter_exchange.as_deref(), Some("policy"));
    }

    #[test]
    fn a_rest_grows_with_each_failure_up_to_its_limit() {
        let arguments = |multiplier| Arguments {
            retry_min_ms: Some(100),
            retry_max_ms: Some(1000),
            retry_multiplier: multiplier,
            ..Arguments::default()
        };
        let rests = |multiplier| [1, 2, 3, 4, 20].map(|n| arguments(multiplier).rest_ms(n).unwrap());

        assert_eq!(rests(None), [100, 200, 300, 400, 1000]);
        assert_eq!(rests(Some(2000)), [100, 200, 400, 800, 1000]);
        assert_eq!(rests(Some(1500)), [100, 150, 225, 337, 1000]);
        assert_eq!(Arguments::default().rest_ms(1), None);
    }

    #[test]
    fn a_quorum_queue_is_durable_and_has_arguments_of_its_own() {
        let quorum = |flags, extra: Option<(&'static str, Value)>| {
            let entries = [("x-queue-type", Value::text("quorum"))].into_iter().chain(extra);
            Arguments::parse(&Table::from_iter(entries), flags, "q", "/").map_err(|e| e.to_string())
        };
        let durable = Flags { durable: true, ..Flags::default() };
        let refused = |flags, extra, text: &str| assert_eq!(quorum(flags, extra), Err(text.into()));

        assert_eq!(quorum(durable, None).unwrap().kind, QueueKind::Quorum);
        assert_eq!(quorum(durable, None).unwrap().delivery_limit(), None);
        let dlx = Some(("x-dead-letter-exchange", Value::text("dlx")));
        assert_eq!(quorum(durable, dlx).unwrap().delivery_limit(), Some(20));
        refused(Flags::default(), None, "invalid property 'non-durable' for queue 'q' in vhost '/'");
        refused(
            durable,
            Some(("x-max-priority", Value::Int(3))),
            "invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue",
        );
    }

    #[test]
    fn a_missing_type_is_classic_and_integers_compare_by_value() {
        let classic = Table::from_iter([("x-queue-type", Value::text("classic"))]);
        let ttl = |ms| Table::from_iter([("x-message-ttl", Value::Int(ms))]);

        assert_eq!(Arguments::difference(&classic, &Table::new()), None);
        assert_eq!(Arguments::difference(&ttl(5), &ttl(5)), None);
        let differ = |a: &str, b: &str| Some(("x-message-ttl", a.to_string(), b.to_string()));
        assert_eq!(Arguments::difference(&ttl(5), &ttl(6)), differ("'5'", "'6'"));
        assert_eq!(
            Arguments::difference(&ttl(5), &Table::new()),
            differ("the value '5' of type 'signedint'", "none")
        );
    }
}
