//! Methods in and out: the only file that names amq-protocol's classes.
//!
//! The crate reads and writes every method but four. Publish, deliver, ack and the ack of a confirm go
//! by the hundred thousand a second, so they have a path of their own that borrows or prebuilds what it
//! can; tests hold it equal to the crate's.

use amq_protocol::protocol::{self, AMQPClass};
use bytes::{BufMut, BytesMut};

pub use amq_protocol::protocol::{access, basic, channel, confirm, connection, exchange, queue, tx};
pub use amq_protocol::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};

use crate::table::{Malformed, Reader, Table, Value, check};

/// Any method but the hot ones.
pub type Cold = AMQPClass;

/// A method as a client sent it.
#[derive(Clone, Debug, PartialEq)]
pub enum Method<'a> {
    /// basic.publish
    Publish(Publish<'a>),
    /// basic.ack
    Ack(Ack),
    /// All others.
    Cold(Box<Cold>),
}

/// basic.publish (60.40), borrowed from its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Exchange and routing key as two short strings in a row: what basic.deliver carries at its end, so
    /// a delivery copies them as they are.
    pub address: &'a [u8],
    /// The exchange's name.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
    /// Return the message if no queue takes it.
    pub mandatory: bool,
    /// Return the message if no consumer takes it at once. Nobody supports it any more.
    pub immediate: bool,
}

/// basic.ack (60.80).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The delivery's number on its channel.
    pub delivery_tag: u64,
    /// All deliveries up to this one.
    pub multiple: bool,
}

/// Why a method could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No such class or method.
    Unknown {
        /// The class that was named.
        class_id: u16,
        /// The method that was named.
        method_id: u16,
    },
    /// The arguments are not what the method has.
    Malformed {
        /// The method's class.
        class_id: u16,
        /// The method.
        method_id: u16,
    },
    /// A name that is not UTF-8.
    NotText,
    /// Not even a class and a method.
    Short,
}

const PUBLISH: u32 = 60 << 16 | 40;
const ACK: u32 = 60 << 16 | 80;

/// Reads a method frame's payload.
pub fn decode(payload: &[u8]) -> Result<Method<'_>, Error> {
    let mut reader = Reader { bytes: payload };
    let id = reader.u32().map_err(|_| Error::Short)?;
    let (class_id, method_id) = ((id >> 16) as u16, id as u16);
    let malformed = Error::Malformed { class_id, method_id };
    match id {
        PUBLISH => publish(reader).map(Method::Publish).ok_or_else(|| malformed_or_not_text(id, payload)),
        ACK => ack(reader).map(Method::Ack).map_err(|_| malformed),
        _ if !is_known(class_id, method_id) => Err(Error::Unknown { class_id, method_id }),
        _ => {
            // The crate descends into tables by recursion, so their depth is checked first.
            let shape = shape(id);
            if shape.has_table {
                shape.strings(&mut reader, |_| {}).map_err(|_| malformed)?;
                reader.take(shape.bits).map_err(|_| malformed)?;
                check(reader.bytes).map_err(|_| malformed)?;
            }
            match protocol::parse_class(payload) {
                Ok(([], class)) => Ok(Method::Cold(Box::new(class))),
                _ => Err(malformed_or_not_text(id, payload)),
            }
        }
    }
}

/// Whether this is the payload of a method that goes by the hundred thousand: one that can be handled
/// together with others like it.
pub fn is_hot(payload: &[u8]) -> bool {
    let id = payload.first_chunk().map(|id| u32::from_be_bytes(*id));
    matches!(id, Some(PUBLISH | ACK))
}

/// Address and flags (1: mandatory, 2: immediate) of basic.publish, not looked at any further: enough to see
/// that it is the same as one that was.
pub fn publish_parts(payload: &[u8]) -> Option<(&[u8], u8)> {
    const HEAD_BYTES: usize = 6;
    if payload.first_chunk().map(|id| u32::from_be_bytes(*id)) != Some(PUBLISH) {
        return None;
    }
    let (flags, rest) = payload.split_last()?;
    Some((rest.get(HEAD_BYTES..)?, *flags))
}

/// Class and method of a payload; zeros if it has none.
pub fn ids(payload: &[u8]) -> (u16, u16) {
    let id = payload.first_chunk().map_or(0, |id| u32::from_be_bytes(*id));
    ((id >> 16) as u16, id as u16)
}

/// The prefetch-size of basic.qos, which the crate passes over. In octets; 0 is no limit.
pub fn prefetch_bytes(payload: &[u8]) -> u32 {
    let mut reader = Reader { bytes: payload.get(4..).unwrap_or_default() };
    reader.u32().unwrap_or(0)
}

/// What is wrong with a method that could not be read.
fn malformed_or_not_text(id: u32, payload: &[u8]) -> Error {
    let mut reader = Reader { bytes: &payload[4..] };
    let mut is_text = true;
    // How far the strings go does not matter here: one that is cut short is malformed anyway.
    let _ = shape(id).strings(&mut reader, |string| is_text &= std::str::from_utf8(string).is_ok());
    match is_text {
        true => Error::Malformed { class_id: (id >> 16) as u16, method_id: id as u16 },
        false => Error::NotText,
    }
}

fn publish(mut reader: Reader<'_>) -> Option<Publish<'_>> {
    let _ticket = reader.u16().ok()?;
    let strings = reader.bytes;
    let exchange = std::str::from_utf8(reader.short_string().ok()?).ok()?;
    let routing_key = std::str::from_utf8(reader.short_string().ok()?).ok()?;
    let address = &strings[..strings.len() - reader.bytes.len()];
    let bits = reader.u8().ok()?;
    let (mandatory, immediate) = (bits & 1 != 0, bits & 2 != 0);
    reader.bytes.is_empty().then_some(Publish { address, exchange, routing_key, mandatory, immediate })
}

fn ack(mut reader: Reader<'_>) -> Result<Ack, Malformed> {
    let ack = Ack { delivery_tag: reader.u64()?, multiple: reader.u8()? & 1 != 0 };
    if reader.bytes.is_empty() { Ok(ack) } else { Err(Malformed("bytes after the method")) }
}

/// Where the short strings and the table of a method stand.
struct Shape {
    /// Octets before the first string.
    fixed: usize,
    short_strings: usize,
    /// Octets of flags between the strings and the table.
    bits: usize,
    has_table: bool,
}

impl Shape {
    /// Shows the strings and stops behind them.
    fn strings<'a>(&self, reader: &mut Reader<'a>, mut see: impl FnMut(&'a [u8])) -> Result<(), Malformed> {
        reader.take(self.fixed)?;
        for _ in 0..self.short_strings {
            see(reader.short_string()?);
        }
        Ok(())
    }
}

fn shape(id: u32) -> Shape {
    let (fixed, short_strings, bits, has_table) = match (id >> 16, id & 0xffff) {
        (10, 10) => (2, 0, 0, true),                  // connection.start
        (10, 11) => (0, 0, 0, true),                  // connection.start-ok
        (10, 40) => (0, 2, 1, false),                 // connection.open
        (10, 50) | (20, 40) => (2, 1, 4, false),      // close
        (40, 10) => (2, 2, 1, true),                  // exchange.declare
        (40, 20) => (2, 1, 1, false),                 // exchange.delete
        (40, 30 | 40) => (2, 3, 1, true),             // exchange.bind, unbind
        (50, 10) => (2, 1, 1, true),                  // queue.declare
        (50, 20) => (2, 3, 1, true),                  // queue.bind
        (50, 50) => (2, 3, 0, true),                  // queue.unbind
        (50, 30 | 40) | (60, 70) => (2, 1, 1, false), // queue.purge, delete, basic.get
        (60, 20) => (2, 2, 1, true),                  // basic.consume
        (60, 30) => (0, 1, 1, false),                 // basic.cancel
        (60, 40) => (2, 2, 1, false),                 // basic.publish
        _ => (0, 0, 0, false),
    };
    Shape { fixed, short_strings, bits, has_table }
}

/// Whether the specification (with RabbitMQ's extensions) has this method.
fn is_known(class_id: u16, method_id: u16) -> bool {
    match class_id {
        10 => matches!(method_id, 10 | 11 | 20 | 21 | 30 | 31 | 40 | 41 | 50 | 51 | 60 | 61 | 70 | 71),
        20 => matches!(method_id, 10 | 11 | 20 | 21 | 40 | 41),
        30 => matches!(method_id, 10 | 11),
        40 => matches!(method_id, 10 | 11 | 20 | 21 | 30 | 31 | 40 | 51),
        50 => matches!(method_id, 10 | 11 | 20 | 21 | 30 | 31 | 40 | 41 | 50 | 51),
        60 => matches!(
            method_id,
            10 | 11 | 20 | 21 | 30 | 31 | 40 | 50 | 60 | 70 | 71 | 72 | 80 | 90 | 100 | 110 | 111 | 120
        ),
        85 => matches!(method_id, 10 | 11),
        90 => matches!(method_id, 10 | 11 | 20 | 21 | 30 | 31),
        _ => false,
    }
}

/// Appends a method's payload.
pub fn put(out: &mut BytesMut, method: &Cold) {
    let bytes = protocol::gen_class(method)(Vec::with_capacity(64).into())
        .expect("a Vec takes every byte")
        .into_inner()
        .0;
    out.put_slice(&bytes);
}

/// Appends basic.ack as a payload: what a publisher is told of its messages.
pub fn put_ack(out: &mut BytesMut, ack: Ack) {
    out.put_u32(ACK);
    out.put_u64(ack.delivery_tag);
    out.put_u8(u8::from(ack.multiple));
}

/// The beginning of every basic.deliver to one consumer: class, method, consumer tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliverPrefix(Vec<u8>);

impl DeliverPrefix {
    /// The prefix for a consumer tag of at most 255 bytes.
    pub fn new(consumer_tag: &str) -> Self {
        let mut bytes = Vec::with_capacity(5 + consumer_tag.len());
        bytes.put_u32(60 << 16 | 60);
        bytes.put_u8(consumer_tag.len() as u8);
        bytes.put_slice(consumer_tag.as_bytes());
        DeliverPrefix(bytes)
    }
}

/// Octets of the payload that [`put_deliver`] appends.
pub fn deliver_bytes(prefix: &DeliverPrefix, address: &[u8]) -> usize {
    prefix.0.len() + 9 + address.len()
}

/// Appends basic.deliver (60.60) as a payload; `address` as in [`Publish::address`].
pub fn put_deliver(
    out: &mut BytesMut,
    prefix: &DeliverPrefix,
    delivery_tag: u64,
    redelivered: bool,
    address: &[u8],
) {
    out.put_slice(&prefix.0);
    out.put_u64(delivery_tag);
    out.put_u8(u8::from(redelivered));
    out.put_slice(address);
}

/// The address of a message: exchange and routing key as two short strings.
pub fn address(exchange: &str, routing_key: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + exchange.len() + routing_key.len());
    for part in [exchange, routing_key] {
        debug_assert!(part.len() <= crate::limits::SHORT_STRING_BYTES_MAX);
        bytes.put_u8(part.len() as u8);
        bytes.put_slice(part.as_bytes());
    }
    bytes
}

/// Exchange and routing key of an [`address`], if it is one.
pub fn split_address(address: &[u8]) -> Option<(&str, &str)> {
    let mut reader = Reader { bytes: address };
    let exchange = std::str::from_utf8(reader.short_string().ok()?).ok()?;
    let routing_key = std::str::from_utf8(reader.short_string().ok()?).ok()?;
    reader.bytes.is_empty().then_some((exchange, routing_key))
}

impl From<&FieldTable> for Table {
    fn from(fields: &FieldTable) -> Table {
        fields.into_iter().map(|(name, value)| (name.as_str(), Value::from(value))).collect()
    }
}

impl From<&Table> for FieldTable {
    fn from(table: &Table) -> FieldTable {
        let mut fields = FieldTable::default();
        for (name, value) in table.iter() {
            fields.insert(name.into(), AMQPValue::from(value));
        }
        fields
    }
}

impl From<&AMQPValue> for Value {
    fn from(value: &AMQPValue) -> Value {
        match value {
            AMQPValue::Boolean(b) => Value::Bool(*b),
            AMQPValue::ShortShortInt(i) => Value::Int((*i).into()),
            AMQPValue::ShortShortUInt(i) => Value::Int((*i).into()),
            AMQPValue::ShortInt(i) => Value::Int((*i).into()),
            AMQPValue::ShortUInt(i) => Value::Int((*i).into()),
            AMQPValue::LongInt(i) => Value::Int((*i).into()),
            AMQPValue::LongUInt(i) => Value::Int((*i).into()),
            AMQPValue::LongLongInt(i) => Value::Int(*i),
            AMQPValue::Float(f) => Value::Float((*f).into()),
            AMQPValue::Double(f) => Value::Float(*f),
            AMQPValue::DecimalValue(d) => Value::Decimal(d.scale, d.value as i32),
            AMQPValue::ShortString(s) => Value::Bytes(s.as_str().as_bytes().to_vec()),
            AMQPValue::LongString(s) => Value::Bytes(s.as_bytes().to_vec()),
            AMQPValue::FieldArray(a) => Value::Array(a.as_slice().iter().map(Value::from).collect()),
            AMQPValue::Timestamp(t) => Value::Timestamp(*t),
            AMQPValue::FieldTable(t) => Value::Table(t.into()),
            AMQPValue::ByteArray(b) => Value::Bytes(b.as_slice().to_vec()),
            AMQPValue::Void => Value::Void,
        }
    }
}

impl From<&Value> for AMQPValue {
    fn from(value: &Value) -> AMQPValue {
        match value {
            Value::Void => AMQPValue::Void,
            Value::Bool(b) => AMQPValue::Boolean(*b),
            Value::Int(i) => AMQPValue::LongLongInt(*i),
            Value::Float(f) => AMQPValue::Double(*f),
            Value::Bytes(b) => AMQPValue::LongString(b.clone().into()),
            Value::Timestamp(t) => AMQPValue::Timestamp(*t),
            Value::Decimal(scale, value) => AMQPValue::DecimalValue(amq_protocol::types::DecimalValue {
                scale: *scale,
                value: *value as u32,
            }),
            Value::Array(a) => {
                AMQPValue::FieldArray(a.iter().map(AMQPValue::from).collect::<Vec<_>>().into())
            }
            Value::Table(t) => AMQPValue::FieldTable(t.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_the_crate(class: &AMQPClass) -> Vec<u8> {
        protocol::gen_class(class)(Vec::new().into()).unwrap().into_inner().0
    }

    #[test]
    fn unknown_methods_are_told_from_malformed_ones() {
        assert_eq!(decode(&[0, 99, 0, 1]), Err(Error::Unknown { class_id: 99, method_id: 1 }));
        assert_eq!(decode(&[0, 50, 0, 10, 0]), Err(Error::Malformed { class_id: 50, method_id: 10 }));
        assert_eq!(decode(&[0, 50]), Err(Error::Short));
        assert_eq!(decode(&[0, 60, 0, 30, 1, 0xff, 0]), Err(Error::NotText));
        assert_eq!(decode(&[0, 60, 0, 40, 0, 0, 1, 0xff, 0, 0]), Err(Error::NotText));
        assert_eq!(
            decode(&[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9]),
            Err(Error::Malformed { class_id: 60, method_id: 80 })
        );
    }

    #[test]
    fn every_table_is_found_where_its_method_has_it() {
        let mut table = FieldTable::default();
        table.insert("x".into(), AMQPValue::Boolean(true));
        let with_tables = [
            AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
                client_properties: table.clone(),
                ..Default::default()
            })),
            AMQPClass::Exchange(exchange::AMQPMethod::Declare(exchange::Declare {
                exchange: "e".into(),
                arguments: table.clone(),
                ..Default::default()
            })),
            AMQPClass::Exchange(exchange::AMQPMethod::Bind(exchange::Bind {
                source: "e".into(),
                arguments: table.clone(),
                ..Default::default()
            })),
            AMQPClass::Exchange(exchange::AMQPMethod::Unbind(exchange::Unbind {
                source: "e".into(),
                arguments: table.clone(),
                ..Default::default()
            })),
            AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
                queue: "q".into(),
                arguments: table.clone(),
                ..Default::default()
            })),
            AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
                queue: "q".into(),
                arguments: table.clone(),
                ..Default::default()
            })),
            AMQPClass::Queue(queue::AMQPMethod::Unbind(queue::Unbind {
                queue: "q".into(),
                arguments: table.clone(),
                ..Default::default()
            })),
            AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
                queue: "q".into(),
                consumer_tag: "c".into(),
                arguments: table.clone(),
                ..Default::default()
            })),
        ];

        for class in with_tables {
            let bytes = of_the_crate(&class);
            assert_eq!(decode(&bytes), Ok(Method::Cold(Box::new(class))));
        }
    }

    proptest! {
        #[test]
        fn publish_is_read_as_the_crate_reads_it(
            exchange in ".{0,40}", routing_key in ".{0,40}", mandatory: bool, immediate: bool
        ) {
            let class = AMQPClass::Basic(basic::AMQPMethod::Publish(basic::Publish {
                exchange: exchange.as_str().into(),
                routing_key: routing_key.as_str().into(),
                mandatory,
                immediate,
            }));

            let bytes = of_the_crate(&class);
            let Ok(Method::Publish(publish)) = decode(&bytes) else { panic!("not a publish") };

            prop_assert_eq!(publish.exchange, exchange.as_str());
            prop_assert_eq!(publish.routing_key, routing_key.as_str());
            prop_assert_eq!((publish.mandatory, publish.immediate), (mandatory, immediate));
            prop_assert_eq!(split_address(publish.address), Some((exchange.as_str(), routing_key.as_str())));
            prop_assert_eq!(publish.address, &address(&exchange, &routing_key)[..]);
        }

        #[test]
        fn ack_is_read_and_written_as_the_crate_does(delivery_tag: u64, multiple: bool) {
            let class = AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple }));
            let bytes = of_the_crate(&class);
            let ack = Ack { delivery_tag, multiple };

            let mut out = BytesMut::new();
            put_ack(&mut out, ack);

            prop_assert_eq!(decode(&bytes), Ok(Method::Ack(ack)));
            prop_assert_eq!(&out[..], &bytes[..]);
        }

        #[test]
        fn deliver_is_written_as_the_crate_does(
            tag in "[ -~]{0,40}", delivery_tag: u64, redelivered: bool, exchange in ".{0,40}", key in ".{0,40}"
        ) {
            let class = AMQPClass::Basic(basic::AMQPMethod::Deliver(basic::Deliver {
                consumer_tag: tag.as_str().into(),
                delivery_tag,
                redelivered,
                exchange: exchange.as_str().into(),
                routing_key: key.as_str().into(),
            }));

            let mut out = BytesMut::new();
            let prefix = DeliverPrefix::new(&tag);
            let address = address(&exchange, &key);
            put_deliver(&mut out, &prefix, delivery_tag, redelivered, &address);

            prop_assert_eq!(out.len(), deliver_bytes(&prefix, &address));
            prop_assert_eq!(&out[..], &of_the_crate(&class)[..]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_arguments_of_known_methods_are_read_or_refused(
            class in prop::sample::select(vec![10u8, 20, 30, 40, 50, 60, 85, 90]), method in 10u8..121,
            rest in proptest::collection::vec(any::<u8>(), 0..60)
        ) {
            let mut bytes = vec![0, class, 0, method];
            bytes.extend(rest);
            let _ = decode(&bytes);
        }
    }
}
