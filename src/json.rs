//! AMQP tables as JSON and back, as RabbitMQ's HTTP API and definition files write them.
//!
//! JSON has fewer types: a timestamp comes back as an integer, a decimal as a float. Bytes that are no text
//! are written the way RabbitMQ does, and read back.

use amqp::limits::{SHORT_STRING_BYTES_MAX, TABLE_DEPTH_MAX};
use amqp::{Properties, Table, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value as Json};

const NOT_TEXT: &str = "Not UTF-8, base64 is: ";

/// RabbitMQ breaks base64 into lines of so many characters.
const LINE_BYTES: usize = 63;

/// A table as a JSON object. Of a name that stands twice the first one counts.
pub fn table_to_json(table: &Table) -> Map<String, Json> {
    let mut map = Map::new();
    for (name, value) in table.iter() {
        map.entry(name).or_insert_with(|| value_to_json(value));
    }
    map
}

/// A value of a table as JSON.
pub fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Void => Json::Null,
        Value::Bool(bool) => Json::Bool(*bool),
        Value::Int(int) => Json::from(*int),
        Value::Float(float) => Number::from_f64(*float).map_or(Json::Null, Json::Number),
        Value::Bytes(bytes) => Json::String(text_of(bytes)),
        Value::Timestamp(seconds) => Json::from(*seconds),
        Value::Decimal(scale, digits) => Json::from(f64::from(*digits) / 10_f64.powi(i32::from(*scale))),
        Value::Array(values) => values.iter().map(value_to_json).collect(),
        Value::Table(table) => Json::Object(table_to_json(table)),
    }
}

/// The properties of a message as a table, by RabbitMQ's names; nothing of what cannot be read.
pub fn properties_to_table(properties: &[u8]) -> Table {
    let read = Properties::parse(properties).unwrap_or_default();
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| Value::Bytes(bytes.to_vec()));
    let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let headers = read.headers.and_then(|headers| Table::decode(headers).ok()).map(Value::Table);
    let all = [
        ("content_type", text(read.content_type)),
        ("content_encoding", text(read.content_encoding)),
        ("headers", headers),
        ("delivery_mode", read.delivery_mode.map(|mode| number(mode.into()))),
        ("priority", read.priority.map(|priority| number(priority.into()))),
        ("correlation_id", text(read.correlation_id)),
        ("reply_to", text(read.reply_to)),
        ("expiration", text(read.expiration)),
        ("message_id", text(read.message_id)),
        ("timestamp", read.timestamp.map(number)),
        ("type", text(read.kind)),
        ("user_id", text(read.user_id)),
        ("app_id", text(read.app_id)),
        ("cluster_id", text(read.cluster_id)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Bytes as text that JSON can hold.
pub fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let encoded = BASE64.encode(bytes);
            let lines = encoded.as_bytes().chunks(LINE_BYTES).map(String::from_utf8_lossy);
            format!("{NOT_TEXT}{}", lines.collect::<Vec<_>>().join("\n"))
        }
    }
}

/// A JSON object as a table.
///
/// # Errors
/// What cannot be in a table, by its name: a number too large, a name too long, too many levels.
pub fn json_to_table(map: &Map<String, Json>) -> Result<Table, String> {
    object(map, 0)
}

fn object(map: &Map<String, Json>, depth: usize) -> Result<Table, String> {
    let entry = |(name, value): (&String, &Json)| {
        if name.len() > SHORT_STRING_BYTES_MAX {
            let is = name.len();
            return Err(format!("a name of {is} bytes, and at most {SHORT_STRING_BYTES_MAX} can be: {name}"));
        }
        Ok((name.clone(), json_to_value(value, depth).map_err(|reason| format!("{name}: {reason}"))?))
    };
    map.iter().map(entry).collect::<Result<Vec<_>, _>>().map(Table)
}

fn json_to_value(json: &Json, depth: usize) -> Result<Value, String> {
    if depth >= TABLE_DEPTH_MAX {
        return Err(format!("nested deeper than {TABLE_DEPTH_MAX} levels"));
    }
    Ok(match json {
        Json::Null => Value::Void,
        Json::Bool(bool) => Value::Bool(*bool),
        Json::Number(number) if number.is_f64() => Value::Float(number.as_f64().unwrap_or_default()),
        Json::Number(number) => match number.as_i64() {
            Some(int) => Value::Int(int),
            None => return Err(format!("{number} does not fit into 64 bits with a sign")),
        },
        Json::String(text) => Value::Bytes(bytes_of(text)),
        Json::Array(items) => {
            let items = items.iter().map(|item| json_to_value(item, depth + 1));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Json::Object(map) => Value::Table(object(map, depth + 1)?),
    })
}

fn bytes_of(text: &str) -> Vec<u8> {
    let encoded = text.strip_prefix(NOT_TEXT).map(|encoded| encoded.replace('\n', ""));
    encoded.and_then(|encoded| BASE64.decode(encoded).ok()).unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(json: Json) -> Map<String, Json> {
        let Json::Object(map) = json else { panic!("an object") };
        map
    }

    #[test]
    fn what_json_has_a_type_for_comes_back_as_it_was() {
        let table = Table::from_iter([
            ("a", Value::Int(-7)),
            ("b", Value::text("text")),
            ("c", Value::Bool(true)),
            ("d", Value::Float(1.5)),
            ("e", Value::Array(vec![Value::Int(i64::MAX), Value::Void])),
            ("f", Value::Table(Table::from_iter([("x", Value::Bytes(vec![0xff; 100]))]))),
        ]);

        assert_eq!(json_to_table(&table_to_json(&table)), Ok(table));
    }

    #[test]
    fn the_rest_is_written_as_rabbitmq_does() {
        let table = Table::from_iter([
            ("t", Value::Timestamp(1_700_000_000)),
            ("d", Value::Decimal(2, 275)),
            ("n", Value::Bytes(vec![0xff])),
            ("n", Value::Int(1)),
        ]);

        let json = json!({"t": 1_700_000_000, "d": 2.75, "n": "Not UTF-8, base64 is: /w=="});
        assert_eq!(Json::Object(table_to_json(&table)), json);
    }

    #[test]
    fn what_no_table_can_hold_is_named() {
        let refused = |json: Json| json_to_table(&object(json)).unwrap_err();

        assert!(refused(json!({"a": {"b": u64::MAX}})).starts_with("a: b: 18446744073709551615 does not"));
        assert!(refused(json!({"n".repeat(256): 1})).starts_with("a name of 256 bytes"));
        let deep = (0..TABLE_DEPTH_MAX + 1).fold(json!(1), |inner, _| json!({"d": inner}));
        assert!(refused(deep).contains("nested deeper"));
    }
}
