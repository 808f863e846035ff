//! The codec's hot paths beside amq-protocol's own way of doing the same.
//!
//! `cargo bench -p garenne-amqp --bench codec`; `ours` and `crate` of a group do the same work. Ours keeps
//! bodies and properties as parts of the read buffer, and properties unread until somebody asks.

use std::hint::black_box;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::basic::AMQPProperties;
use amq_protocol::protocol::{self, AMQPClass};
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use garenne_amqp::frame::{self, Frames};
use garenne_amqp::method::{self, AMQPValue, Ack, DeliverPrefix, FieldTable, basic, queue};
use garenne_amqp::{FrameKind, Header, Method, Properties, Table, table};

/// What a read brings when a client publishes as fast as it can: many messages at a time.
const MESSAGES: usize = 64;

const FRAME_BYTES_MAX: u32 = 131_072;

fn by_the_crate(frames: &[AMQPFrame]) -> Vec<u8> {
    frames
        .iter()
        .fold(Vec::new(), |out, frame| gen_frame(frame)(out.into()).expect("a Vec takes all").into_inner().0)
}

fn properties() -> AMQPProperties {
    AMQPProperties::default().with_content_type("application/json".into()).with_delivery_mode(2)
}

fn content(body: &[u8]) -> [AMQPFrame; 2] {
    let header = AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties: properties() };
    [AMQPFrame::Header(1, header), AMQPFrame::Body(1, body.to_vec())]
}

fn publishes(body_bytes: usize) -> Bytes {
    let publish =
        basic::Publish { exchange: "orders".into(), routing_key: "eu.created".into(), ..Default::default() };
    let [header, body] = content(&vec![7; body_bytes]);
    let method = AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
    by_the_crate(&[method, header, body]).repeat(MESSAGES).into()
}

/// From the read buffer to method, header and body, all fields that routing needs read.
fn decode_publish(c: &mut Criterion) {
    for (name, body_bytes) in [("decode publish, 16 B", 16), ("decode publish, 1 KiB", 1024)] {
        let whole = publishes(body_bytes);
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(MESSAGES as u64));
        group.bench_function("ours", |b| {
            b.iter(|| {
                let (n, bad) = frame::whole(&whole, FRAME_BYTES_MAX);
                assert!(bad.is_none());
                let input = whole.slice(..n);
                for frame in Frames::new(&input) {
                    match frame.kind {
                        FrameKind::Method => drop(black_box(method::decode(frame.payload))),
                        FrameKind::Header => {
                            let header = Header::decode(&input, frame.payload).expect("a header");
                            black_box(
                                Properties::parse(&header.properties).expect("properties").is_persistent(),
                            );
                            black_box(header);
                        }
                        _ => drop(black_box(input.slice_ref(frame.payload))),
                    }
                }
            });
        });
        group.bench_function("crate", |b| {
            b.iter(|| {
                let mut rest = &whole[..];
                while let Ok((left, frame)) = parse_frame(rest) {
                    black_box(frame);
                    rest = left;
                }
                assert!(rest.is_empty());
            });
        });
        group.finish();
    }
}

fn encode_deliver(c: &mut Criterion) {
    let address = method::address("orders", "eu.created");
    let prefix = DeliverPrefix::new("worker-1");
    for (name, body_bytes) in [("encode delivery, 16 B", 16), ("encode delivery, 1 KiB", 1024)] {
        let body = vec![7; body_bytes];
        let written = publishes(body_bytes);
        let header = Frames::new(&written).nth(1).expect("a header");
        let properties = Header::decode(&written, header.payload).expect("a header").properties;
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(MESSAGES as u64));
        group.bench_function("ours", |b| {
            let mut out = BytesMut::with_capacity(MESSAGES * (body_bytes + 200));
            b.iter(|| {
                out.clear();
                for tag in 0..MESSAGES as u64 {
                    frame::put_deliver(&mut out, 1, &prefix, tag, false, &address);
                    frame::put_header(&mut out, 1, body.len() as u64, &properties);
                    frame::put_body(&mut out, 1, &body);
                }
                black_box(out.len())
            });
        });
        group.bench_function("crate", |b| {
            let [header, body] = content(&body);
            b.iter(|| {
                let mut out = Vec::with_capacity(MESSAGES * (body_bytes + 200));
                for delivery_tag in 0..MESSAGES as u64 {
                    let deliver = basic::Deliver {
                        consumer_tag: "worker-1".into(),
                        delivery_tag,
                        redelivered: false,
                        exchange: "orders".into(),
                        routing_key: "eu.created".into(),
                    };
                    let method = AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)));
                    for frame in [&method, &header, &body] {
                        out = gen_frame(frame)(out.into()).expect("a Vec takes all").into_inner().0;
                    }
                }
                black_box(out.len())
            });
        });
        group.finish();
    }
}

fn ack(c: &mut Criterion) {
    let ack = Ack { delivery_tag: 123_456, multiple: false };
    let mut payload = BytesMut::new();
    method::put_ack(&mut payload, ack);
    let mut group = c.benchmark_group("decode ack");
    group.bench_function("ours", |b| b.iter(|| drop(black_box(method::decode(black_box(&payload))))));
    group.bench_function("crate", |b| {
        b.iter(|| drop(black_box(protocol::parse_class(black_box(&payload[..])))))
    });
    group.finish();

    let mut group = c.benchmark_group("encode ack");
    let mut out = BytesMut::with_capacity(64);
    group.bench_function("ours", |b| {
        b.iter(|| {
            out.clear();
            frame::put_ack(&mut out, 1, black_box(ack));
            black_box(&out);
        });
    });
    group.bench_function("crate", |b| {
        b.iter(|| {
            let Ack { delivery_tag, multiple } = black_box(ack);
            let class = AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple }));
            by_the_crate(&[AMQPFrame::Method(1, class)])
        });
    });
    group.finish();
}

fn arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(60_000));
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1_000_000));
    arguments
}

/// Ours is the crate's with a check of the table before.
fn cold(c: &mut Criterion) {
    let declare = queue::Declare {
        queue: "orders".into(),
        durable: true,
        arguments: arguments(),
        ..Default::default()
    };
    let mut payload = BytesMut::new();
    method::put(&mut payload, &AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    let Ok(Method::Cold(_)) = method::decode(&payload) else { panic!("not a declare") };
    let mut group = c.benchmark_group("decode queue.declare");
    group.bench_function("ours", |b| b.iter(|| drop(black_box(method::decode(black_box(&payload))))));
    group.bench_function("crate", |b| {
        b.iter(|| drop(black_box(protocol::parse_class(black_box(&payload[..])))))
    });
    group.finish();
}

fn tables(c: &mut Criterion) {
    let mut bytes = Vec::new();
    Table::from(&arguments()).encode(&mut bytes);
    let mut group = c.benchmark_group("decode table of three");
    group.bench_function("ours", |b| b.iter(|| Table::decode(black_box(&bytes))));
    group.bench_function("ours, check only", |b| b.iter(|| table::check(black_box(&bytes))));
    group.bench_function("crate", |b| {
        b.iter(|| drop(black_box(amq_protocol::types::parsing::parse_field_table(black_box(&bytes[..])))));
    });
    group.finish();
}

criterion_group!(benches, decode_publish, encode_deliver, ack, cold, tables);
criterion_main!(benches);
