//! Conversations: a handshake, then what clients say, made up by chance. One in six is valid from end to
//! end, and then the broker must agree; the others are sent on to be broken.

use amqp::method::{Ack, Cold, access, basic, channel, confirm, connection, exchange, queue, tx};
use amqp::{Table, Value, frame, limits};
use bytes::{BufMut, BytesMut};

use crate::client;
use crate::random::Random;

/// Names that all conversations share, so that they meet; the janitor clears them away.
pub const QUEUES: usize = 8;
pub const EXCHANGES: usize = 5;
pub const KINDS: [&str; 4] = ["direct", "fanout", "topic", "headers"];

/// Direct reply-to.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Frames of the handshake, the protocol header among them.
pub const HANDSHAKE: usize = 4;

pub struct Conversation {
    pub seed: u64,
    pub is_valid: bool,
    /// As they go out, the protocol header first.
    pub frames: Vec<Vec<u8>>,
    pub heartbeat_secs: u16,
    /// Chance left over, for how it is said.
    pub random: Random,
}

pub fn conversation(seed: u64) -> Conversation {
    let mut random = Random::new(seed);
    let is_valid = seed.is_multiple_of(6);
    let frame_bytes_max = random.one_of(&[4096, 131_072, 0]);
    let heartbeat_secs = random.one_of(&[0, 1, 60]);
    let mut frames = vec![limits::PROTOCOL_HEADER.to_vec()];
    let mut own = |method: &Cold| frames.push(method_frame(0, method));
    own(&client::start_ok("fuzz", (&client_properties(&mut random)).into()));
    own(&client::tune_ok(random.one_of(&[0, 2047]), frame_bytes_max, heartbeat_secs));
    own(&client::open());

    let numbers = [1, 2, random.one_of(&[3, 2047, 65535]), 4];
    let channels = 1 + random.below(numbers.len());
    let scripts = numbers[..channels].iter().map(|&number| {
        let frame_bytes_max = if frame_bytes_max == 0 { limits::FRAME_BYTES_MAX } else { frame_bytes_max };
        let random = Random::new(random.next());
        Script {
            seed,
            number,
            is_valid,
            frame_bytes_max,
            random,
            frames: Vec::new(),
            transacts: None,
            tags: 0,
        }
        .write()
    });
    merge(scripts.collect(), &mut frames, &mut random);
    if is_valid || random.once_in(2) {
        let close =
            connection::Close { reply_code: 200, reply_text: "bye".into(), class_id: 0, method_id: 0 };
        frames.push(method_frame(0, &Cold::Connection(connection::AMQPMethod::Close(close))));
    }
    Conversation { seed, is_valid, frames, heartbeat_secs, random }
}

fn client_properties(random: &mut Random) -> Table {
    let names =
        ["consumer_cancel_notify", "connection.blocked", "authentication_failure_close", "basic.nack"];
    let capabilities: Table = names.into_iter().map(|name| (name, Value::Bool(!random.once_in(4)))).collect();
    Table::from_iter([
        ("product", Value::text(random.one_of(&["fuzz", "py-amqp"]))),
        ("capabilities", Value::Table(capabilities)),
        ("more", Value::Table(table(random, 2))),
    ])
}

/// Puts the channels' frames between one another, each channel's own in order.
fn merge(channels: Vec<Vec<Vec<u8>>>, frames: &mut Vec<Vec<u8>>, random: &mut Random) {
    let mut channels: Vec<_> = channels.into_iter().map(|c| c.into_iter().peekable()).collect();
    while channels.iter_mut().any(|c| c.peek().is_some()) {
        let at = random.below(channels.len());
        let n = 1 + random.below(6);
        frames.extend(channels[at].by_ref().take(n));
    }
}

pub fn method_frame(channel: u16, method: &Cold) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::put_method(&mut out, channel, method);
    out.to_vec()
}

/// A table of any kinds of values.
fn table(random: &mut Random, depth: usize) -> Table {
    (0..random.below(4)).map(|n| (format!("k{n}"), value(random, depth))).collect()
}

fn value(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 7 } else { 9 }) {
        0 => Value::Void,
        1 => Value::Bool(random.once_in(2)),
        2 => Value::Int(random.next() as i64),
        3 => Value::Float(f64::from_bits(random.next())),
        4 => Value::Timestamp(random.next()),
        5 => Value::Decimal(random.next() as u8, random.next() as i32),
        6 => {
            let n = random.below(20);
            Value::Bytes(random.bytes(n))
        }
        7 => Value::Array((0..random.below(4)).map(|_| value(random, depth - 1)).collect()),
        _ => Value::Table(table(random, depth - 1)),
    }
}

/// Tables in tables as bytes, deeper than anybody could build them.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in (0..depth).rev() {
        bytes.put_u32((level * 7) as u32);
        if level > 0 {
            bytes.put_slice(b"\x01tF");
        }
    }
    bytes
}

/// What happens on one channel.
struct Script {
    seed: u64,
    number: u16,
    is_valid: bool,
    frame_bytes_max: u32,
    random: Random,
    frames: Vec<Vec<u8>>,
    /// Whether it is in tx mode rather than in confirm mode; `None` is neither.
    transacts: Option<bool>,
    tags: u32,
}

impl Script {
    fn write(mut self) -> Vec<Vec<u8>> {
        self.open();
        for _ in 0..3 + self.random.below(40) {
            self.step();
        }
        self.frames
    }

    fn put(&mut self, method: Cold) {
        self.frames.push(method_frame(self.number, &method));
    }

    fn open(&mut self) {
        self.put(Cold::Channel(channel::AMQPMethod::Open(channel::Open::default())));
        self.declare_queue();
        if !self.is_valid && self.random.once_in(2) {
            self.exchange_method();
        }
        self.transacts = None;
        if self.random.once_in(3) {
            self.put(Cold::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })));
            self.transacts = Some(false);
        } else if self.random.once_in(4) {
            self.put(Cold::Tx(tx::AMQPMethod::Select(tx::Select {})));
            self.transacts = Some(true);
        }
    }

    fn queue(&mut self) -> String {
        match self.is_valid {
            true => format!("fz-v{}-{}", self.seed, self.number),
            false if self.random.once_in(10) => String::new(),
            false => format!("fz-q{}", self.random.below(QUEUES)),
        }
    }

    fn exchange(&mut self) -> String {
        let all = ["", "amq.direct", "amq.fanout", "amq.topic", "amq.headers"];
        match self.is_valid {
            false if self.random.once_in(3) => format!("fz-x{}", self.random.below(EXCHANGES)),
            false if self.random.once_in(30) => "fz-nobody".into(),
            _ => self.random.one_of(&all).into(),
        }
    }

    fn key(&mut self) -> String {
        let random = &mut self.random;
        match random.below(6) {
            0 => "a".into(),
            1 => "a.b.c".into(),
            2 => "#.".repeat(random.below(120)) + "a",
            3 => "*.#.".repeat(random.below(60)) + "z",
            4 => "a.".repeat(random.below(127)) + "b",
            _ => ["a", "b", "*", "#", ""].map(|_| random.one_of(&["a", "b", "*", "#", ""])).join("."),
        }
    }

    fn declare_queue(&mut self) {
        let queue = self.queue();
        let arguments = match self.is_valid {
            true => Table::from_iter([("unknown", Value::Table(table(&mut self.random, 3)))]),
            false => self.queue_arguments(&queue),
        };
        // Mostly the same for the same name: otherwise one declare in two would end its channel.
        let is_durable = queue.ends_with(['0', '2', '4', '6']);
        let random = &mut self.random;
        let declare = queue::Declare {
            exclusive: self.is_valid || queue.is_empty() || random.once_in(40),
            durable: (is_durable != random.once_in(40)) && !self.is_valid,
            auto_delete: queue.ends_with('7') && !self.is_valid,
            passive: random.once_in(10) && !self.is_valid,
            nowait: random.once_in(4) && !self.is_valid,
            queue: queue.as_str().into(),
            arguments: (&arguments).into(),
        };
        if !self.is_valid && self.random.once_in(25) {
            return self.deep_declare();
        }
        self.put(Cold::Queue(queue::AMQPMethod::Declare(declare)));
    }

    /// By the name, so that most declares agree; queue 6 is asked for anything.
    fn queue_arguments(&mut self, queue: &str) -> Table {
        let random = &mut self.random;
        let mut arguments = table(random, 3);
        match queue {
            // What a mutation makes of a queue without a name would stay for ever.
            "" => arguments.insert("x-expires", Value::Int(2000)),
            "fz-q3" => arguments.insert("x-message-ttl", Value::Int(20)),
            "fz-q5" => arguments.insert("x-expires", Value::Int(300)),
            "fz-q6" if random.once_in(2) => {
                let names = [
                    "x-message-ttl",
                    "x-expires",
                    "x-queue-type",
                    "x-max-length",
                    "x-max-priority",
                    "x-overflow",
                ];
                let ms = Value::Int(random.one_of(&[0, 1, 50, 1 << 40, i64::MAX, -1]));
                let value = if random.once_in(2) { ms } else { value(random, 2) };
                arguments.insert(random.one_of(&names), value);
            }
            _ => {}
        }
        arguments
    }

    /// A queue.declare whose table is nested deeper than any table may be, or just as deep.
    fn deep_declare(&mut self) {
        let mut payload = vec![0, 50, 0, 10, 0, 0, 5];
        payload.put_slice(b"fz-q0");
        payload.put_u8(2); // durable
        // Without optimisation the crate needs more stack for the deepest that we allow than a thread of
        // the broker has, and the broker is gone: that is known, and no finding of this fuzzer.
        let deepest = if cfg!(debug_assertions) { 128 } else { 256 };
        payload.extend(nested(self.random.one_of(&[10, deepest - 1, deepest, 257, 5000, 18_000])));
        self.raw(1, &payload);
    }

    fn raw(&mut self, kind: u8, payload: &[u8]) {
        let mut out = vec![kind];
        out.put_u16(self.number);
        out.put_u32(payload.len() as u32);
        out.put_slice(payload);
        out.put_u8(limits::FRAME_END);
        self.frames.push(out);
    }

    fn step(&mut self) {
        match self.random.below(30) {
            0..=9 => self.publish(),
            10 | 11 => self.bind(),
            12 | 13 => self.consume(),
            14 | 15 => self.settle(),
            16 => self.get(),
            17 => self.qos(),
            18 => self.put(Cold::Basic(basic::AMQPMethod::Recover(basic::Recover { requeue: true }))),
            19 => self.cancel(),
            20 => self.purge_or_delete(),
            21 | 22 => self.exchange_method(),
            23 | 24 if self.transacts == Some(true) => self.commit_or_rollback(),
            25 if self.random.once_in(3) => self.close(),
            26 => self.put(Cold::Channel(channel::AMQPMethod::Flow(channel::Flow { active: true }))),
            27 => self.put(Cold::Access(access::AMQPMethod::Request(access::Request {
                realm: "/data".into(),
                ..Default::default()
            }))),
            28 => self.frames.push(vec![8, 0, 0, 0, 0, 0, 0, limits::FRAME_END]),
            29 if !self.is_valid => self.declare_queue(),
            _ => self.publish(),
        }
    }

    fn publish(&mut self) {
        let exchange = self.exchange();
        let routing_key = if exchange.is_empty() { self.queue() } else { self.key() };
        let publish = basic::Publish {
            exchange: exchange.as_str().into(),
            routing_key: routing_key.as_str().into(),
            mandatory: self.random.once_in(4),
            immediate: !self.is_valid && self.random.once_in(60),
        };
        self.put(Cold::Basic(basic::AMQPMethod::Publish(publish)));
        let part_max = self.frame_bytes_max as usize - limits::FRAME_OVERHEAD_BYTES;
        let sizes = [0, 1, 16, 1000, 5000, part_max, part_max + 1, 300_000];
        let size = if self.random.once_in(8) { self.random.one_of(&sizes) } else { self.random.below(200) };
        let properties = self.properties();
        let mut out = BytesMut::new();
        frame::put_header(&mut out, self.number, size as u64, &properties);
        self.frames.push(out.to_vec());
        let body = vec![self.number as u8; size];
        let mut rest = &body[..];
        while !rest.is_empty() {
            let n = match self.random.below(5) {
                0 => 0,
                1 => 1,
                2 => self.random.below(rest.len() + 1),
                _ => rest.len(),
            };
            let (part, left) = rest.split_at(n.min(part_max));
            rest = left;
            self.raw(3, part);
        }
    }

    /// Property flags and properties, made by hand so that every flag has its turn.
    fn properties(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let flags = if random.once_in(3) { 0x1000 } else { (random.next() as u16) & 0xfffc };
        let mut out = Vec::new();
        out.put_u16(flags);
        for bit in (2..16).rev().filter(|bit| flags & (1 << bit) != 0) {
            match bit {
                13 if !self.is_valid && random.once_in(20) => {
                    out.extend(nested(random.one_of(&[255, 256, 257, 4000])))
                }
                13 => {
                    let mut headers = table(random, 3);
                    headers.insert("CC", Value::Array(vec![value(random, 1), Value::text("fz-q1")]));
                    headers.encode(&mut out);
                }
                12 => out.put_u8(random.one_of(&[1, 2])),
                11 => out.put_u8(random.next() as u8),
                6 => out.put_u64(random.next()),
                8 => put_text(&mut out, random.one_of(&["0", "1", "60000"])),
                4 => put_text(&mut out, "fuzz"),
                9 if !self.is_valid => put_text(&mut out, random.one_of(&[REPLY_TO, "somewhere"])),
                _ => put_text(&mut out, random.one_of(&["", "text", "a somewhat longer text"])),
            }
        }
        out
    }

    fn bind(&mut self) {
        let (queue, key) = (self.queue(), self.key());
        let exchange = match self.exchange() {
            exchange if exchange.is_empty() => "amq.topic".to_string(),
            exchange => exchange,
        };
        let random = &mut self.random;
        let mut arguments = table(random, 2);
        if random.once_in(2) {
            let kind = random.one_of(&["all", "any", "all-with-x", "any-with-x"]);
            arguments.insert("x-match", Value::text(kind));
        }
        let arguments = (&arguments).into();
        if random.once_in(4) {
            return self.put(Cold::Queue(queue::AMQPMethod::Unbind(queue::Unbind {
                queue: queue.as_str().into(),
                exchange: exchange.as_str().into(),
                routing_key: key.as_str().into(),
                arguments,
            })));
        }
        self.put(Cold::Queue(queue::AMQPMethod::Bind(queue::Bind {
            queue: queue.as_str().into(),
            exchange: exchange.as_str().into(),
            routing_key: key.as_str().into(),
            nowait: false,
            arguments,
        })));
    }

    fn consume(&mut self) {
        self.tags += 1;
        let queue = match self.random.once_in(6) && !self.is_valid {
            true => REPLY_TO.into(),
            false => self.queue(),
        };
        let consume = basic::Consume {
            queue: queue.as_str().into(),
            consumer_tag: format!("c{}", self.tags).as_str().into(),
            no_ack: self.random.once_in(2),
            exclusive: !self.is_valid && self.random.once_in(10),
            nowait: self.random.once_in(4),
            ..Default::default()
        };
        self.put(Cold::Basic(basic::AMQPMethod::Consume(consume)));
    }

    /// Settles all there is, or (where an error does no harm) a delivery that is guessed.
    fn settle(&mut self) {
        let random = &mut self.random;
        let guesses = !self.is_valid && random.once_in(4);
        let delivery_tag = if guesses { random.one_of(&[1, 1, 2, 3, 5, u64::MAX]) } else { 0 };
        let multiple = !guesses || random.once_in(2);
        let requeue = random.once_in(2);
        match random.below(if guesses { 3 } else { 2 }) {
            0 => {
                let mut out = BytesMut::new();
                frame::put_ack(&mut out, self.number, Ack { delivery_tag, multiple });
                self.frames.push(out.to_vec());
            }
            1 => {
                let nack = basic::Nack { delivery_tag, multiple, requeue };
                self.put(Cold::Basic(basic::AMQPMethod::Nack(nack)));
            }
            _ => {
                let reject = basic::Reject { delivery_tag, requeue };
                self.put(Cold::Basic(basic::AMQPMethod::Reject(reject)));
            }
        }
    }

    fn get(&mut self) {
        let get = basic::Get { queue: self.queue().as_str().into(), no_ack: self.random.once_in(2) };
        self.put(Cold::Basic(basic::AMQPMethod::Get(get)));
    }

    fn qos(&mut self) {
        let prefetch_count = self.random.one_of(&[0, 1, 10, 65535]);
        let qos = basic::Qos { prefetch_count, global: self.random.once_in(2) };
        self.put(Cold::Basic(basic::AMQPMethod::Qos(qos)));
    }

    fn cancel(&mut self) {
        let consumer_tag = format!("c{}", self.random.below(4));
        let nowait = self.random.once_in(3);
        let cancel = basic::Cancel { consumer_tag: consumer_tag.as_str().into(), nowait };
        self.put(Cold::Basic(basic::AMQPMethod::Cancel(cancel)));
    }

    fn purge_or_delete(&mut self) {
        let queue = self.queue();
        if self.is_valid || self.random.once_in(2) {
            let purge = queue::Purge { queue: queue.as_str().into(), nowait: self.random.once_in(3) };
            return self.put(Cold::Queue(queue::AMQPMethod::Purge(purge)));
        }
        let delete = queue::Delete {
            queue: queue.as_str().into(),
            if_unused: self.random.once_in(4),
            if_empty: self.random.once_in(4),
            nowait: self.random.once_in(3),
        };
        self.put(Cold::Queue(queue::AMQPMethod::Delete(delete)));
    }

    fn exchange_method(&mut self) {
        if self.is_valid {
            let declare = exchange::Declare {
                exchange: "amq.topic".into(),
                kind: "topic".into(),
                passive: true,
                ..Default::default()
            };
            return self.put(Cold::Exchange(exchange::AMQPMethod::Declare(declare)));
        }
        let number = self.random.below(EXCHANGES);
        let (name, key) = (format!("fz-x{number}"), self.key());
        let arguments = (&table(&mut self.random, 2)).into();
        let random = &mut self.random;
        let nowait = random.once_in(4);
        let method = match random.below(6) {
            0 => exchange::AMQPMethod::Delete(exchange::Delete {
                exchange: name.as_str().into(),
                if_unused: random.once_in(2),
                nowait,
            }),
            1 | 2 => exchange::AMQPMethod::Bind(exchange::Bind {
                destination: format!("fz-x{}", random.below(EXCHANGES)).as_str().into(),
                source: name.as_str().into(),
                routing_key: key.as_str().into(),
                nowait,
                arguments,
            }),
            3 => exchange::AMQPMethod::Unbind(exchange::Unbind {
                destination: format!("fz-x{}", random.below(EXCHANGES)).as_str().into(),
                source: name.as_str().into(),
                routing_key: key.as_str().into(),
                nowait,
                arguments,
            }),
            _ => exchange::AMQPMethod::Declare(exchange::Declare {
                // Mostly of one kind per name, so that most declares agree.
                kind: if random.once_in(8) { "x-none" } else { KINDS[number % KINDS.len()] }.into(),
                exchange: name.as_str().into(),
                durable: number.is_multiple_of(2),
                auto_delete: random.once_in(10),
                internal: random.once_in(20),
                passive: random.once_in(8),
                nowait,
                arguments,
            }),
        };
        self.put(Cold::Exchange(method));
    }

    fn commit_or_rollback(&mut self) {
        let method = match self.random.once_in(4) {
            true => tx::AMQPMethod::Rollback(tx::Rollback {}),
            false => tx::AMQPMethod::Commit(tx::Commit {}),
        };
        self.put(Cold::Tx(method));
    }

    /// Closes the channel and opens it again.
    fn close(&mut self) {
        let close = channel::Close { reply_code: 200, reply_text: "bye".into(), class_id: 0, method_id: 0 };
        self.put(Cold::Channel(channel::AMQPMethod::Close(close)));
        self.open();
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}
