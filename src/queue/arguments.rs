//! The `x-` arguments of a queue: which there are, what they may be, and what comes of them.
//!
//! To add one: a line in [`ARGUMENTS`], a field in [`Arguments`], and its effect in `state` or `ready`.

use amqp::{Table, Value};
use store::SyncMode;

use crate::error::Error;
use crate::message::TTL_MS_MAX;

/// What the arguments of a queue ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `x-message-ttl`: how long a message may wait, in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// `x-sync`: when its messages are synced, `group`, `os` or `interval:` and milliseconds, if not as the
    /// broker says.
    pub sync: Option<SyncMode>,
    /// `x-expires`: how long the queue may be unused before it goes, in milliseconds.
    pub expires_ms: Option<u64>,
}

/// An argument that the broker knows.
struct Argument {
    name: &'static str,
    /// What its value may be; otherwise the reason, in RabbitMQ's words.
    check: fn(&Value) -> Result<(), String>,
    effect: Effect,
}

/// What comes of an argument whose value can be.
enum Effect {
    /// It is set in [`Arguments`].
    Set(fn(&mut Arguments, &Value)),
    /// Nothing: it steers what Garenne has no need of.
    None,
    /// Not built yet: refused, so that nobody relies on it.
    NotYet,
    /// An argument of other types of queue: refused as RabbitMQ does.
    OtherType,
}

const fn set(
    name: &'static str,
    check: fn(&Value) -> Result<(), String>,
    set: fn(&mut Arguments, &Value),
) -> Argument {
    Argument { name, check, effect: Effect::Set(set) }
}

const fn none(name: &'static str, check: fn(&Value) -> Result<(), String>) -> Argument {
    Argument { name, check, effect: Effect::None }
}

const fn not_yet(name: &'static str, check: fn(&Value) -> Result<(), String>) -> Argument {
    Argument { name, check, effect: Effect::NotYet }
}

const fn other_type(name: &'static str) -> Argument {
    Argument { name, check: |_| Ok(()), effect: Effect::OtherType }
}

const ARGUMENTS: &[Argument] = &[
    set("x-message-ttl", milliseconds, |a, v| a.message_ttl_ms = as_u64(v)),
    set("x-expires", milliseconds_above_zero, |a, v| a.expires_ms = as_u64(v)),
    set("x-sync", |v| sync(v).map(|_| ()), |a, v| a.sync = sync(v).ok()),
    none("x-queue-type", queue_type),
    none("x-queue-mode", queue_mode),
    none("x-queue-version", queue_version),
    none("x-queue-master-locator", text),
    none("x-queue-leader-locator", text),
    not_yet("x-dead-letter-exchange", text),
    not_yet("x-dead-letter-routing-key", text),
    other_type("x-dead-letter-strategy"),
    not_yet("x-max-length", not_negative),
    not_yet("x-max-length-bytes", not_negative),
    not_yet("x-overflow", overflow),
    not_yet("x-max-priority", max_priority),
    not_yet("x-single-active-consumer", boolean),
    other_type("x-delivery-limit"),
    other_type("x-max-age"),
    other_type("x-stream-max-segment-size-bytes"),
    other_type("x-stream-filter-size-bytes"),
    not_yet("x-consumer-timeout", |_| Ok(())),
    not_yet("x-message-deduplication", |_| Ok(())),
];

/// The arguments that a second declare must repeat, as RabbitMQ compares them for classic queues.
const COMPARED: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-queue-type",
    "x-single-active-consumer",
    "x-sync",
];

impl Arguments {
    /// Reads the arguments of queue `name` in vhost `vhost`. Arguments that nobody knows are kept by
    /// the caller and have no effect, as in RabbitMQ.
    ///
    /// # Errors
    /// [`Error::Invalid`] with RabbitMQ's text when a value cannot be, or when the argument is not
    /// built yet.
    pub fn parse(table: &Table, name: &str, vhost: &str) -> Result<Arguments, Error> {
        let mut arguments = Arguments::default();
        for known in ARGUMENTS {
            let Some(value) = table.get(known.name) else { continue };
            let invalid = |reason: String| {
                let key = known.name;
                Error::Invalid(format!("invalid arg '{key}' for queue '{name}' in vhost '{vhost}': {reason}"))
            };
            (known.check)(value).map_err(invalid)?;
            match known.effect {
                Effect::Set(set) => set(&mut arguments, value),
                Effect::None => {}
                Effect::NotYet => return Err(invalid(NOT_YET.into())),
                Effect::OtherType => return Err(Error::Invalid(other_type_text(known.name, name, vhost))),
            }
        }
        Ok(arguments)
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

const NOT_YET: &str = "this version of Garenne does not support it yet";

/// RabbitMQ's words for an argument that a classic queue does not have.
pub fn other_type_text(argument: &str, queue: &str, vhost: &str) -> String {
    format!(
        "invalid arg '{argument}' for queue '{queue}' in vhost '{vhost}' of queue type rabbit_classic_queue"
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

fn boolean(value: &Value) -> Result<(), String> {
    match value {
        Value::Bool(_) => Ok(()),
        other => Err(unacceptable(other)),
    }
}

fn overflow(value: &Value) -> Result<(), String> {
    text(value)?;
    match value.as_str() {
        Some("drop-head" | "reject-publish" | "reject-publish-dlx") => Ok(()),
        _ => Err("invalid_overflow".into()),
    }
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

fn queue_type(value: &Value) -> Result<(), String> {
    text(value)?;
    match value.as_str() {
        Some("classic") => Ok(()),
        Some("quorum" | "stream" | "partitioned") => Err(NOT_YET.into()),
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
        Arguments::parse(&Table::from_iter([(key, value)]), "q", "/").map_err(|e| e.to_string())
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
        refused("x-max-length", Value::Int(1), NOT_YET);
        refused("x-max-length", Value::Int(-1), "{value_negative,-1}");
        refused("x-queue-type", Value::text("stream"), NOT_YET);
        assert_eq!(parse("x-my-own", Value::Int(1)), Ok(Arguments::default()));
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
