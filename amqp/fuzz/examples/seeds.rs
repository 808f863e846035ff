//! Writes the seed corpora: every method that clients and brokers send, headers, tables and a
//! conversation, as they go over the wire.
//!
//! `cargo run --manifest-path amqp/fuzz/Cargo.toml --example seeds [CORPUS_DIR]`

use std::path::PathBuf;

use amq_protocol::protocol::basic::{AMQPProperties, gen_properties};
use amqp::method::{
    self, AMQPValue, Ack, Cold, DeliverPrefix, FieldTable, access, basic, channel, confirm, connection,
    exchange, queue, tx,
};
use amqp::{Header, Table, Value, frame};
use bytes::BytesMut;

fn main() -> std::io::Result<()> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let corpus = std::env::args().nth(1).map_or(default, PathBuf::from);
    let write = |target: &str, name: String, bytes: &[u8]| {
        let dir = corpus.join(target);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(format!("seed-{name}")), bytes)
    };
    let mut conversation = BytesMut::from(&[1][..]);
    for (n, method) in methods().iter().enumerate() {
        let mut payload = BytesMut::new();
        method::put(&mut payload, method);
        write(
            "method",
            format!("{n:02}-{}-{}", method.get_amqp_class_id(), method.get_amqp_method_id()),
            &payload,
        )?;
        frame::put_method(&mut conversation, n as u16 % 4, method);
    }
    for n in 0..4u8 {
        let mut out = BytesMut::from(&[n][..]);
        frame::put_ack(&mut out, 1, Ack { delivery_tag: 1 << (8 * n), multiple: n % 2 == 0 });
        frame::put_deliver(&mut out, 1, &DeliverPrefix::new("tag"), 7, true, &method::address("e", "key"));
        frame::put_header(&mut out, 1, 5, &properties());
        frame::put_body(&mut out, 1, b"he");
        frame::put_body(&mut out, 1, b"llo");
        frame::put_heartbeat(&mut out);
        write("frame", format!("delivery-{n}"), &out)?;
        out.truncate(out.len() - usize::from(n) - 1);
        write("frame", format!("cut-{n}"), &out)?;
    }
    write("frame", "conversation".into(), &conversation)?;
    for (n, properties) in
        [properties(), vec![0, 0], vec![0x10, 0, 2], vec![0x80, 0, 1, b'a']].iter().enumerate()
    {
        let mut out = BytesMut::new();
        Header::put(&mut out, 1 << (10 * n), properties);
        write("content", format!("header-{n}"), &out)?;
        write("content", format!("properties-{n}"), properties)?;
    }
    for (n, table) in [Table::new(), flat(), nested(3), nested(255)].iter().enumerate() {
        let mut out = Vec::new();
        table.encode(&mut out);
        write("table", format!("{n}"), &out)?;
    }
    let mut deep = BytesMut::new();
    method::put(&mut deep, &declare((&nested(250)).into()));
    write("method", "deep".into(), &deep)?;
    write("table", "plain".into(), b"\0guest\0guest")?;
    let mut login = Vec::new();
    Table::from_iter([("LOGIN", Value::text("guest")), ("PASSWORD", Value::text("guest"))])
        .encode(&mut login);
    write("table", "amqplain".into(), &login[4..])
}

fn declare(arguments: FieldTable) -> Cold {
    let declare = queue::Declare { queue: "q".into(), durable: true, arguments, ..Default::default() };
    Cold::Queue(queue::AMQPMethod::Declare(declare))
}

/// One value of every kind.
fn flat() -> Table {
    Table::from_iter([
        ("void", Value::Void),
        ("yes", Value::Bool(true)),
        ("int", Value::Int(-7)),
        ("float", Value::Float(0.5)),
        ("text", Value::text("text")),
        ("when", Value::Timestamp(1)),
        ("price", Value::Decimal(2, 199)),
        ("list", Value::Array(vec![Value::Int(1), Value::Array(vec![Value::Void])])),
        ("table", Value::Table(Table::from_iter([("x", Value::Int(2))]))),
    ])
}

fn nested(depth: usize) -> Table {
    (1..depth).fold(Table::new(), |inner, _| Table::from_iter([("t", Value::Table(inner))]))
}

/// The crate's narrow numbers, which our own tables do not write.
fn fields() -> FieldTable {
    let mut fields = FieldTable::from(&flat());
    for (name, value) in [
        ("b", AMQPValue::ShortShortInt(-1)),
        ("B", AMQPValue::ShortShortUInt(1)),
        ("s", AMQPValue::ShortInt(-2)),
        ("u", AMQPValue::ShortUInt(2)),
        ("I", AMQPValue::LongInt(-3)),
        ("i", AMQPValue::LongUInt(3)),
        ("f", AMQPValue::Float(1.5)),
        ("x", AMQPValue::ByteArray(vec![0, 255].into())),
    ] {
        fields.insert(name.into(), value);
    }
    fields
}

fn properties() -> Vec<u8> {
    let all = AMQPProperties::default()
        .with_content_type("ct".into())
        .with_content_encoding("ce".into())
        .with_headers(fields())
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("ci".into())
        .with_reply_to("rt".into())
        .with_expiration("10".into())
        .with_message_id("mi".into())
        .with_timestamp(7)
        .with_type("k".into())
        .with_user_id("guest".into())
        .with_app_id("app".into())
        .with_cluster_id("cl".into());
    gen_properties(&all)(Vec::new().into()).expect("a Vec takes all").into_inner().0
}

fn methods() -> Vec<Cold> {
    use basic::AMQPMethod as B;
    use channel::AMQPMethod as Ch;
    use connection::AMQPMethod as C;
    use exchange::AMQPMethod as E;
    use queue::AMQPMethod as Q;
    let (arguments, key) = (fields(), "a.b");
    let mut all = vec![
        Cold::Connection(C::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: arguments.clone(),
            mechanisms: "PLAIN AMQPLAIN".into(),
            locales: "en_US".into(),
        })),
        Cold::Connection(C::StartOk(connection::StartOk {
            client_properties: arguments.clone(),
            mechanism: "PLAIN".into(),
            response: "\0guest\0guest".into(),
            locale: "en_US".into(),
        })),
        Cold::Connection(C::Tune(connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 })),
        Cold::Connection(C::TuneOk(connection::TuneOk { channel_max: 2047, frame_max: 4096, heartbeat: 1 })),
        Cold::Connection(C::Open(connection::Open { virtual_host: "/".into() })),
        Cold::Connection(C::OpenOk(Default::default())),
        Cold::Connection(C::Close(connection::Close {
            reply_code: 200,
            reply_text: "bye".into(),
            class_id: 60,
            method_id: 40,
        })),
        Cold::Connection(C::CloseOk(Default::default())),
        Cold::Connection(C::UpdateSecret(connection::UpdateSecret {
            new_secret: "s".into(),
            reason: "r".into(),
        })),
        Cold::Connection(C::Blocked(connection::Blocked { reason: "disk".into() })),
        Cold::Connection(C::Unblocked(Default::default())),
        Cold::Channel(Ch::Open(Default::default())),
        Cold::Channel(Ch::OpenOk(Default::default())),
        Cold::Channel(Ch::Flow(channel::Flow { active: true })),
        Cold::Channel(Ch::Close(channel::Close {
            reply_code: 404,
            reply_text: "gone".into(),
            class_id: 50,
            method_id: 10,
        })),
        Cold::Channel(Ch::CloseOk(Default::default())),
        Cold::Access(access::AMQPMethod::Request(access::Request {
            realm: "/data".into(),
            active: true,
            ..Default::default()
        })),
        Cold::Exchange(E::Declare(exchange::Declare {
            exchange: "e".into(),
            kind: "topic".into(),
            durable: true,
            arguments: arguments.clone(),
            ..Default::default()
        })),
        Cold::Exchange(E::DeclareOk(Default::default())),
        Cold::Exchange(E::Delete(exchange::Delete { exchange: "e".into(), if_unused: true, nowait: false })),
        Cold::Exchange(E::Bind(exchange::Bind {
            destination: "d".into(),
            source: "s".into(),
            routing_key: key.into(),
            nowait: false,
            arguments: arguments.clone(),
        })),
        Cold::Exchange(E::Unbind(exchange::Unbind {
            destination: "d".into(),
            source: "s".into(),
            routing_key: key.into(),
            nowait: true,
            arguments: arguments.clone(),
        })),
        declare(arguments.clone()),
        Cold::Queue(Q::DeclareOk(queue::DeclareOk {
            queue: "q".into(),
            message_count: 1,
            consumer_count: 2,
        })),
        Cold::Queue(Q::Bind(queue::Bind {
            queue: "q".into(),
            exchange: "e".into(),
            routing_key: key.into(),
            nowait: false,
            arguments: arguments.clone(),
        })),
        Cold::Queue(Q::Unbind(queue::Unbind {
            queue: "q".into(),
            exchange: "e".into(),
            routing_key: key.into(),
            arguments: arguments.clone(),
        })),
        Cold::Queue(Q::Purge(queue::Purge { queue: "q".into(), nowait: false })),
        Cold::Queue(Q::Delete(queue::Delete {
            queue: "q".into(),
            if_unused: true,
            if_empty: true,
            nowait: false,
        })),
        Cold::Basic(B::Qos(basic::Qos { prefetch_count: 10, global: true })),
        Cold::Basic(B::Consume(basic::Consume {
            queue: "q".into(),
            consumer_tag: "c".into(),
            no_local: false,
            no_ack: true,
            exclusive: true,
            nowait: false,
            arguments,
        })),
        Cold::Basic(B::ConsumeOk(basic::ConsumeOk { consumer_tag: "c".into() })),
        Cold::Basic(B::Cancel(basic::Cancel { consumer_tag: "c".into(), nowait: false })),
        Cold::Basic(B::Publish(basic::Publish {
            exchange: "e".into(),
            routing_key: key.into(),
            mandatory: true,
            immediate: false,
        })),
        Cold::Basic(B::Return(basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            exchange: "e".into(),
            routing_key: key.into(),
        })),
        Cold::Basic(B::Deliver(basic::Deliver {
            consumer_tag: "c".into(),
            delivery_tag: 1,
            redelivered: true,
            exchange: "e".into(),
            routing_key: key.into(),
        })),
        Cold::Basic(B::Get(basic::Get { queue: "q".into(), no_ack: true })),
        Cold::Basic(B::GetOk(basic::GetOk {
            delivery_tag: 1,
            redelivered: false,
            exchange: "e".into(),
            routing_key: key.into(),
            message_count: 3,
        })),
        Cold::Basic(B::GetEmpty(Default::default())),
        Cold::Basic(B::Ack(basic::Ack { delivery_tag: 5, multiple: true })),
        Cold::Basic(B::Reject(basic::Reject { delivery_tag: 5, requeue: true })),
        Cold::Basic(B::Recover(basic::Recover { requeue: true })),
        Cold::Basic(B::RecoverAsync(basic::RecoverAsync { requeue: true })),
        Cold::Basic(B::Nack(basic::Nack { delivery_tag: 5, multiple: true, requeue: true })),
        Cold::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })),
    ];
    all.extend([
        Cold::Tx(tx::AMQPMethod::Select(Default::default())),
        Cold::Tx(tx::AMQPMethod::Commit(Default::default())),
        Cold::Tx(tx::AMQPMethod::Rollback(Default::default())),
    ]);
    all
}
