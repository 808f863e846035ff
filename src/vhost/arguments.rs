//! Tables as the wire has them, and as the exchanges compare them.

use std::borrow::Cow;

use amqp::{Properties, Table, Value, table};

use crate::message::Keys;
use crate::queue;

/// The headers that name further routing keys (RabbitMQ's sender-selected distribution).
pub const CC: &[u8] = b"CC";
/// The same, taken out before anybody else sees the message.
pub const BCC: &[u8] = b"BCC";

/// The keys in one of those two among these headers.
pub fn keys_in(headers: &[(&[u8], &[u8])], header: &[u8]) -> Keys {
    let raw = headers.iter().find(|(name, _)| *name == header).map(|(_, raw)| *raw);
    let Some(Ok(Value::Array(values))) = raw.map(table::decode_value) else { return Keys::default() };
    let key = |value| if let Value::Bytes(key) = value { Some(key.into_boxed_slice()) } else { None };
    values.into_iter().filter_map(key).collect()
}

/// Arguments of a declaration or binding, for the exchanges.
pub fn to_exchanges(table: &Table) -> exchanges::Arguments {
    table.iter().map(|(name, value)| (name.as_bytes().to_vec(), owned(value))).collect()
}

/// The same back: what is kept, in the order the exchanges have it.
pub fn from_exchanges(arguments: &exchanges::Arguments) -> Table {
    arguments
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), from_value(value)))
        .collect()
}

fn owned(value: &Value) -> exchanges::Value<'static> {
    borrowed(value).into_owned()
}

fn borrowed(value: &Value) -> exchanges::Value<'_> {
    match value {
        Value::Void => exchanges::Value::Void,
        Value::Bool(b) => exchanges::Value::Bool(*b),
        Value::Int(i) => exchanges::Value::Int(*i),
        Value::Float(f) => exchanges::Value::Float(*f),
        Value::Bytes(bytes) => exchanges::Value::Bytes(Cow::Borrowed(bytes)),
        Value::Timestamp(seconds) => exchanges::Value::Timestamp(*seconds),
        Value::Decimal(scale, digits) => exchanges::Value::Decimal(*scale, *digits as u32),
        Value::Array(values) => exchanges::Value::Array(values.iter().map(borrowed).collect()),
        Value::Table(table) => exchanges::Value::Table(
            table.iter().map(|(name, value)| (name.as_bytes(), borrowed(value))).collect(),
        ),
    }
}

fn from_value(value: &exchanges::Value<'_>) -> Value {
    match value {
        exchanges::Value::Void => Value::Void,
        exchanges::Value::Bool(b) => Value::Bool(*b),
        exchanges::Value::Int(i) => Value::Int(*i),
        exchanges::Value::Uint(u) => Value::Int(*u as i64),
        exchanges::Value::Float(f) => Value::Float(*f),
        exchanges::Value::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        exchanges::Value::Timestamp(seconds) => Value::Timestamp(*seconds),
        exchanges::Value::Decimal(scale, digits) => Value::Decimal(*scale, *digits as i32),
        exchanges::Value::Array(values) => Value::Array(values.iter().map(from_value).collect()),
        exchanges::Value::Table(table) => Value::Table(
            table
                .iter()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), from_value(value)))
                .collect(),
        ),
    }
}

impl exchanges::Destination for queue::Handle {
    fn name(&self) -> &[u8] {
        queue::Handle::name(self).as_bytes()
    }
}

/// The property flags and properties of a message, decoded only if an exchange looks at them.
pub struct MessageProperties<'a>(pub &'a [u8]);

impl exchanges::Properties for MessageProperties<'_> {
    fn headers(&self, see: &mut dyn FnMut(&[u8], &exchanges::Value<'_>)) {
        let Ok(properties) = Properties::parse(self.0) else { return };
        let table = properties.header_table();
        for (name, value) in table.iter() {
            see(name.as_bytes(), &borrowed(value));
        }
    }

    fn property(&self, property: exchanges::Property) -> Option<exchanges::Value<'_>> {
        let properties = Properties::parse(self.0).ok()?;
        let text = |text| exchanges::Value::Bytes(Cow::Borrowed(text));
        match property {
            exchanges::Property::MessageId => properties.message_id.map(text),
            exchanges::Property::CorrelationId => properties.correlation_id.map(text),
            exchanges::Property::Timestamp => properties.timestamp.map(exchanges::Value::Timestamp),
        }
    }
}

#[cfg(test)]
mod tests {
    use exchanges::Properties as _;
    use exchanges::Property::{CorrelationId, MessageId, Timestamp};

    use super::*;

    #[test]
    fn properties_are_found_in_what_a_message_came_with() {
        let bytes =
            Properties { message_id: Some(b"id"), timestamp: Some(7), ..Properties::default() }.encode();
        let properties = MessageProperties(&bytes);

        assert_eq!(properties.property(MessageId), Some(exchanges::Value::text("id")));
        assert_eq!(properties.property(Timestamp), Some(exchanges::Value::Timestamp(7)));
        assert_eq!(properties.property(CorrelationId), None);
        assert_eq!(MessageProperties(b"").property(MessageId), None);
    }
}
