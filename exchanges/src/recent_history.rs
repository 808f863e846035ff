//! The `x-recent-history` exchange: a fanout whose last messages the broker gives to queues bound later.

use crate::arguments::positive;
use crate::error::Error;
use crate::value::Arguments;
use crate::watched::Watched;

const LENGTH: &str = "x-recent-history-length";

/// So many messages are kept if nothing is said, as in RabbitMQ.
const LENGTH_DEFAULT: u64 = 20;

/// How many messages an `x-recent-history` exchange with these arguments keeps.
pub fn history_length(arguments: &Arguments) -> Result<u64, Error> {
    Ok(positive(arguments, LENGTH)?.unwrap_or(LENGTH_DEFAULT))
}

/// An exchange as it is declared.
pub(crate) fn declared(arguments: &Arguments) -> Result<Watched, Error> {
    history_length(arguments)?;
    Ok(Watched::fanout())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Bench, table};
    use crate::routing::Routing;
    use crate::value::Value;

    #[test]
    fn every_target_matches_and_the_broker_sees_every_message() {
        let mut bench = Bench::new(declared(&Arguments::default()).unwrap());
        bench.bind(1, "a");
        bench.bind(2, "b");

        assert_eq!(bench.matches("c"), [1, 2]);
        assert!(!bench.routing.is_by_keys());
    }

    #[test]
    fn the_length_is_a_whole_number_above_zero() {
        let length = |value| history_length(&table(&[(LENGTH, value)]));
        let refused = |value: &str| {
            let reason =
                format!("Invalid argument {value}, 'x-recent-history-length' must be a positive integer");
            Err(Error::Invalid { reason })
        };

        assert_eq!(history_length(&Arguments::default()), Ok(20));
        assert_eq!(length(Value::Int(5)), Ok(5));
        assert_eq!(length(Value::Int(0)), refused("0"));
        assert_eq!(length(Value::Int(-1)), refused("-1"));
        assert_eq!(length(Value::text("5")), refused(r#"<<"5">>"#));
        assert_eq!(length(Value::Void), refused("undefined"));
        assert_eq!(length(Value::Decimal(1, 15)), refused("{1,15}"));
    }

    #[test]
    fn a_declaration_with_a_senseless_length_is_refused() {
        assert!(declared(&table(&[(LENGTH, Value::Int(0))])).is_err());
    }
}
