//! The `x-message-deduplication` exchange: a fanout that the broker lets a message pass through once.

use crate::arguments::{positive, text};
use crate::error::Error;
use crate::value::{Arguments, Value};
use crate::watched::Watched;

const SIZE: &str = "x-cache-size";
const TTL: &str = "x-cache-ttl";
const PERSISTENCE: &str = "x-cache-persistence";

/// What an `x-message-deduplication` exchange is asked to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deduplication {
    /// How many messages it knows again.
    pub size: u64,
    /// For how long, if not for ever.
    pub ttl_ms: Option<u64>,
    /// Whether what it knows outlives the broker.
    pub on_disk: bool,
}

impl Deduplication {
    /// Reads the arguments of a declaration.
    pub fn parse(arguments: &Arguments) -> Result<Self, Error> {
        let invalid = |reason: String| Err(Error::Invalid { reason });
        let Some(size) = count(arguments, SIZE)? else {
            return invalid(format!("Missing argument, '{SIZE}' must be a positive integer"));
        };
        let ttl_ms = count(arguments, TTL)?;
        let on_disk = match text(arguments, PERSISTENCE)? {
            None | Some(b"memory") => false,
            Some(b"disk") => true,
            Some(other) => {
                let value = Value::Bytes(other.into());
                return invalid(format!(
                    "Invalid {PERSISTENCE} field value {value}; expected disk or memory"
                ));
            }
        };
        Ok(Self { size, ttl_ms, on_disk })
    }
}

/// An exchange as it is declared.
pub(crate) fn declared(arguments: &Arguments) -> Result<Watched, Error> {
    Deduplication::parse(arguments)?;
    Ok(Watched::fanout())
}

/// A whole number above 0, which these arguments may also give as text.
fn count(arguments: &Arguments, name: &str) -> Result<Option<u64>, Error> {
    let digits = arguments.bytes(name.as_bytes()).and_then(|text| std::str::from_utf8(text).ok());
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(number) if number > 0 => Ok(Some(number)),
        _ => positive(arguments, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Bench, table};
    use crate::routing::Routing;

    #[test]
    fn every_target_matches_and_the_broker_sees_every_message() {
        let mut bench = Bench::new(declared(&table(&[(SIZE, Value::Int(1))])).unwrap());
        bench.bind(1, "a");
        bench.bind(2, "b");

        assert_eq!(bench.matches("c"), [1, 2]);
        assert!(!bench.routing.is_by_keys());
    }

    #[test]
    fn a_size_is_all_that_is_needed() {
        let all =
            table(&[(SIZE, Value::Int(100)), (TTL, Value::text("5000")), (PERSISTENCE, Value::text("disk"))]);

        let plain = Deduplication { size: 7, ttl_ms: None, on_disk: false };
        assert_eq!(Deduplication::parse(&table(&[(SIZE, Value::Int(7))])), Ok(plain));
        let full = Deduplication { size: 100, ttl_ms: Some(5000), on_disk: true };
        assert_eq!(Deduplication::parse(&all), Ok(full));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name_and_value() {
        let refused = |arguments: &[(&'static str, Value<'static>)]| {
            declared(&table(arguments)).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let size = (SIZE, Value::Int(1));

        assert_eq!(refused(&[]), "Missing argument, 'x-cache-size' must be a positive integer");
        assert_eq!(
            refused(&[(SIZE, Value::Int(0))]),
            "Invalid argument 0, 'x-cache-size' must be a positive integer"
        );
        assert_eq!(
            refused(&[size.clone(), (TTL, Value::text("-1"))]),
            r#"Invalid argument <<"-1">>, 'x-cache-ttl' must be a positive integer"#
        );
        assert_eq!(
            refused(&[size.clone(), (PERSISTENCE, Value::text("tape"))]),
            r#"Invalid x-cache-persistence field value <<"tape">>; expected disk or memory"#
        );
        assert_eq!(
            refused(&[size, (PERSISTENCE, Value::Bool(true))]),
            "Invalid x-cache-persistence field type bool (value true); expected longstr"
        );
    }
}
