//! Any bytes as a method: what is read is written and read as the same, and as amq-protocol reads it.
#![no_main]

use amq_protocol::protocol::{self, AMQPClass};
use amqp::method::{self, Ack, Cold, Error, Publish, basic};
use amqp::{Method, Table, Value, sasl};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let ours = method::decode(data);
    assert_eq!(method::is_hot(data), data.starts_with(&[0, 60, 0, 40]) || data.starts_with(&[0, 60, 0, 80]));
    let _ = method::prefetch_bytes(data);
    match &ours {
        Ok(Method::Publish(publish)) => check_publish(publish, data),
        Ok(Method::Ack(ack)) => check_ack(*ack, data),
        Ok(Method::Cold(class)) => check_cold(class),
        Err(error) => check_refused(*error, data),
    }
});

fn written(class: &Cold) -> BytesMut {
    let mut out = BytesMut::new();
    method::put(&mut out, class);
    out
}

fn check_cold(class: &Cold) {
    let once = written(class);
    let Ok(Method::Cold(again)) = method::decode(&once) else {
        panic!("written, it cannot be read: {class:?}")
    };
    // By its bytes, since a float that is no number does not equal itself.
    assert_eq!(written(&again), once);
    assert_eq!(format!("{again:?}"), format!("{class:?}"));
    let (class_id, method_id) = (class.get_amqp_class_id(), class.get_amqp_method_id());
    assert_eq!(once[..4], [class_id.to_be_bytes(), method_id.to_be_bytes()].concat());
    assert_eq!(method::ids(&once), (class_id, method_id));
    match class {
        Cold::Queue(method::queue::AMQPMethod::Declare(m)) => check_table(&m.arguments),
        Cold::Queue(method::queue::AMQPMethod::Bind(m)) => check_table(&m.arguments),
        Cold::Exchange(method::exchange::AMQPMethod::Declare(m)) => check_table(&m.arguments),
        Cold::Basic(basic::AMQPMethod::Consume(m)) => check_table(&m.arguments),
        Cold::Connection(method::connection::AMQPMethod::StartOk(m)) => {
            check_table(&m.client_properties);
            let _ = sasl::decode(m.mechanism.as_str(), m.response.as_bytes());
        }
        _ => {}
    }
}

/// Arguments are kept as our tables: there and back, nothing is lost but the width of numbers.
fn check_table(fields: &method::FieldTable) {
    let table = Table::from(fields);
    let back = Table::from(&method::FieldTable::from(&table));
    assert_eq!(format!("{table:?}"), format!("{back:?}"));
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    let read = Table::decode(&bytes).expect("a table that was written");
    assert_eq!(format!("{read:?}"), format!("{table:?}"));
    assert!(read.iter().all(|(name, value)| value == value || has_nan(value) || name.is_empty()));
}

fn has_nan(value: &Value) -> bool {
    match value {
        Value::Float(f) => f.is_nan(),
        Value::Array(values) => values.iter().any(has_nan),
        Value::Table(table) => table.iter().any(|(_, value)| has_nan(value)),
        _ => false,
    }
}

fn check_publish(publish: &Publish<'_>, data: &[u8]) {
    assert_eq!(method::split_address(publish.address), Some((publish.exchange, publish.routing_key)));
    assert_eq!(method::address(publish.exchange, publish.routing_key), publish.address);
    let Ok(([], AMQPClass::Basic(basic::AMQPMethod::Publish(theirs)))) = protocol::parse_class(data) else {
        panic!("amq-protocol does not read this publish");
    };
    assert_eq!(
        (theirs.exchange.as_str(), theirs.routing_key.as_str()),
        (publish.exchange, publish.routing_key)
    );
    assert_eq!((theirs.mandatory, theirs.immediate), (publish.mandatory, publish.immediate));
}

fn check_ack(ack: Ack, data: &[u8]) {
    let theirs = basic::Ack { delivery_tag: ack.delivery_tag, multiple: ack.multiple };
    let theirs = AMQPClass::Basic(basic::AMQPMethod::Ack(theirs));
    assert_eq!(protocol::parse_class(data).map(|(rest, class)| (rest.len(), class)), Ok((0, theirs)));
}

/// What we refuse, amq-protocol refuses, but for what we refuse on purpose: tables nested too deep, and
/// the type letter `U` inside of them.
fn check_refused(error: Error, data: &[u8]) {
    if error == Error::Short {
        return assert!(data.len() < 4);
    }
    // Tables of a reasonable depth only: the crate's stack is not bounded.
    let is_safe = data.len() < 2000;
    if is_safe && let Ok(([], class)) = protocol::parse_class(data) {
        let shown = format!("{class:?}");
        let has_table = shown.contains("FieldTable(");
        assert!(has_table, "we refuse ({error:?}) what amq-protocol reads: {shown}");
    }
}
