//! A client that says what a test tells it to, and checks what it hears.
//!
//! Events are taken channel by channel: what another channel hears meanwhile waits for its turn. Every
//! wait has an end.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use amqp::method::{Cold, FieldTable, basic, channel, confirm, connection, exchange, queue, tx};
use amqp::{FrameKind, Header, ReplyCode, Table, Value, frame, method};
use bytes::BytesMut;

use super::events::{Event, Message, Method};
use super::{PATIENCE, wire};

/// Who a client is and what it asks for.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub vhost: String,
    /// What tune-ok says; what tune proposes if `None`.
    pub frame_max: Option<u32>,
    /// What tune-ok says; what tune proposes if `None`.
    pub channel_max: Option<u16>,
    pub heartbeat: u16,
    pub properties: Table,
}

impl Default for Login {
    fn default() -> Self {
        const CAPABILITIES: [&str; 5] = [
            "publisher_confirms",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "authentication_failure_close",
        ];
        let capabilities = CAPABILITIES.iter().map(|&name| (name, Value::Bool(true))).collect();
        Login {
            user: "guest".into(),
            password: "guest".into(),
            vhost: "/".into(),
            frame_max: None,
            channel_max: None,
            heartbeat: 0,
            properties: Table::from_iter([("capabilities", Value::Table(capabilities))]),
        }
    }
}

impl Login {
    /// Somebody else than guest.
    pub fn of(user: &str, password: &str) -> Login {
        Login { user: user.into(), password: password.into(), ..Login::default() }
    }

    /// A client that says nothing of itself.
    pub fn without_capabilities(self) -> Login {
        Login { properties: Table::new(), ..self }
    }

    pub fn start_ok(&self) -> connection::StartOk {
        connection::StartOk {
            client_properties: (&self.properties).into(),
            mechanism: "PLAIN".into(),
            response: format!("\0{}\0{}", self.user, self.password).as_bytes().into(),
            locale: "en_US".into(),
        }
    }
}

/// A client. What it says and hears is on channel 1, unless [`Client::on`] says otherwise.
pub struct Client {
    stream: TcpStream,
    buffer: BytesMut,
    frame_max: u32,
    channel: u16,
    heard: HashMap<u16, VecDeque<Event>>,
    half: HashMap<u16, Half>,
    gone: bool,
}

/// A message of which not all has come.
struct Half {
    method: Box<Cold>,
    header: Option<Header>,
    body: Vec<u8>,
    parts: Vec<usize>,
}

/// What comes next, if anything.
enum Next {
    Event(Event),
    Closed,
    Silence,
}

impl Client {
    // Coming and going ------------------------------------------------------------------------------

    /// A socket, and nothing said.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        Client::of(TcpStream::connect(address).expect("a broker that listens"))
    }

    fn of(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("a socket");
        // A test that waits for the broker to take something fails in the end, too.
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Client {
            stream,
            buffer: BytesMut::new(),
            frame_max: amqp::limits::FRAME_BYTES_MAX,
            channel: 1,
            heard: HashMap::new(),
            half: HashMap::new(),
            gone: false,
        }
    }

    /// The whole handshake, and channel 1.
    #[track_caller]
    pub fn open(address: SocketAddr, login: &Login) -> Client {
        let mut client = Client::connect(address);
        client.shake_hands(login);
        client.open_channel(1);
        client
    }

    /// The same over a socket that takes little while nobody reads from it.
    #[track_caller]
    pub fn open_with_small_buffer(address: SocketAddr) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(64 * 1024)?;
            socket.connect(address).await?.into_std()
        });
        let stream = stream.expect("a broker that listens");
        stream.set_nonblocking(false).expect("a socket");
        let mut client = Client::of(stream);
        client.shake_hands(&Login::default());
        client.open_channel(1);
        client
    }

    /// The handshake up to connection.open-ok.
    #[track_caller]
    pub fn shake_hands(&mut self, login: &Login) {
        self.ask_to_open(login);
        self.on(0).expect(connection::OpenOk {});
    }

    /// The handshake up to connection.open, which may be refused.
    #[track_caller]
    pub fn ask_to_open(&mut self, login: &Login) {
        self.begin(login);
        self.on(0).send(connection::Open { virtual_host: login.vhost.as_str().into() });
    }

    /// The handshake up to tune-ok.
    #[track_caller]
    pub fn begin(&mut self, login: &Login) {
        self.log_in(login);
        let tune = self.expect_tune();
        let frame_max = login.frame_max.unwrap_or(tune.frame_max);
        self.frame_max = frame_max;
        self.on(0).send(connection::TuneOk {
            channel_max: login.channel_max.unwrap_or(tune.channel_max),
            frame_max,
            heartbeat: login.heartbeat,
        });
    }

    /// The handshake up to start-ok.
    #[track_caller]
    pub fn log_in(&mut self, login: &Login) {
        self.send_raw(&amqp::limits::PROTOCOL_HEADER);
        self.expect_start();
        self.on(0).send(login.start_ok());
    }

    /// connection.start; its server properties and the rest.
    #[track_caller]
    pub fn expect_start(&mut self) -> connection::Start {
        match self.on(0).method() {
            Cold::Connection(connection::AMQPMethod::Start(start)) => start,
            other => panic!("connection.start was expected, not {other:?}"),
        }
    }

    /// connection.tune.
    #[track_caller]
    pub fn expect_tune(&mut self) -> connection::Tune {
        match self.on(0).method() {
            Cold::Connection(connection::AMQPMethod::Tune(tune)) => tune,
            other => panic!("connection.tune was expected, not {other:?}"),
        }
    }

    /// Opens a channel.
    #[track_caller]
    pub fn open_channel(&mut self, number: u16) {
        self.on(number).send(channel::Open {});
        self.on(number).expect(channel::OpenOk {});
    }

    /// Closes the channel, and waits for the answer.
    #[track_caller]
    pub fn close_channel(&mut self) {
        self.send(channel::Close { reply_code: 200, reply_text: "bye".into(), class_id: 0, method_id: 0 });
        self.expect(channel::CloseOk {});
    }

    /// Closes the connection, and waits for the answer.
    #[track_caller]
    pub fn close(&mut self) {
        self.on(0).send(connection::Close {
            reply_code: 200,
            reply_text: "bye".into(),
            class_id: 0,
            method_id: 0,
        });
        self.on(0).expect(connection::CloseOk {});
    }

    /// The same client on another channel.
    pub fn on(&mut self, channel: u16) -> On<'_> {
        let before = std::mem::replace(&mut self.channel, channel);
        On { client: self, before }
    }

    // Saying ----------------------------------------------------------------------------------------

    /// Says a method.
    #[track_caller]
    pub fn send(&mut self, method: impl Method) {
        let bytes = wire::method(self.channel, method);
        self.send_raw(&bytes);
    }

    /// Says any bytes.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).expect("a broker that takes what it is told");
    }

    /// Says any bytes to a broker that may be gone.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Publishes a message without properties.
    #[track_caller]
    pub fn publish(&mut self, exchange: &str, routing_key: &str, body: impl AsRef<[u8]>) {
        self.publish_with(exchange, routing_key, wire::NO_PROPERTIES, body);
    }

    /// Publishes a persistent message.
    #[track_caller]
    pub fn publish_persistent(&mut self, exchange: &str, routing_key: &str, body: impl AsRef<[u8]>) {
        self.publish_with(exchange, routing_key, wire::PERSISTENT, body);
    }

    /// Publishes a message that has to be returned if no queue takes it.
    #[track_caller]
    pub fn publish_mandatory(&mut self, exchange: &str, routing_key: &str, body: impl AsRef<[u8]>) {
        let (exchange, routing_key) = (exchange.into(), routing_key.into());
        let method = basic::Publish { exchange, routing_key, mandatory: true, immediate: false };
        let bytes = self.content(method, wire::NO_PROPERTIES, body.as_ref());
        self.send_raw(&bytes);
    }

    /// Publishes a message with these property flags and properties.
    #[track_caller]
    pub fn publish_with(
        &mut self,
        exchange: &str,
        routing_key: &str,
        properties: &[u8],
        body: impl AsRef<[u8]>,
    ) {
        let method = basic::Publish {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            ..basic::Publish::default()
        };
        let bytes = self.content(method, properties, body.as_ref());
        self.send_raw(&bytes);
    }

    /// The bytes of a publish and its content.
    pub fn content(&self, publish: basic::Publish, properties: &[u8], body: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        frame::put_method(&mut out, self.channel, &publish.cold());
        frame::put_header(&mut out, self.channel, body.len() as u64, properties);
        for part in frame::body_parts(body.len(), self.frame_max) {
            frame::put_body(&mut out, self.channel, &body[part]);
        }
        out.to_vec()
    }

    // Hearing ---------------------------------------------------------------------------------------

    /// The next that this channel hears has to be this method.
    #[track_caller]
    pub fn expect(&mut self, method: impl Method) {
        let expected = Event::Method(Box::new(method.cold()));
        let event = self.event();
        assert!(event == expected, "expected {expected:?}\n   heard {event:?}");
    }

    /// The next that this channel hears.
    #[track_caller]
    pub fn event(&mut self) -> Event {
        match self.next(PATIENCE) {
            Next::Event(event) => event,
            Next::Closed => panic!("the broker has closed the socket"),
            Next::Silence => panic!("the broker says nothing"),
        }
    }

    /// The next that this channel hears; `None` if that is the end of the socket.
    #[track_caller]
    pub fn event_or_end(&mut self) -> Option<Event> {
        match self.next(PATIENCE) {
            Next::Event(event) => Some(event),
            Next::Closed => None,
            Next::Silence => panic!("the broker says nothing"),
        }
    }

    /// The next that this channel hears, which has to be a method without content.
    #[track_caller]
    pub fn method(&mut self) -> Cold {
        match self.event() {
            Event::Method(method) => *method,
            other => panic!("a method was expected, not {other:?}"),
        }
    }

    #[track_caller]
    fn message(&mut self, what: &str, body: &str, is_it: impl Fn(&Cold) -> bool) -> Message {
        match self.event() {
            Event::Message(message) if is_it(&message.method) => {
                assert_eq!(message.text(), body, "the body of {message:?}");
                message
            }
            other => panic!("{what} with '{body}' was expected, not {other:?}"),
        }
    }

    /// A delivery of a message with this body.
    #[track_caller]
    pub fn expect_delivery(&mut self, body: &str) -> Message {
        self.message("a delivery", body, |m| matches!(m, Cold::Basic(basic::AMQPMethod::Deliver(_))))
    }

    /// A delivery of any message.
    #[track_caller]
    pub fn any_delivery(&mut self) -> Message {
        match self.event() {
            Event::Message(message)
                if matches!(*message.method, Cold::Basic(basic::AMQPMethod::Deliver(_))) =>
            {
                message
            }
            other => panic!("a delivery was expected, not {other:?}"),
        }
    }

    /// A get-ok of a message with this body.
    #[track_caller]
    pub fn expect_got(&mut self, body: &str) -> Message {
        self.message("a get-ok", body, |m| matches!(m, Cold::Basic(basic::AMQPMethod::GetOk(_))))
    }

    /// A message that no queue has taken.
    #[track_caller]
    pub fn expect_return(&mut self, exchange: &str, routing_key: &str, body: &str) -> Message {
        let message =
            self.message("a return", body, |m| matches!(m, Cold::Basic(basic::AMQPMethod::Return(_))));
        let expected = Cold::Basic(basic::AMQPMethod::Return(basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
        }));
        assert_eq!(*message.method, expected);
        message
    }

    /// The ack of a confirm.
    #[track_caller]
    pub fn expect_ack(&mut self, delivery_tag: u64) {
        self.expect(basic::Ack { delivery_tag, multiple: false });
    }

    /// Acks of confirms, until all publishes up to this one are confirmed. None may be confirmed twice.
    #[track_caller]
    pub fn expect_confirmed(&mut self, first: u64, last: u64) {
        let mut next = first;
        while next <= last {
            match self.method() {
                Cold::Basic(basic::AMQPMethod::Ack(ack)) => {
                    assert!(ack.delivery_tag >= next, "confirmed again: {ack:?}, expected from {next}");
                    assert!(ack.multiple || ack.delivery_tag == next, "{next} is skipped by {ack:?}");
                    next = ack.delivery_tag + 1;
                }
                other => panic!("the confirm of {next} was expected, not {other:?}"),
            }
        }
        assert_eq!(next, last + 1, "more was confirmed than published");
    }

    /// The broker closes this channel; close-ok is said.
    #[track_caller]
    pub fn expect_channel_close(&mut self, code: ReplyCode, text: &str) {
        self.expect_channel_close_unanswered(code, text);
        self.send(channel::CloseOk {});
    }

    /// The broker closes this channel; nothing is said to that.
    #[track_caller]
    pub fn expect_channel_close_unanswered(&mut self, code: ReplyCode, text: &str) {
        match self.event() {
            Event::Method(method) => match *method {
                Cold::Channel(channel::AMQPMethod::Close(close)) => {
                    assert_eq!((close.reply_text.as_str(), close.reply_code), (text, code.number()));
                }
                other => panic!("channel.close '{text}' was expected, not {other:?}"),
            },
            other => panic!("channel.close '{text}' was expected, not {other:?}"),
        }
    }

    /// The broker closes the channel; it is opened again.
    #[track_caller]
    pub fn expect_error(&mut self, code: ReplyCode, text: &str) {
        self.expect_channel_close(code, text);
        self.open_channel(self.channel);
    }

    /// The broker closes the connection; close-ok is said, and the socket closes.
    #[track_caller]
    pub fn expect_connection_close(&mut self, code: ReplyCode, text: &str) {
        let close = self.connection_close();
        assert_eq!((close.reply_text.as_str(), close.reply_code), (text, code.number()));
        let _ = self.try_send_raw(&wire::method(0, connection::CloseOk {}));
        self.expect_closed();
    }

    /// The broker closes the connection with this code and a text of its own.
    #[track_caller]
    pub fn expect_connection_close_with(&mut self, code: ReplyCode) {
        let close = self.connection_close();
        assert_eq!(close.reply_code, code.number(), "{close:?}");
        let _ = self.try_send_raw(&wire::method(0, connection::CloseOk {}));
        self.expect_closed();
    }

    /// connection.close; nothing is said to that.
    #[track_caller]
    pub fn connection_close(&mut self) -> connection::Close {
        match self.on(0).method() {
            Cold::Connection(connection::AMQPMethod::Close(close)) => close,
            other => panic!("connection.close was expected, not {other:?}"),
        }
    }

    /// The broker ends the connection, with connection.close before it or without.
    #[track_caller]
    pub fn expect_end(&mut self) {
        loop {
            let next = self.on(0).next(PATIENCE);
            match next {
                Next::Closed => return self.hang_up(),
                Next::Silence => panic!("the broker neither says anything nor closes the socket"),
                Next::Event(Event::Method(method)) => match *method {
                    Cold::Connection(connection::AMQPMethod::Close(_)) => {
                        let _ = self.try_send_raw(&wire::method(0, connection::CloseOk {}));
                    }
                    other => panic!("the end was expected, not {other:?}"),
                },
                Next::Event(Event::Heartbeat) => {}
                Next::Event(other) => panic!("the end was expected, not {other:?}"),
            }
        }
    }

    /// Closes the socket without a word.
    pub fn hang_up(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// The broker closes the socket and says nothing more to any channel.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let next = self.on(0).next(PATIENCE);
        match next {
            Next::Closed => self.hang_up(),
            Next::Silence => panic!("the broker does not close the socket"),
            Next::Event(event) => panic!("the end of the socket was expected, not {event:?}"),
        }
    }

    /// The broker says nothing and leaves the socket open for as long as this.
    #[track_caller]
    pub fn expect_open_for(&mut self, time: Duration) {
        match self.on(0).next(time) {
            Next::Silence => {}
            Next::Closed => panic!("the broker has closed the socket"),
            Next::Event(event) => panic!("nothing was expected, not {event:?}"),
        }
    }

    /// These bytes come, as they are.
    #[track_caller]
    pub fn expect_raw(&mut self, expected: &[u8]) {
        while self.buffer.len() < expected.len() {
            assert!(self.fill(PATIENCE).expect("a socket") > 0, "the broker has closed the socket");
        }
        assert_eq!(&self.buffer.split_to(expected.len())[..], expected);
    }

    /// All that the broker had to do for what was said before is done, and nothing came of it.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        // What others put into a connection's outbox is taken out after the frames that a read brought,
        // so it comes between the two answers at the latest.
        for _ in 0..2 {
            self.send(channel::Flow { active: true });
            self.expect(channel::FlowOk { active: true });
        }
    }

    /// Waits until the broker has done what was said before.
    #[track_caller]
    pub fn sync(&mut self) {
        self.expect_nothing();
    }

    /// A client that lets the broker wait for it to read, and hangs up in the end.
    pub fn into_socket(self) -> TcpStream {
        self.stream
    }

    #[track_caller]
    fn next(&mut self, patience: Duration) -> Next {
        let start = Instant::now();
        loop {
            let channel = self.channel;
            if let Some(event) = self.heard.get_mut(&channel).and_then(VecDeque::pop_front) {
                return Next::Event(event);
            }
            if channel != 0
                && let Some(last) = self.heard.get(&0).and_then(|all| all.iter().find(|e| is_close(e)))
            {
                panic!("the broker closes the connection: {last:?}");
            }
            if self.gone {
                return Next::Closed;
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Next::Silence;
            }
            match self.fill(left) {
                Ok(0) => self.gone = true,
                Ok(_) => self.sort(),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_) => self.gone = true,
            }
        }
    }

    fn fill(&mut self, patience: Duration) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut chunk = [0; 64 * 1024];
        let n = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// Sorts all whole frames by channel.
    #[track_caller]
    fn sort(&mut self) {
        let (n, bad) = frame::whole(&self.buffer, self.frame_max);
        assert_eq!(bad, None, "the broker sends a bad frame");
        let whole = self.buffer.split_to(n).freeze();
        for frame in frame::Frames::new(&whole) {
            let number = frame.channel;
            let event = match frame.kind {
                FrameKind::Heartbeat => Some(Event::Heartbeat),
                FrameKind::Method => self.method_came(number, frame.payload),
                FrameKind::Header => {
                    let header = Header::decode(&whole, frame.payload).expect("a content header");
                    let half = self.half.get_mut(&number).expect("a header after its method");
                    assert!(half.header.replace(header).is_none(), "two headers");
                    self.complete(number)
                }
                FrameKind::Body => {
                    let half = self.half.get_mut(&number).expect("a body after its header");
                    assert!(!frame.payload.is_empty(), "a body frame with nothing in it");
                    half.body.extend_from_slice(frame.payload);
                    half.parts.push(frame.payload.len());
                    self.complete(number)
                }
            };
            self.heard.entry(number).or_default().extend(event);
        }
    }

    #[track_caller]
    fn method_came(&mut self, number: u16, payload: &[u8]) -> Option<Event> {
        let method = match method::decode(payload).expect("a method") {
            method::Method::Cold(method) => method,
            method::Method::Ack(ack) => {
                Box::new(basic::Ack { delivery_tag: ack.delivery_tag, multiple: ack.multiple }.cold())
            }
            method::Method::Publish(publish) => panic!("the broker publishes: {publish:?}"),
        };
        assert!(!self.half.contains_key(&number), "a message is not finished, and now {method:?}");
        use basic::AMQPMethod as M;
        if matches!(*method, Cold::Basic(M::Deliver(_) | M::GetOk(_) | M::Return(_))) {
            let half = Half { method, header: None, body: Vec::new(), parts: Vec::new() };
            self.half.insert(number, half);
            return None;
        }
        Some(Event::Method(method))
    }

    #[track_caller]
    fn complete(&mut self, number: u16) -> Option<Event> {
        let half = self.half.get(&number)?;
        let size = half.header.as_ref().expect("a header before the body").body_bytes;
        if (half.body.len() as u64) < size {
            return None;
        }
        assert_eq!(half.body.len() as u64, size, "the body is as long as its header says");
        let Half { method, header, body, parts } = self.half.remove(&number)?;
        Some(Event::Message(Message { method, properties: header?.properties, body, parts }))
    }

    // Short forms of what most tests say --------------------------------------------------------------

    /// queue.declare, and declare-ok: messages and consumers.
    #[track_caller]
    pub fn declare_queue(&mut self, declare: queue::Declare) -> queue::DeclareOk {
        self.send(declare);
        match self.method() {
            Cold::Queue(queue::AMQPMethod::DeclareOk(declare_ok)) => declare_ok,
            other => panic!("queue.declare-ok was expected, not {other:?}"),
        }
    }

    /// A transient queue.
    #[track_caller]
    pub fn declare(&mut self, queue: &str) {
        self.declare_queue(queue::Declare { queue: queue.into(), ..queue::Declare::default() });
    }

    /// A durable queue.
    #[track_caller]
    pub fn declare_durable(&mut self, queue: &str) {
        self.declare_durable_with(queue, FieldTable::default());
    }

    /// A durable queue with arguments.
    #[track_caller]
    pub fn declare_durable_with(&mut self, queue: &str, arguments: FieldTable) {
        let queue = queue.into();
        self.declare_queue(queue::Declare { queue, durable: true, arguments, ..queue::Declare::default() });
    }

    /// Ready messages and consumers of a queue.
    #[track_caller]
    pub fn counts(&mut self, queue: &str) -> (u32, u32) {
        let queue = queue.into();
        let ok = self.declare_queue(queue::Declare { queue, passive: true, ..queue::Declare::default() });
        (ok.message_count, ok.consumer_count)
    }

    /// Whether there is such a queue, as far as this client may know.
    #[track_caller]
    pub fn has_queue(&mut self, queue: &str) -> bool {
        self.send(queue::Declare { queue: queue.into(), passive: true, ..queue::Declare::default() });
        match self.method() {
            Cold::Queue(queue::AMQPMethod::DeclareOk(_)) => true,
            Cold::Channel(channel::AMQPMethod::Close(close)) => {
                assert_eq!(close.reply_code, 404, "{close:?}");
                self.send(channel::CloseOk {});
                self.open_channel(self.channel);
                false
            }
            other => panic!("an answer to a passive declare was expected, not {other:?}"),
        }
    }

    /// Whether there is such an exchange.
    #[track_caller]
    pub fn has_exchange(&mut self, exchange: &str) -> bool {
        let exchange = exchange.into();
        self.send(exchange::Declare { exchange, passive: true, ..exchange::Declare::default() });
        match self.method() {
            Cold::Exchange(exchange::AMQPMethod::DeclareOk(_)) => true,
            Cold::Channel(channel::AMQPMethod::Close(close)) => {
                assert_eq!(close.reply_code, 404, "{close:?}");
                self.send(channel::CloseOk {});
                self.open_channel(self.channel);
                false
            }
            other => panic!("an answer to a passive declare was expected, not {other:?}"),
        }
    }

    /// An exchange.
    #[track_caller]
    pub fn declare_exchange(&mut self, declare: exchange::Declare) {
        self.send(declare);
        self.expect(exchange::DeclareOk {});
    }

    /// A transient exchange without arguments.
    #[track_caller]
    pub fn exchange(&mut self, exchange: &str, kind: &str) {
        let (exchange, kind) = (exchange.into(), kind.into());
        self.declare_exchange(exchange::Declare { exchange, kind, ..exchange::Declare::default() });
    }

    /// A binding of a queue.
    #[track_caller]
    pub fn bind(&mut self, queue: &str, exchange: &str, routing_key: &str) {
        self.bind_with(queue, exchange, routing_key, FieldTable::default());
    }

    /// A binding of a queue with arguments.
    #[track_caller]
    pub fn bind_with(&mut self, queue: &str, exchange: &str, routing_key: &str, arguments: FieldTable) {
        self.send(queue::Bind {
            queue: queue.into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            nowait: false,
            arguments,
        });
        self.expect(queue::BindOk {});
    }

    /// A binding between exchanges.
    #[track_caller]
    pub fn bind_exchange(&mut self, destination: &str, source: &str, routing_key: &str) {
        self.send(exchange::Bind {
            destination: destination.into(),
            source: source.into(),
            routing_key: routing_key.into(),
            ..exchange::Bind::default()
        });
        self.expect(exchange::BindOk {});
    }

    /// A consumer that acknowledges.
    #[track_caller]
    pub fn consume(&mut self, queue: &str, consumer_tag: &str) {
        let (queue, tag) = (queue.into(), consumer_tag.into());
        self.send(basic::Consume { queue, consumer_tag: tag, ..basic::Consume::default() });
        self.expect(basic::ConsumeOk { consumer_tag: consumer_tag.into() });
    }

    /// A consumer that does not acknowledge.
    #[track_caller]
    pub fn consume_no_ack(&mut self, queue: &str, consumer_tag: &str) {
        let (queue, tag) = (queue.into(), consumer_tag.into());
        self.send(basic::Consume { queue, consumer_tag: tag, no_ack: true, ..basic::Consume::default() });
        self.expect(basic::ConsumeOk { consumer_tag: consumer_tag.into() });
    }

    /// basic.qos
    #[track_caller]
    pub fn qos(&mut self, prefetch_count: u16, global: bool) {
        self.send(basic::Qos { prefetch_count, global });
        self.expect(basic::QosOk {});
    }

    /// Takes the first message of a queue, to be acknowledged.
    #[track_caller]
    pub fn get(&mut self, queue: &str, body: &str) -> Message {
        self.send(basic::Get { queue: queue.into(), no_ack: false });
        self.expect_got(body)
    }

    /// The queue has nothing to get.
    #[track_caller]
    pub fn expect_empty(&mut self, queue: &str) {
        self.send(basic::Get { queue: queue.into(), no_ack: false });
        self.expect(basic::GetEmpty {});
    }

    /// Takes all messages of a queue away: their bodies, in order.
    #[track_caller]
    pub fn drain(&mut self, queue: &str) -> Vec<String> {
        self.drain_marked(queue).into_iter().map(|(body, _)| body).collect()
    }

    /// Takes all messages of a queue away: their bodies, in order, and whether they are redelivered.
    #[track_caller]
    pub fn drain_marked(&mut self, queue: &str) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        loop {
            self.send(basic::Get { queue: queue.into(), no_ack: true });
            match self.event() {
                Event::Message(message) => all.push((message.text(), message.redelivered())),
                Event::Method(method) if *method == basic::GetEmpty {}.cold() => return all,
                other => panic!("get-ok or get-empty was expected, not {other:?}"),
            }
        }
    }

    /// basic.ack
    #[track_caller]
    pub fn ack(&mut self, delivery_tag: u64) {
        self.send(basic::Ack { delivery_tag, multiple: false });
    }

    /// basic.ack of all so far.
    #[track_caller]
    pub fn ack_through(&mut self, delivery_tag: u64) {
        self.send(basic::Ack { delivery_tag, multiple: true });
    }

    /// basic.nack
    #[track_caller]
    pub fn nack(&mut self, delivery_tag: u64, multiple: bool, requeue: bool) {
        self.send(basic::Nack { delivery_tag, multiple, requeue });
    }

    /// basic.cancel, and its answer.
    #[track_caller]
    pub fn cancel(&mut self, consumer_tag: &str) {
        self.send(basic::Cancel { consumer_tag: consumer_tag.into(), nowait: false });
        self.expect(basic::CancelOk { consumer_tag: consumer_tag.into() });
    }

    /// confirm.select
    #[track_caller]
    pub fn confirm(&mut self) {
        self.send(confirm::Select { nowait: false });
        self.expect(confirm::SelectOk {});
    }

    /// tx.select
    #[track_caller]
    pub fn tx(&mut self) {
        self.send(tx::Select {});
        self.expect(tx::SelectOk {});
    }

    /// tx.commit
    #[track_caller]
    pub fn commit(&mut self) {
        self.send(tx::Commit {});
        self.expect(tx::CommitOk {});
    }

    /// tx.rollback
    #[track_caller]
    pub fn rollback(&mut self) {
        self.send(tx::Rollback {});
        self.expect(tx::RollbackOk {});
    }
}

fn is_close(event: &Event) -> bool {
    let Event::Method(method) = event else { return false };
    matches!(**method, Cold::Connection(connection::AMQPMethod::Close(_)))
}

/// A client on another channel, for as long as this lives.
pub struct On<'a> {
    client: &'a mut Client,
    before: u16,
}

impl Deref for On<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
    }
}

impl DerefMut for On<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client
    }
}

impl Drop for On<'_> {
    fn drop(&mut self) {
        self.client.channel = self.before;
    }
}
