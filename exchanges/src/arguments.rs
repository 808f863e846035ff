//! Reading the arguments of a declaration, and refusing those that make no sense.

use crate::error::Error;
use crate::value::{Arguments, Value};

/// The string of that name, if there is one.
pub(crate) fn text<'a>(arguments: &'a Arguments, name: &str) -> Result<Option<&'a [u8]>, Error> {
    let Some(value) = arguments.get(name.as_bytes()) else { return Ok(None) };
    if let Some(text) = value.as_bytes() {
        return Ok(Some(text));
    }
    let received = value.type_name();
    Err(Error::Invalid {
        reason: format!("Invalid {name} field type {received} (value {value}); expected longstr"),
    })
}

/// The whole number above 0 of that name, if there is one. The text is that of RabbitMQ's exchanges.
pub(crate) fn positive(arguments: &Arguments, name: &str) -> Result<Option<u64>, Error> {
    let Some(value) = arguments.get(name.as_bytes()) else { return Ok(None) };
    let number = match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Uint(number) => Some(*number),
        _ => None,
    };
    if let Some(number) = number.filter(|number| *number > 0) {
        return Ok(Some(number));
    }
    Err(Error::Invalid { reason: format!("Invalid argument {value}, '{name}' must be a positive integer") })
}
