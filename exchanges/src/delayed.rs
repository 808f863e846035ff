//! The `x-delayed-message` exchange: the broker holds messages back, and then they go the way of another
//! kind.

use crate::error::Error;
use crate::kind::Kind;
use crate::value::Arguments;
use crate::watched::Watched;

const NAME: &str = "x-delayed-message";
const INNER: &str = "x-delayed-type";

/// An exchange as it is declared. The inner kind looks at the same arguments; the texts are those of
/// RabbitMQ's plugin.
pub(crate) fn declared(arguments: &Arguments) -> Result<Watched, Error> {
    let invalid = |problem: &str| Err(Error::Invalid { reason: format!("Invalid argument, {problem}") });
    let Some(inner) = arguments.bytes(INNER.as_bytes()) else {
        return invalid("'x-delayed-type' must be an existing exchange type");
    };
    if inner == NAME.as_bytes() {
        return invalid("'x-delayed-message' can't be used for 'x-delayed-type'");
    }
    let routing = Kind::parse(inner)?.routing(arguments)?;
    Ok(Watched::new(routing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Bench, table};
    use crate::routing::Routing;
    use crate::value::Value;

    fn of(inner: &'static str) -> Arguments {
        table(&[(INNER, Value::text(inner))])
    }

    #[test]
    fn messages_go_the_way_of_the_inner_kind() {
        let mut bench = Bench::new(declared(&of("topic")).unwrap());
        bench.bind(1, "a.*");
        bench.bind(2, "#");

        assert_eq!(bench.matches("a.b"), [1, 2]);
        assert_eq!(bench.matches("b"), [2]);
        assert!(!bench.routing.is_by_keys());
    }

    #[test]
    fn the_inner_kind_checks_arguments_and_bindings() {
        let arguments =
            table(&[(INNER, Value::text("x-consistent-hash")), ("hash-property", Value::text("nonsense"))]);
        let mut bench = Bench::new(declared(&of("x-consistent-hash")).unwrap());

        assert!(declared(&arguments).is_err());
        assert!(bench.bind_with(1, "no weight", &Arguments::default()).is_err());
    }

    #[test]
    fn the_inner_kind_must_exist_and_be_another() {
        let refused = |arguments: &Arguments| declared(arguments).err().map(|error| error.to_string());
        let missing = "Invalid argument, 'x-delayed-type' must be an existing exchange type";

        assert_eq!(refused(&Arguments::default()).as_deref(), Some(missing));
        assert_eq!(refused(&table(&[(INNER, Value::Int(1))])).as_deref(), Some(missing));
        assert_eq!(
            refused(&of(NAME)).as_deref(),
            Some("Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'")
        );
        assert_eq!(refused(&of("nonsense")).as_deref(), Some("unknown exchange type 'nonsense'"));
    }
}
