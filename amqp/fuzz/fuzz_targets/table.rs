//! Any bytes as a table: checking and building agree, and a table is read as it was written.
#![no_main]

use amqp::{Table, Value, limits, sasl, table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let checked = table::check(data);
    let decoded = Table::decode(data);
    assert_eq!(checked == Ok(data.len()), decoded.is_ok());
    if let Ok(n) = checked {
        let table = Table::decode(&data[..n]).expect("a table that was checked");
        assert!(depth_of(&table) <= limits::TABLE_DEPTH_MAX);
        check_round(&table);
        check_parts(&data[..n], &table);
    }
    for mechanism in ["PLAIN", "AMQPLAIN"] {
        if let Some(said) = sasl::decode(mechanism, data) {
            assert!(said.user.len() + said.password.len() <= data.len());
        }
    }
});

fn check_round(table: &Table) {
    let once = written(table);
    let read = Table::decode(&once).expect("a table that was written");
    assert_eq!(written(&read), once);
    // A name that was no text grows by the signs put in its place, and is cut when it is written.
    if names_fit(table) {
        assert_eq!(format!("{read:?}"), format!("{table:?}"));
    }
}

/// Entry by entry it is the same table, and without one entry it has all others as they were.
fn check_parts(bytes: &[u8], table: &Table) {
    let parts: Vec<_> = table::raw_entries(bytes).collect();
    assert_eq!(parts.len(), table.0.len());
    for ((name, raw), (read, value)) in parts.iter().zip(table.iter()) {
        assert_eq!(String::from_utf8_lossy(name), read);
        let decoded = table::decode_value(raw).expect("a value of a table that was checked");
        assert_eq!(format!("{decoded:?}"), format!("{value:?}"));
    }
    let Some((first, _)) = parts.first() else { return };
    let left = table::without(bytes, first);
    assert_eq!(table::check(&left), Ok(left.len()));
    let others: Vec<_> = parts.iter().filter(|(name, _)| name != first).copied().collect();
    assert_eq!(table::raw_entries(&left).collect::<Vec<_>>(), others);
}

fn written(table: &Table) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes
}

fn names_fit(table: &Table) -> bool {
    table.iter().all(|(name, value)| name.len() <= limits::SHORT_STRING_BYTES_MAX && fits(value))
}

fn fits(value: &Value) -> bool {
    match value {
        Value::Table(table) => names_fit(table),
        Value::Array(values) => values.iter().all(fits),
        _ => true,
    }
}

fn depth_of(table: &Table) -> usize {
    1 + table.iter().map(|(_, value)| depth_of_value(value)).max().unwrap_or(0)
}

fn depth_of_value(value: &Value) -> usize {
    match value {
        Value::Table(table) => depth_of(table),
        Value::Array(values) => 1 + values.iter().map(depth_of_value).max().unwrap_or(0),
        _ => 0,
    }
}
