//! A connection: the task that owns one socket, its channels, and everything on its way out.
//!
//! One loop: take the frames that a read brought, let the channels act on them, hand what they published
//! and acknowledged to queues and store in one go, take deliveries out of the outbox, write. The task
//! waits only for its own socket, its own bell, or its own place in the store's queue; no other client
//! can hold it up, and it holds up no other.

mod entrance;
mod handshake;
mod heartbeat;
mod inlet;
mod news;
mod proxy;
mod stream;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use amqp::method::{Cold, channel as channel_class, connection as connection_class};
use amqp::{Exception, Frame, FrameKind, Method, ReplyCode, Scope, Value, frame, limits, method};
use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use store::Ticket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::{debug, info, warn};

use crate::alarm::Alarm;
use crate::broker::Broker;
use crate::channel::{
    Batch, Channel, Context, Failure, Flow, Flushed, Settlements, Then, Unacked, Wait, octets, reject,
    requeue,
};
use crate::delivery::ConsumerId;
use crate::outbox::{Event, Outbox};
use crate::queue::{Origin, Return};
use crate::roster::{Channels, Churn, Guest, Traffic};
use crate::writer::Writer;
pub use entrance::Door;
use entrance::Visitor;
use handshake::{Agreed, Refusal};
use heartbeat::{Beat, Heartbeat};
use inlet::{Inlet, ROOM_BYTES_MAX};
use stream::{Ready, Stream};

/// Deliveries are taken from the outbox while less than this waits to be written.
const WRITE_BYTES_LOW: usize = 256 * 1024;

/// More than this waiting to be written, and the client's own requests are not read any more: it asks
/// for more than it takes.
const WRITE_BYTES_HIGH: usize = 8 * 1024 * 1024;

/// How much of what a client publishes during an alarm is taken in before its socket is not read any more.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// How long a publisher is not read while memory is short. Not longer, since it may be the one who has to
/// acknowledge.
const SLOW: Duration = Duration::from_millis(2);
const SLOW_ROUNDS: u8 = 10;

/// How long a publisher that is ahead of consumers waits before it looks by itself whether it still is.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// How long a client may take to close the socket of a connection that is over; RabbitMQ's own.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to answer connection.close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the payload of basic.publish begins with.
const PUBLISH: &[u8] = &[0, 60, 0, 40];

/// Talks to a client from its first byte to its last.
pub async fn serve(socket: TcpStream, peer: SocketAddr, door: Door, broker: Arc<Broker>) {
    let id = broker.roster.next_id();
    // Our own batches are what Nagle's algorithm would wait for.
    let _ = socket.set_nodelay(true);
    let timeout = Duration::from_secs(broker.config.handshake_timeout_secs);
    let deadline = tokio::time::Instant::now() + timeout;
    let too_late = |peer: SocketAddr| {
        warn!(%peer, seconds = timeout.as_secs(), "the client did not finish its handshake in time");
    };
    // Apart, so that its memory goes when it is over.
    let coming = Box::pin(entrance::let_in(socket, peer, door));
    let Visitor { mut stream, peer, local, tls } = match tokio::time::timeout_at(deadline, coming).await {
        Ok(Ok(visitor)) => visitor,
        Ok(Err(reason)) => {
            warn!(%peer, reason, "connection refused");
            return;
        }
        Err(_) => return too_late(peer),
    };
    let mut buffer = BytesMut::with_capacity(4096);
    let tls_peer = tls.as_deref();
    let shaking =
        Box::pin(handshake::shake_hands(&mut stream, &mut buffer, (peer, local), tls_peer, id, &broker));
    let agreed = match tokio::time::timeout_at(deadline, shaking).await {
        Ok(Ok(agreed)) => agreed,
        Ok(Err(Refusal::Told(failure))) => {
            warn!(%peer, error = %failure.exception, "connection refused");
            refuse(&mut stream, &failure).await;
            return;
        }
        Ok(Err(Refusal::Silent(reason))) => {
            warn!(%peer, reason, "connection refused");
            return;
        }
        Err(_) => return too_late(peer),
    };
    let outbox = Outbox::new();
    let guest = Arc::new(Guest {
        id,
        peer,
        local,
        tls,
        user: agreed.caller.user.name.clone(),
        vhost: agreed.vhost.name().clone(),
        client_properties: agreed.client_properties.clone(),
        mechanism: agreed.mechanism.clone(),
        frame_bytes_max: agreed.frame_bytes_max,
        channel_max: agreed.channel_max,
        heartbeat_secs: agreed.heartbeat_secs,
        connected_at_ms: broker.clock().now_ms(),
        outbox: outbox.clone(),
        traffic: Traffic::default(),
        is_blocked: AtomicBool::new(false),
        channels: Channels::default(),
    });
    broker.roster.enter(guest.clone());
    news::opened(&broker, &guest);
    broker.look_again(&guest);
    let name = agreed.client_properties.get_str("connection_name").unwrap_or_default().to_string();
    info!(%peer, user = %agreed.caller.user.name, vhost = %agreed.vhost.name(), name, "connection opened");
    let mut connection = Connection::new(broker.clone(), agreed, outbox, guest.clone());
    let ending = connection.run(&mut stream, buffer).await;
    connection.settle_parked().await;
    drop(connection);
    news::closed(&broker, &guest);
    match ending {
        Ok(()) => info!(%peer, name, "connection closed"),
        Err(error) => info!(%peer, name, reason = %error, "connection lost"),
    }
}

/// Says goodbye to a client that never got in, and waits a moment for it to hear.
async fn refuse(stream: &mut Stream, failure: &Failure) {
    let mut out = BytesMut::new();
    frame::put_method(&mut out, 0, &close_method(failure));
    if stream.write_all(&out).await.is_ok() && stream.flush().await.is_ok() {
        let mut sink = [0; 512];
        let until_close_ok =
            async { while matches!(stream.read(&mut sink).await, Ok(n) if n == sink.len()) {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, until_close_ok).await;
    }
}

fn close_method(failure: &Failure) -> Cold {
    Cold::Connection(connection_class::AMQPMethod::Close(connection_class::Close {
        reply_code: failure.exception.code.number(),
        reply_text: (&*failure.exception.wire_text()).into(),
        class_id: failure.class_id,
        method_id: failure.method_id,
    }))
}

/// An open connection.
struct Connection {
    broker: Arc<Broker>,
    agreed: Agreed,
    outbox: Arc<Outbox>,
    /// What others may see of it.
    guest: Arc<Guest>,
    session: store::Session,
    channels: HashMap<u16, Channel>,
    out: Writer,
    /// Whole frames that have been received and not yet handled.
    input: Bytes,
    /// What ends the frames: the first bytes that are none, and what was in them.
    bad_frame: Option<(frame::Error, String)>,
    batch: Batch,
    settlements: Settlements,
    requeues: Vec<(Unacked, Return)>,
    rejections: Vec<Unacked>,
    /// Channels with publishes to confirm.
    confirming: Vec<u16>,
    /// Set while a channel waits for the store; frames wait as well.
    parked: Option<(u16, Wait)>,
    events: Vec<Event>,
    heartbeat: Heartbeat,
    phase: Phase,
    /// It was the client who closed the connection, so it is the client who closes the socket: some
    /// take a socket that is closed before they have read close-ok for a failure.
    client_hangs_up: bool,
    /// It has published while memory was short, and is not read for so many rounds, or until that is better.
    slow_rounds: u8,
    /// The client has been told that publishers are blocked.
    is_told_blocked: bool,
    /// Channels that published during an alarm, and their frames since, which wait for its end. The
    /// other channels go on.
    blocked: Vec<u16>,
    held: BytesMut,
    wants_cancel_notices: bool,
    wants_blocked_notices: bool,
    is_qos_for_running_consumers: bool,
}

/// Where a connection stands.
///
/// ```text
///            error or broker's wish           close-ok, or too late
///   Running ───────────────────────> Closing ──────────────────────> gone
///      └── client's close ──> Leaving ── all written ──────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// connection.close has been sent; everything but the answer is ignored.
    Closing(Instant),
    /// close-ok is on its way; then the socket is closed.
    Leaving(Instant),
    Over,
}

/// What a channel needs of its connection: everything but the channels themselves.
macro_rules! context {
    ($connection:expr, $whole:expr, $now_ms:expr) => {
        &mut Context {
            broker: &$connection.broker,
            vhost: &$connection.agreed.vhost,
            caller: &$connection.agreed.caller,
            guest: &$connection.guest,
            out: &mut $connection.out,
            outbox: &$connection.outbox,
            session: &mut $connection.session,
            batch: &mut $connection.batch,
            settlements: &mut $connection.settlements,
            requeues: &mut $connection.requeues,
            rejections: &mut $connection.rejections,
            whole: $whole,
            frame_bytes_max: $connection.agreed.frame_bytes_max,
            now_ms: $now_ms,
            wants_cancel_notices: $connection.wants_cancel_notices,
            is_qos_for_running_consumers: $connection.is_qos_for_running_consumers,
        }
    };
}

/// However a connection ends (also by a panic, also when its task is aborted): nothing of it stays behind.
impl Drop for Connection {
    fn drop(&mut self) {
        if let Some((_, wait)) = self.parked.take()
            && let Then::Commit(commit, _) = wait.then
        {
            commit.finish();
        }
        self.end();
        self.broker.roster.leave(self.agreed.caller.connection);
    }
}

impl Connection {
    fn new(broker: Arc<Broker>, agreed: Agreed, outbox: Arc<Outbox>, guest: Arc<Guest>) -> Self {
        let bell = outbox.clone();
        let session = broker.store().session(Arc::new(move || bell.ring()));
        let properties = &agreed.client_properties;
        let capabilities = match properties.get("capabilities") {
            Some(Value::Table(table)) => table.clone(),
            _ => amqp::Table::new(),
        };
        Connection {
            session,
            channels: HashMap::new(),
            out: Writer::default(),
            input: Bytes::new(),
            bad_frame: None,
            batch: Batch::default(),
            settlements: Settlements::default(),
            requeues: Vec::new(),
            rejections: Vec::new(),
            confirming: Vec::new(),
            parked: None,
            events: Vec::new(),
            heartbeat: Heartbeat::new(agreed.heartbeat_secs, Instant::now()),
            phase: Phase::Running,
            client_hangs_up: false,
            is_told_blocked: false,
            slow_rounds: 0,
            blocked: Vec::new(),
            held: BytesMut::new(),
            wants_cancel_notices: capabilities.is_true("consumer_cancel_notify"),
            wants_blocked_notices: capabilities.is_true("connection.blocked"),
            // py-amqp (Celery's client) reads the specification to the letter unless it finds RabbitMQ
            // 3.x by name: basic.qos without `global` is then for the whole channel, and it relies on
            // that when it holds tasks for later.
            is_qos_for_running_consumers: properties.get_str("product") == Some("py-amqp"),
            broker,
            agreed,
            outbox,
            guest,
        }
    }

    async fn run(&mut self, stream: &mut Stream, buffer: BytesMut) -> io::Result<()> {
        let mut inlet = Inlet::new(buffer);
        let period = self.heartbeat.period().unwrap_or(Duration::from_secs(3600));
        let mut tick = tokio::time::interval(period);
        let mut alarm = self.broker.alarm().clone();
        let clock = self.broker.clock().clone();
        self.accept(&mut inlet.bytes);
        loop {
            self.work();
            poll_fn(|context| Poll::Ready(self.write(stream, context))).await?;
            match self.phase {
                Phase::Over => return Ok(()),
                Phase::Leaving(_) if self.out.is_empty() => {
                    stream.finish(!self.client_hangs_up, CLOSE_TIMEOUT).await?;
                    hear_out(stream).await;
                    return Ok(());
                }
                Phase::Closing(since) | Phase::Leaving(since) if since.elapsed() > CLOSE_TIMEOUT => {
                    return Ok(());
                }
                _ => {}
            }
            let deadline = match self.phase {
                Phase::Closing(since) | Phase::Leaving(since) => since + CLOSE_TIMEOUT,
                _ => Instant::now() + Duration::from_secs(3600),
            };
            let look_at_ms = self.look_at_ms();
            tokio::select! {
                ready = stream.ready(&mut inlet, self.wants_input(), !self.out.is_empty()) => {
                    let read = match ready? {
                        Ready::Write => continue,
                        Ready::Read(read) => read,
                    };
                    if read == 0 {
                        return match self.phase {
                            Phase::Running => Err(io::Error::other("the client closed the socket")),
                            _ => Ok(()),
                        };
                    }
                    self.heartbeat.heard(Instant::now());
                    Traffic::add(&self.guest.traffic.received_bytes, read as u64);
                    Traffic::add(&self.guest.traffic.reads, 1);
                    self.accept(&mut inlet.bytes);
                }
                () = self.outbox.rung() => {}
                () = clock.sleep_until(look_at_ms.unwrap_or_default()), if look_at_ms.is_some() => {}
                () = tokio::time::sleep(LOOK_AGAIN), if self.batch.ahead_in.is_some() => {}
                () = tokio::time::sleep(SLOW), if self.slow_rounds > 0 => {
                    self.slow_rounds = if self.broker.memory().is_over() { self.slow_rounds - 1 } else { 0 };
                }
                changed = alarm.changed() => if changed { self.alarm_changed(&alarm) },
                _ = tick.tick() => self.beat()?,
                () = tokio::time::sleep_until(deadline.into()), if self.phase != Phase::Running => {}
            }
        }
    }

    /// Whether the socket is to be read: not while earlier frames wait, not while the store has too
    /// much to write, not while the client does not take what it asked for.
    fn wants_input(&self) -> bool {
        self.input.is_empty()
            && self.bad_frame.is_none()
            && self.parked.is_none()
            && self.out.len() < WRITE_BYTES_HIGH
            && self.held.len() < HELD_BYTES_MAX
            && !self.session.is_full()
            && self.slow_rounds == 0
            && self.batch.ahead_in.is_none()
    }

    /// Takes all whole frames off the read buffer.
    fn accept(&mut self, buffer: &mut BytesMut) {
        // RabbitMQ lets a payload be as large as the whole frame may be, and some clients count on it.
        let max = match self.agreed.frame_bytes_max {
            0 => 0,
            max => max + limits::FRAME_OVERHEAD_BYTES as u32,
        };
        let (n, bad) = frame::whole(buffer, max);
        self.input = buffer.split_to(n).freeze();
        self.bad_frame = bad.map(|error| {
            let size = frame::expected_bytes(buffer).unwrap_or_default();
            (error, octets(frame::payload_of_bad(buffer, size)))
        });
        if let Some(expected) = frame::expected_bytes(buffer)
            && bad.is_none()
        {
            // Grows with what has come, not with what was announced.
            let expected = expected.min(2 * buffer.len() + ROOM_BYTES_MAX);
            buffer.reserve(expected.saturating_sub(buffer.len()));
        }
    }

    /// Everything that can be done without waiting.
    fn work(&mut self) {
        if let Some((_, wait)) = &self.parked
            && wait.ticket <= self.session.durable()
            && let Some((number, wait)) = self.parked.take()
        {
            self.unpark(number, wait);
        }
        if self.parked.is_none() {
            self.handle_input();
        }
        self.flush();
        self.batch.ahead_in.take_if(|queue| !queue.holds_up(&self.outbox));
        if self.out.len() < WRITE_BYTES_LOW {
            self.take_outbox();
            // What was delivered may have been traced.
            self.flush();
        }
        self.confirm();
        self.take_late();
        self.note();
    }

    /// Lets others see what was counted, and how everything stands.
    fn note(&mut self) {
        let now_ms = self.broker.clock().now_ms();
        self.batch.note(&self.broker.sizes, now_ms);
        let tallies = self.agreed.vhost.tallies();
        self.channels.values_mut().for_each(|channel| channel.note(tallies, now_ms));
        self.guest.traffic.pending_bytes.store(self.out.len() as u64, Ordering::Relaxed);
    }

    /// When to look for late deliveries next, in milliseconds since 1970.
    fn look_at_ms(&self) -> Option<u64> {
        self.channels.values().filter_map(Channel::look_at_ms).min()
    }

    /// Consumers that have kept a delivery too long end, and it goes back.
    fn take_late(&mut self) {
        let Some(at_ms) = self.look_at_ms() else { return };
        let now_ms = self.broker.clock().now_ms();
        if at_ms > now_ms {
            return;
        }
        let nothing = Bytes::new();
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            let Some(channel) = self.channels.get_mut(&number).filter(|c| c.is_open()) else { continue };
            let ended = channel.take_late(context!(self, &nothing, now_ms));
            requeue(self.requeues.drain(..));
            for consumer in ended {
                if let Some(channel) = self.channels.get_mut(&number) {
                    channel.leave_queue(context!(self, &nothing, now_ms), consumer);
                }
                // What it was given meanwhile goes out before it is told.
                self.take_outbox();
                if let Some(channel) = self.channels.get_mut(&number) {
                    channel.cancelled_by_broker(context!(self, &nothing, now_ms), consumer);
                }
            }
        }
        self.channels.values_mut().for_each(Channel::give_back_credit);
    }

    fn handle_input(&mut self) {
        let whole = std::mem::take(&mut self.input);
        let now_ms = self.broker.clock().now_ms();
        let mut frames = frame::Frames::new(&whole);
        while self.parked.is_none() {
            let before = frames.rest();
            let Some(frame) = frames.next() else { break };
            if self.must_block(&frame) {
                self.held.extend_from_slice(&before[..before.len() - frames.rest().len()]);
                continue;
            }
            if self.publish_again(&frame, &mut frames, &whole, now_ms) {
                continue;
            }
            self.handle_frame(&frame, &whole, now_ms);
        }
        let rest = frames.rest();
        self.input = if rest.is_empty() { Bytes::new() } else { whole.slice_ref(rest) };
        if self.input.is_empty()
            && let Some((error, octets)) = self.bad_frame.take()
        {
            self.bad_frame_came(error, &octets);
        }
    }

    /// The short way for a publish that is like an earlier one and whose content follows at once. False if
    /// it is none, and nothing has happened.
    fn publish_again(
        &mut self,
        frame: &Frame<'_>,
        frames: &mut frame::Frames<'_>,
        whole: &Bytes,
        now_ms: u64,
    ) -> bool {
        if !frame.payload.starts_with(PUBLISH)
            || frame.kind != FrameKind::Method
            || self.phase != Phase::Running
        {
            return false;
        }
        let Some(channel) = self.channels.get_mut(&frame.channel).filter(|c| c.is_open()) else {
            return false;
        };
        let mut ahead = frames.clone();
        let Some((header, body)) = ahead.take_content(frame.channel) else { return false };
        let is_done = channel.publish_again(context!(self, whole, now_ms), frame.payload, header, body);
        if is_done {
            *frames = ahead;
        }
        is_done
    }

    fn handle_frame(&mut self, frame: &Frame<'_>, whole: &Bytes, now_ms: u64) {
        match self.phase {
            Phase::Running => {}
            Phase::Closing(_) => return self.handle_while_closing(frame),
            Phase::Leaving(_) | Phase::Over => return,
        }
        if frame.kind == FrameKind::Heartbeat {
            if frame.channel != 0 || !frame.payload.is_empty() {
                let text = format!("type 8, all octets = {}", octets(frame.payload));
                let (code, text) = match frame.payload {
                    [] => (ReplyCode::UnexpectedFrame, text),
                    _ => (ReplyCode::FrameError, text + ": unknown_frame"),
                };
                self.fail(0, Failure::of_none(Exception::new(code, text)));
            }
            return;
        }
        if frame.channel == 0 {
            return self.handle_own(frame);
        }
        if frame.kind == FrameKind::Method && !method::is_hot(frame.payload) {
            // What was published, acknowledged and returned before takes effect first.
            self.flush();
        }
        let Some(channel) = self.channels.get_mut(&frame.channel) else {
            return self.open_channel(frame);
        };
        if !channel.is_open() {
            return self.handle_on_closed(frame);
        }
        let outcome = channel.handle(context!(self, whole, now_ms), frame);
        self.go_on(frame.channel, outcome);
    }

    fn go_on(&mut self, number: u16, outcome: Result<Flow, Failure>) {
        match outcome {
            Ok(Flow::Go) => {}
            Ok(Flow::Wait(wait)) => self.parked = Some((number, wait)),
            Ok(Flow::Cancelled { consumer, reply }) => self.cancelled(number, consumer, reply),
            Ok(Flow::Closed) => {
                self.close_channel(number);
                self.forget_channel(number);
                self.put(number, channel_close_ok());
            }
            Err(failure) => self.fail(number, failure),
        }
    }

    /// A frame for a channel that is not open: only channel.open makes sense.
    fn open_channel(&mut self, frame: &Frame<'_>) {
        if frame.kind != FrameKind::Method {
            let text = "expected method frame, got non method frame instead";
            let exception = Exception::new(ReplyCode::UnexpectedFrame, text);
            return self.fail(0, Failure::of_none(exception));
        }
        let (is_open, blame) = match method::decode(frame.payload) {
            Ok(Method::Cold(m)) => {
                let is_open = matches!(*m, Cold::Channel(channel_class::AMQPMethod::Open(_)));
                (is_open, (m.get_amqp_class_id(), m.get_amqp_method_id()))
            }
            Ok(Method::Publish(_)) => (false, (60, 40)),
            Ok(Method::Ack(_)) => (false, (60, 80)),
            Err(e) => return self.fail(0, crate::channel::undecodable(e, frame.payload)),
        };
        if !is_open {
            let exception = Exception::new(ReplyCode::ChannelError, "expected 'channel.open'");
            return self.fail(0, Failure::of(exception, blame));
        }
        let (open, max) = (self.channels.len(), self.agreed.channel_max);
        if max != 0 && open >= max.into() {
            let text =
                format!("number of channels opened ({open}) has reached the negotiated channel_max ({max})");
            return self.fail(0, Failure::of_none(Exception::new(ReplyCode::NotAllowed, text)));
        }
        if let Err(error) = self.broker.take_channel(&self.agreed.place) {
            return self.fail(0, Failure::of(error.into(), (20, 10)));
        }
        Churn::count(&self.broker.roster.churn.channels_opened);
        let facts = self.guest.open_channel(frame.channel);
        news::channel_opened(&self.broker, &self.guest, frame.channel);
        self.channels.insert(frame.channel, Channel::new(frame.channel, facts));
        let open_ok = channel_class::AMQPMethod::OpenOk(channel_class::OpenOk {});
        self.put(frame.channel, Cold::Channel(open_ok));
    }

    /// A frame for a channel that we have closed: all but its end is ignored.
    fn handle_on_closed(&mut self, frame: &Frame<'_>) {
        use channel_class::AMQPMethod as M;
        if frame.kind != FrameKind::Method {
            return;
        }
        let Ok(Method::Cold(method)) = method::decode(frame.payload) else { return };
        match *method {
            Cold::Channel(M::CloseOk(_)) => self.forget_channel(frame.channel),
            Cold::Channel(M::Close(_)) => self.put(frame.channel, channel_close_ok()),
            Cold::Channel(M::Open(_)) => {
                let exception = Exception::new(ReplyCode::ChannelError, "second 'channel.open' seen");
                self.fail(0, Failure::of(exception, (20, 10)));
            }
            _ => {}
        }
    }

    /// A frame on channel 0.
    fn handle_own(&mut self, frame: &Frame<'_>) {
        use connection_class::AMQPMethod as M;
        if frame.kind != FrameKind::Method {
            let kind = if frame.kind == FrameKind::Header { 2 } else { 3 };
            let text = format!("type {kind}, all octets = {}", octets(frame.payload));
            return self.fail(0, Failure::of_none(Exception::new(ReplyCode::UnexpectedFrame, text)));
        }
        let method = match method::decode(frame.payload) {
            Ok(Method::Cold(method)) => *method,
            Ok(Method::Publish(_)) => return self.out_of_turn((60, 40)),
            Ok(Method::Ack(_)) => return self.out_of_turn((60, 80)),
            Err(e) => return self.fail(0, crate::channel::undecodable(e, frame.payload)),
        };
        match method {
            Cold::Connection(M::Close(_)) => {
                self.end();
                self.put(0, connection_close_ok());
                self.client_hangs_up = true;
                self.phase = Phase::Leaving(Instant::now());
            }
            Cold::Connection(M::UpdateSecret(_)) => {
                let ok = M::UpdateSecretOk(connection_class::UpdateSecretOk {});
                self.put(0, Cold::Connection(ok));
            }
            other => self.out_of_turn((other.get_amqp_class_id(), other.get_amqp_method_id())),
        }
    }

    fn out_of_turn(&mut self, blame: (u16, u16)) {
        let text = "unexpected method in connection state running";
        self.fail(0, Failure::of(Exception::new(ReplyCode::ChannelError, text), blame));
    }

    fn handle_while_closing(&mut self, frame: &Frame<'_>) {
        use connection_class::AMQPMethod as M;
        if frame.channel != 0 || frame.kind != FrameKind::Method {
            return;
        }
        let Ok(Method::Cold(method)) = method::decode(frame.payload) else { return };
        match *method {
            Cold::Connection(M::CloseOk(_)) => self.phase = Phase::Leaving(Instant::now()),
            Cold::Connection(M::Close(_)) => {
                self.put(0, connection_close_ok());
                self.client_hangs_up = true;
                self.phase = Phase::Leaving(Instant::now());
            }
            _ => {}
        }
    }

    fn bad_frame_came(&mut self, error: frame::Error, octets: &str) {
        if self.phase != Phase::Running {
            self.phase = Phase::Over;
            return;
        }
        let text = match error {
            frame::Error::TooLarge { kind, size, .. } => {
                let max = self.agreed.frame_bytes_max - limits::FRAME_OVERHEAD_BYTES as u32;
                format!("type {kind}, all octets = <<>>: {{frame_too_large,{size},{max}}}")
            }
            frame::Error::BadEnd { kind, end, .. } => {
                format!("type {kind}, all octets = {octets}: {{invalid_frame_end_marker,{end}}}")
            }
            frame::Error::UnknownKind { kind, .. } => {
                format!("type {kind}, all octets = {octets}: unknown_frame")
            }
        };
        self.fail(0, Failure::of_none(Exception::new(ReplyCode::FrameError, text)));
        // What follows cannot be told apart any more: there will be no close-ok to find.
        self.phase = Phase::Leaving(Instant::now());
    }

    /// An error closes the channel it happened on, or the connection.
    fn fail(&mut self, number: u16, failure: Failure) {
        let exception = &failure.exception;
        if exception.scope == Scope::Channel && self.channels.contains_key(&number) {
            info!(channel = number, user = %self.agreed.caller.user.name, error = %exception, "channel error");
            self.flush();
            self.close_channel(number);
            self.put(
                number,
                Cold::Channel(channel_class::AMQPMethod::Close(channel_class::Close {
                    reply_code: exception.code.number(),
                    reply_text: (&*exception.wire_text()).into(),
                    class_id: failure.class_id,
                    method_id: failure.method_id,
                })),
            );
            return;
        }
        warn!(user = %self.agreed.caller.user.name, error = %exception, "connection error");
        self.end();
        self.put(0, close_method(&failure));
        self.phase = Phase::Closing(Instant::now());
    }

    /// Ends what a channel has: what is unsettled goes back, consumers leave. The channel itself stays,
    /// deaf, until the client has heard of it.
    fn close_channel(&mut self, number: u16) {
        let nothing = Bytes::new();
        let Some(channel) = self.channels.get_mut(&number) else { return };
        channel.close();
        // Deliveries that were on their way come out now, to be put back with the rest.
        self.take_outbox();
        let Some(channel) = self.channels.get_mut(&number) else { return };
        channel.release(context!(self, &nothing, 0));
        requeue(self.requeues.drain(..));
        channel.leave(context!(self, &nothing, 0));
    }

    /// A channel is over, and its number may be used again.
    fn forget_channel(&mut self, number: u16) {
        Churn::count(&self.broker.roster.churn.channels_closed);
        self.guest.close_channel(number);
        if self.channels.remove(&number).is_some() {
            news::channel_closed(&self.broker, &self.guest, number);
            self.broker.give_channel_back(&self.agreed.place);
        }
    }

    /// Ends everything but a commit that waits for the store: channels, consumers, exclusive queues.
    /// Called again, it does nothing.
    fn end(&mut self) {
        self.held.clear();
        self.flush();
        if let Some(queue) = self.batch.ahead_in.take() {
            queue.let_go(&self.outbox);
        }
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            self.close_channel(number);
            news::channel_closed(&self.broker, &self.guest, number);
        }
        self.channels.clear();
        self.agreed.vhost.end_connection(self.agreed.caller.connection);
        self.agreed.place.leave();
    }

    /// Sees a commit through that waits for the store: its record is on its way and cannot be called
    /// back, and its messages are not to be seen before it has arrived.
    async fn settle_parked(&mut self) {
        while let Some((_, wait)) = &self.parked {
            if matches!(wait.then, Then::Get(_)) {
                // Nobody waits for it any more.
                self.parked = None;
                return;
            }
            if wait.ticket > self.session.durable() {
                self.outbox.rung().await;
                continue;
            }
            if let Some((number, wait)) = self.parked.take() {
                self.unpark(number, wait);
            }
        }
    }

    /// Hands over what was published, acknowledged and returned.
    fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.slow_rounds = if self.broker.memory().is_over() { SLOW_ROUNDS } else { 0 };
            let Flushed { ticket, confirming, refused, returned } =
                self.batch.flush(&mut self.session, &self.outbox);
            for Origin { channel, tag } in refused {
                self.channels.get_mut(&channel).into_iter().for_each(|channel| channel.refused(tag));
            }
            for number in confirming {
                if let Some(channel) = self.channels.get_mut(&number) {
                    channel.sent(ticket.unwrap_or(Ticket(0)));
                    if !self.confirming.contains(&number) {
                        self.confirming.push(number);
                    }
                }
            }
            for (Origin { channel, .. }, message) in returned {
                if let Some(channel) = self.channels.get_mut(&channel) {
                    channel.returned(context!(self, &Bytes::new(), 0), &message);
                }
            }
            // What the store never sees is confirmed at once.
            self.confirm();
        }
        let has_settled =
            !self.settlements.is_empty() || !self.requeues.is_empty() || !self.rejections.is_empty();
        if !self.settlements.is_empty() {
            self.settlements.flush(&mut self.session);
        }
        if !self.requeues.is_empty() {
            requeue(self.requeues.drain(..));
        }
        if !self.rejections.is_empty() {
            reject(self.rejections.drain(..));
        }
        if has_settled {
            self.channels.values_mut().for_each(Channel::give_back_credit);
        }
    }

    fn confirm(&mut self) {
        let durable = self.session.durable();
        let (channels, out) = (&mut self.channels, &mut self.out);
        self.confirming.retain(|number| channels.get_mut(number).is_some_and(|c| c.confirm(out, durable)));
    }

    /// The store has written, or read, what a channel waited for.
    fn unpark(&mut self, number: u16, wait: Wait) {
        let reply = match wait.then {
            Then::Reply(reply) => reply,
            Then::Commit(commit, reply) => {
                commit.finish();
                self.channels.get_mut(&number).into_iter().for_each(Channel::give_back_credit);
                reply
            }
            Then::Get(get) => {
                const GET: (u16, u16) = (60, 70);
                let nothing = Bytes::new();
                let Some(channel) = self.channels.get_mut(&number).filter(|c| c.is_open()) else { return };
                let outcome = channel.get(context!(self, &nothing, 0), get);
                return self.go_on(number, outcome.map_err(|e| Failure::of(e, GET)));
            }
        };
        if self.phase == Phase::Running {
            self.put(number, reply);
        }
    }

    /// Takes what others have put into the outbox.
    fn take_outbox(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        let stalled = self.outbox.take(&mut events);
        let nothing = Bytes::new();
        let now_ms = self.broker.clock().now_ms();
        let mut wish_to_close = None;
        for event in events.drain(..) {
            match event {
                Event::Deliver(delivery) => {
                    if let Some(channel) = self.channels.get_mut(&delivery.channel) {
                        channel.deliver(context!(self, &nothing, now_ms), delivery);
                    }
                }
                Event::Cancel { channel, consumer } => {
                    if let Some(channel) = self.channels.get_mut(&channel) {
                        channel.cancelled_by_broker(context!(self, &nothing, 0), consumer);
                    }
                }
                Event::Timeout { channel, consumer, timeout_ms } => {
                    if let Some(channel) = self.channels.get_mut(&channel) {
                        channel.set_timeout(consumer, timeout_ms, now_ms);
                    }
                }
                // Not before all deliveries are with their channels, or they would be lost.
                Event::Ask { queue, max, answer } => {
                    let held = self.channels.values().flat_map(|channel| channel.holds(queue)).take(max);
                    // Whoever asked may have given up.
                    let _ = answer.send(held.collect());
                }
                Event::Close(exception) => wish_to_close = Some(exception),
            }
        }
        self.events = events;
        for (queue, consumer) in stalled {
            queue.resume(consumer);
        }
        if let Some(exception) = wish_to_close
            && self.phase == Phase::Running
        {
            self.fail(0, Failure::of_none(exception.on_connection()));
        }
    }

    /// A consumer has been taken from its queue: what it still got goes out, then the reply.
    fn cancelled(&mut self, number: u16, consumer: ConsumerId, reply: Option<Cold>) {
        self.take_outbox();
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.forget_consumer(context!(self, &Bytes::new(), 0), consumer);
        }
        if let Some(reply) = reply {
            self.put(number, reply);
        }
    }

    /// Whether a frame must wait for the end of an alarm: publishes do, and what follows them on their
    /// channel. Everything else goes on.
    fn must_block(&mut self, frame: &Frame<'_>) -> bool {
        if self.phase != Phase::Running {
            return false;
        }
        if self.blocked.contains(&frame.channel) {
            return true;
        }
        let is_publish = frame.kind == FrameKind::Method && frame.payload.starts_with(PUBLISH);
        let is_open = self.channels.get(&frame.channel).is_some_and(Channel::is_open);
        if !is_publish || !is_open || !self.broker.alarm().is_on() {
            return false;
        }
        self.blocked.push(frame.channel);
        self.guest.is_blocked.store(true, Ordering::Relaxed);
        if self.wants_blocked_notices && !self.is_told_blocked {
            self.is_told_blocked = true;
            let reason = self.broker.alarm().reason();
            let blocked = connection_class::Blocked { reason: reason.as_str().into() };
            self.put(0, Cold::Connection(connection_class::AMQPMethod::Blocked(blocked)));
        }
        true
    }

    fn alarm_changed(&mut self, alarm: &Alarm) {
        if alarm.is_on() {
            return;
        }
        self.blocked.clear();
        self.guest.is_blocked.store(false, Ordering::Relaxed);
        if !self.held.is_empty() {
            // What waited comes before what has come since.
            self.held.extend_from_slice(&self.input);
            self.input = self.held.split().freeze();
        }
        if self.is_told_blocked {
            self.is_told_blocked = false;
            let unblocked = connection_class::AMQPMethod::Unblocked(connection_class::Unblocked {});
            self.put(0, Cold::Connection(unblocked));
        }
    }

    fn put(&mut self, channel: u16, method: Cold) {
        frame::put_method(self.out.frames(), channel, &method);
    }

    fn write(&mut self, stream: &mut Stream, context: &mut task::Context<'_>) -> io::Result<()> {
        while !self.out.is_empty() {
            let (slices, n) = self.out.slices();
            match stream.try_write(context, &slices[..n]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.out.advance(written);
                    Traffic::add(&self.guest.traffic.sent_bytes, written as u64);
                    Traffic::add(&self.guest.traffic.writes, 1);
                    let now = Instant::now();
                    self.heartbeat.sent(now);
                    if !self.wants_input() {
                        // We are not listening, so that it takes what we send has to count.
                        self.heartbeat.heard(now);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.outbox.set_clogged(true);
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        stream.try_flush(context)?;
        self.outbox.set_clogged(false);
        if self.out.len() < WRITE_BYTES_LOW && !self.outbox.is_empty() {
            // More was left in the outbox than could be taken: come round again.
            self.outbox.ring();
        }
        Ok(())
    }

    fn beat(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.parked.is_some()
            || self.held.len() >= HELD_BYTES_MAX
            || self.session.is_full()
            || self.slow_rounds > 0
            || self.batch.ahead_in.is_some()
        {
            // It is we who do not listen.
            self.heartbeat.heard(now);
        }
        match self.heartbeat.beat(now) {
            Beat::Rest => {}
            Beat::Send if self.out.is_empty() => frame::put_heartbeat(self.out.frames()),
            Beat::Send => {}
            Beat::Dead => {
                debug!("no sign of life for two heartbeats");
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no sign of life for two heartbeats"));
            }
        }
        Ok(())
    }
}

/// Reads what the client still sends until it hangs up, for a while: closing a socket with unread bytes
/// would reset it, and the client might never see our last frames.
async fn hear_out(stream: &mut Stream) {
    // Not on the stack: it would be part of every connection's task.
    let mut sink = vec![0; 4096];
    let until_end = async { while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {} };
    let _ = tokio::time::timeout(HANG_UP_TIMEOUT, until_end).await;
}

fn channel_close_ok() -> Cold {
    Cold::Channel(channel_class::AMQPMethod::CloseOk(channel_class::CloseOk {}))
}

fn connection_close_ok() -> Cold {
    Cold::Connection(connection_class::AMQPMethod::CloseOk(connection_class::CloseOk {}))
}
