//! The `x-` arguments of a queue: which there are, what they may be, and what comes of them.
//!
//! To add one: a line in [`ARGUMENTS`], a field in [`Arguments`], and its effect in `state` or `ready`.

use amqp::{Table, Value};

use crate::error::Error;

/// Milliseconds that RabbitMQ takes for a time to live or an expiry: up to 2^53 here.
const MS_MAX: i64 = 1 << 53;

/// What the arguments of a queue ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `x-message-ttl`: how long a message may wait, in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// `x-expires`: how long the queue may be unused before it goes, in milliseconds.
    pub expires_ms: Option<u64>,
}

/// How an argument is treated.
enum Use {
    /// Checked, and set in [`Arguments`].
    Set(fn(&mut Arguments, &Value) -> Result<(), String>),
    /// Accepted without effect: it steers things that Garenne has no need of.
    Legacy,
    /// Known, but not built yet: refused, so that nobody relies on it.
    NotYet,
}

struct Argument {
    name: &'static str,
    effect: Use,
}

const ARGUMENTS: &[Argument] = &[
    Argument { name: "x-message-ttl", effect: Use::Set(message_ttl) },
    Argument { name: "x-expires", effect: Use::Set(expires) },
    Argument { name: "x-queue-type", effect: Use::Set(queue_type) },
    Argument { name: "x-queue-mode", effect: Use::Legacy },
    Argument { name: "x-queue-version", effect: Use::Legacy },
    Argument { name: "x-queue-master-locator", effect: Use::Legacy },
    Argument { name: "x-queue-leader-locator", effect: Use::Legacy },
    Argument { name: "x-dead-letter-exchange", effect: Use::NotYet },
    Argument { name: "x-dead-letter-routing-key", effect: Use::NotYet },
    Argument { name: "x-dead-letter-strategy", effect: Use::NotYet },
    Argument { name: "x-max-length", effect: Use::NotYet },
    Argument { name: "x-max-length-bytes", effect: Use::NotYet },
    Argument { name: "x-overflow", effect: Use::NotYet },
    Argument { name: "x-max-priority", effect: Use::NotYet },
    Argument { name: "x-single-active-consumer", effect: Use::NotYet },
    Argument { name: "x-delivery-limit", effect: Use::NotYet },
    Argument { name: "x-consumer-timeout", effect: Use::NotYet },
    Argument { name: "x-max-age", effect: Use::NotYet },
    Argument { name: "x-message-deduplication", effect: Use::NotYet },
];

/// The arguments that a second declare must repeat, as RabbitMQ compares them for classic queues.
const COMPARED: &[&str] = &["x-expires", "x-message-ttl", "x-queue-type", "x-queue-mode", "x-queue-version"];

impl Arguments {
    /// Reads the arguments of queue `name` in vhost `vhost`. Arguments that nobody knows are kept by
    /// the caller and have no effect, as in RabbitMQ.
    ///
    /// # Errors
    /// [`Error::Invalid`] with RabbitMQ's text when a value cannot be, or when the argument is not
    /// built yet.
    pub fn parse(table: &Table, name: &str, vhost: &str) -> Result<Arguments, Error> {
        let mut arguments = Arguments::default();
        for (key, value) in table.iter() {
            let Some(known) = ARGUMENTS.iter().find(|argument| argument.name == key) else { continue };
            let checked = match known.effect {
                Use::Set(set) => set(&mut arguments, value),
                Use::Legacy => Ok(()),
                Use::NotYet => Err("this version of Garenne does not support it yet".to_string()),
            };
            checked.map_err(|reason| {
                Error::Invalid(format!("invalid arg '{key}' for queue '{name}' in vhost '{vhost}': {reason}"))
            })?;
        }
        Ok(arguments)
    }

    /// The first compared argument in which two declarations differ: its name, received, current.
    pub fn difference(received: &Table, current: &Table) -> Option<(&'static str, String, String)> {
        COMPARED.iter().find_map(|&key| {
            let (received, current) = (received.get(key), current.get(key));
            let is_same = received == current || (key == "x-queue-type" && is_classic(received, current));
            (!is_same).then(|| (key, print(received), print(current)))
        })
    }
}

/// A queue without a type is classic.
fn is_classic(a: Option<&Value>, b: Option<&Value>) -> bool {
    [a, b].iter().all(|v| v.is_none_or(|v| v.as_str() == Some("classic")))
}

/// A value as RabbitMQ's mismatch texts print it.
fn print(value: Option<&Value>) -> String {
    match value {
        None => "none".into(),
        Some(Value::Int(i)) => format!("the value '{i}' of type 'signedint'"),
        Some(Value::Bytes(bytes)) => {
            format!("the value '{}' of type 'longstr'", String::from_utf8_lossy(bytes))
        }
        Some(Value::Bool(b)) => format!("the value '{b}' of type 'bool'"),
        Some(other) => format!("the value '{other:?}'"),
    }
}

fn message_ttl(arguments: &mut Arguments, value: &Value) -> Result<(), String> {
    arguments.message_ttl_ms = Some(milliseconds(value)?);
    Ok(())
}

fn expires(arguments: &mut Arguments, value: &Value) -> Result<(), String> {
    match milliseconds(value)? {
        0 => Err("{value_zero,0}".into()),
        ms => {
            arguments.expires_ms = Some(ms);
            Ok(())
        }
    }
}

fn queue_type(_: &mut Arguments, value: &Value) -> Result<(), String> {
    match value {
        Value::Bytes(kind) if kind == b"classic" => Ok(()),
        Value::Bytes(kind) if matches!(&kind[..], b"quorum" | b"stream" | b"partitioned") => {
            Err("this version of Garenne does not support it yet".into())
        }
        Value::Bytes(_) => Err("unsupported queue type".into()),
        other => Err(unacceptable(other)),
    }
}

fn milliseconds(value: &Value) -> Result<u64, String> {
    match value {
        Value::Int(i) if *i < 0 => Err(format!("{{value_negative,{i}}}")),
        Value::Int(i) if *i > MS_MAX => Err(format!("{{value_too_big,{i}}}")),
        Value::Int(i) => Ok(*i as u64),
        other => Err(unacceptable(other)),
    }
}

fn unacceptable(value: &Value) -> String {
    let kind = match value {
        Value::Void => "void",
        Value::Bool(_) => "bool",
        Value::Int(_) => "signedint",
        Value::Float(_) => "double",
        Value::Bytes(_) => "longstr",
        Value::Timestamp(_) => "timestamp",
        Value::Decimal(..) => "decimal",
        Value::Array(_) => "array",
        Value::Table(_) => "table",
    };
    format!("{{unacceptable_type,{kind}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: Value) -> Result<Arguments, String> {
        Arguments::parse(&Table::from_iter([(key, value)]), "q", "/").map_err(|e| e.to_string())
    }

    #[test]
    fn a_time_to_live_is_a_number_of_milliseconds() {
        let ttl = |ms| Ok(Arguments { message_ttl_ms: Some(ms), ..Arguments::default() });

        assert_eq!(parse("x-message-ttl", Value::Int(0)), ttl(0));
        assert_eq!(parse("x-message-ttl", Value::Int(134_217_728_000)), ttl(134_217_728_000));
        assert_eq!(
            parse("x-message-ttl", Value::Int(-1)),
            Err("invalid arg 'x-message-ttl' for queue 'q' in vhost '/': {value_negative,-1}".into())
        );
        assert!(parse("x-message-ttl", Value::text("10")).unwrap_err().contains("unacceptable_type"));
        assert!(parse("x-expires", Value::Int(0)).is_err());
    }

    #[test]
    fn what_is_not_built_is_refused_and_what_nobody_knows_is_kept() {
        assert!(parse("x-max-length", Value::Int(1)).unwrap_err().contains("does not support it yet"));
        assert!(parse("x-queue-type", Value::text("stream")).is_err());
        assert_eq!(parse("x-my-own", Value::Int(1)), Ok(Arguments::default()));
    }

    #[test]
    fn a_missing_type_is_classic_and_integers_compare_by_value() {
        let classic = Table::from_iter([("x-queue-type", Value::text("classic"))]);
        let ttl = |ms| Table::from_iter([("x-message-ttl", Value::Int(ms))]);

        assert_eq!(Arguments::difference(&classic, &Table::new()), None);
        assert_eq!(Arguments::difference(&ttl(5), &ttl(5)), None);
        assert_eq!(Arguments::difference(&ttl(5), &ttl(6)).unwrap().0, "x-message-ttl");
    }
}
