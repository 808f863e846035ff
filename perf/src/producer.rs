//! A connection that publishes: numbers its messages, keeps a window of unconfirmed ones and a pace.

use std::sync::atomic::Ordering::Relaxed;

use amqp::content::Properties;
use amqp::limits::FRAME_HEAD_BYTES;
use amqp::method::{Cold, basic, confirm};
use amqp::{FrameKind, Method, Table, Value, frame, method};
use bytes::{Bytes, BytesMut};

use crate::board::{Board, Counts, Stage};
use crate::error::Result;
use crate::host::{Desk, Work};
use crate::line::Line;
use crate::numbers::{Numbers, Seen};
use crate::pace::Pace;
use crate::session::{CHANNEL, Session, bad_frame, closed};
use crate::stamp::{self, Stamp};
use crate::topology::{Exchange, Topology};

/// What all producers of a run have in common.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many there are.
    pub producers: usize,
    /// Octets of a body.
    pub body_bytes: usize,
    /// Delivery mode 2.
    pub is_persistent: bool,
    /// Ask for messages back that no queue takes.
    pub is_mandatory: bool,
    /// How many messages may be unconfirmed; 0 asks for no confirms.
    pub confirm_window: u64,
    /// Messages a second of all together.
    pub per_second: Option<f64>,
    /// Messages of all together.
    pub count: Option<u64>,
}

/// The streams that a producer publishes in turn.
struct Lane {
    stream: u16,
    number: u64,
    /// basic.publish and the content header.
    head: Bytes,
}

/// Messages on their way to be confirmed.
struct Confirms {
    window: u64,
    /// Delivery tags less one: those that were answered.
    answered: Numbers,
    /// How many of them.
    answered_count: u64,
    /// When a message went out, by its tag modulo the length, which is no less than the window.
    sent_at_ns: Box<[u64]>,
}

/// What all buffers together may take: more would not stay in the processor's cache.
const BUFFERS_BYTES: usize = 4 << 20;
const BUFFER_BYTES_MIN: usize = 16 * 1024;
const BUFFER_BYTES_MAX: usize = 128 * 1024;

/// See the head of the file.
pub struct Producer {
    line: Line,
    lanes: Vec<Lane>,
    lane: usize,
    /// Body frames with their envelopes, the same for all messages but for the stamp.
    tail: Bytes,
    /// Octets of the first body frame that the stamp may take.
    stamp_bytes: usize,
    /// How many messages go into a buffer.
    batch: u64,
    /// Messages put into the buffer so far: the delivery tag of the last.
    loaded: u64,
    /// Of these, the ones that are written.
    published: u64,
    /// Messages to publish in all.
    count: u64,
    confirms: Option<Confirms>,
    pace: Option<Pace>,
    /// Messages are late because the broker did not take them in time.
    is_held_back: bool,
    is_stopping: bool,
}

impl Producer {
    /// Makes producer number `index` out of a connection.
    pub fn new(
        mut session: Session,
        topology: &Topology,
        options: &Options,
        index: usize,
        now_ns: u64,
    ) -> Result<Producer> {
        if options.confirm_window > 0 {
            session.call(Cold::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })))?;
        }
        let tail = tail(options.body_bytes, session.frame_bytes_max);
        let streams = index..topology.streams(options.producers)?;
        let lane = |stream: usize| {
            let head = head(topology, stream % topology.keys.len(), options);
            Lane { stream: stream as u16, number: 0, head }
        };
        let lanes: Vec<Lane> = streams.step_by(options.producers).map(lane).collect();
        let message_bytes = lanes[0].head.len() + tail.len();
        let buffer_bytes = (BUFFERS_BYTES / options.producers).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        let (producers, index_u64) = (options.producers as u64, index as u64);
        Ok(Producer {
            line: Line::new(session)?,
            lanes,
            lane: 0,
            tail,
            stamp_bytes: options.body_bytes.min(stamp::BYTES),
            batch: (buffer_bytes / message_bytes).max(1) as u64,
            loaded: 0,
            published: 0,
            // The first ones take what does not divide.
            count: options
                .count
                .map_or(u64::MAX, |all| all / producers + u64::from(index_u64 < all % producers)),
            confirms: (options.confirm_window > 0).then(|| Confirms::new(options.confirm_window)),
            pace: options.per_second.map(|rate| Pace::share(rate, index, options.producers, now_ns)),
            is_held_back: false,
            is_stopping: false,
        })
    }

    /// How many messages of which streams were published.
    pub fn sent(&self) -> impl Iterator<Item = (usize, u64)> {
        self.lanes.iter().map(|lane| (usize::from(lane.stream), lane.number))
    }

    /// Says goodbye.
    pub fn close(self) -> Result<()> {
        self.line.close()
    }

    /// How many messages may go now, whatever the pace.
    fn room(&self) -> u64 {
        let window = self.confirms.as_ref().map_or(u64::MAX, |confirms| confirms.room(self.loaded));
        window.min(self.count - self.loaded)
    }

    /// Fills the buffer with what may go and is due.
    fn load(&mut self, board: &Board) {
        let (now_ns, room) = (board.now_ns(), self.room());
        let due = self.pace.map_or(u64::MAX, |pace| pace.due(now_ns, self.loaded));
        let n = if self.line.is_flushed() { room.min(due).min(self.batch) } else { 0 };
        for _ in 0..n {
            // What the broker held back counts from when it was due; what our own clock overslept does not.
            let sent_at_ns = match self.pace {
                Some(pace) if self.is_held_back => pace.due_ns(self.loaded),
                _ => now_ns,
            };
            self.load_one(sent_at_ns);
        }
        self.is_held_back = self.pace.is_some() && n < due.min(self.count - self.loaded + n);
    }

    #[inline]
    fn load_one(&mut self, sent_at_ns: u64) {
        let lane = &mut self.lanes[self.lane];
        let out = &mut self.line.outbox;
        out.extend_from_slice(&lane.head);
        let at = out.len() + FRAME_HEAD_BYTES;
        out.extend_from_slice(&self.tail);
        if let Some(place) = out.get_mut(at..at + self.stamp_bytes) {
            stamp::write(place, Stamp { stream: lane.stream, number: lane.number }, sent_at_ns);
        }
        lane.number += 1;
        self.lane += 1;
        if self.lane == self.lanes.len() {
            self.lane = 0;
        }
        if let Some(confirms) = &mut self.confirms {
            confirms.note(self.loaded, sent_at_ns);
        }
        self.loaded += 1;
    }

    /// Looks at what the broker said.
    fn hear(&mut self, desk: &mut Desk, board: &Board) -> Result<()> {
        let Line { inbox, address, .. } = &mut self.line;
        let frames = inbox.take_frames().map_err(|e| bad_frame(address, e))?;
        let (now_ns, is_measuring) = (board.now_ns(), board.is_measuring());
        let mut counts = Counts::default();
        for frame in frames.filter(|frame| frame.kind == FrameKind::Method) {
            let (tag, multiple, counter) = match (method::decode(frame.payload), method::ids(frame.payload)) {
                (Ok(Method::Ack(ack)), _) => (ack.delivery_tag, ack.multiple, &mut counts.confirmed),
                (_, (60, 50)) => {
                    counts.returned += 1;
                    continue;
                }
                (Ok(Method::Cold(cold)), _) => match *cold {
                    Cold::Basic(basic::AMQPMethod::Nack(nack)) => {
                        (nack.delivery_tag, nack.multiple, &mut counts.nacked)
                    }
                    _ => match closed(address, frame.payload) {
                        Some(error) => return Err(error),
                        None => continue,
                    },
                },
                _ => continue,
            };
            if let Some(confirms) = &mut self.confirms {
                *counter += confirms.answer(tag, multiple, self.loaded, |sent_at_ns| {
                    if is_measuring {
                        desk.record(now_ns.saturating_sub(sent_at_ns));
                    }
                });
            }
        }
        board.counters.add(&counts);
        if counts.confirmed + counts.nacked > 0 {
            board.last.confirmed_ns.fetch_max(now_ns, Relaxed);
        }
        Ok(())
    }
}

impl Work for Producer {
    fn line(&self) -> &Line {
        &self.line
    }

    fn wants_to_write(&self, _: &Board) -> bool {
        !self.line.is_flushed() || (self.pace.is_none() && self.room() > 0)
    }

    fn due_ns(&self) -> Option<u64> {
        let pace = self.pace.filter(|_| self.line.is_flushed() && self.room() > 0)?;
        Some(pace.due_ns(self.loaded))
    }

    fn turn(&mut self, is_readable: bool, desk: &mut Desk, board: &Board) -> Result<()> {
        if is_readable && self.line.receive()? {
            self.hear(desk, board)?;
        }
        if board.stage() >= Stage::Stopping && !self.is_stopping {
            self.is_stopping = true;
            self.count = self.loaded;
        }
        self.load(board);
        if self.line.flush()? && self.published < self.loaded {
            board.counters.published.fetch_add(self.loaded - self.published, Relaxed);
            board.last.published_ns.fetch_max(board.now_ns(), Relaxed);
            self.published = self.loaded;
        }
        Ok(())
    }

    fn is_done(&self, _: &Board) -> bool {
        let is_answered = self.confirms.as_ref().is_none_or(|c| c.answered_count == self.loaded);
        self.loaded == self.count && self.line.is_flushed() && is_answered
    }
}

impl Confirms {
    fn new(window: u64) -> Self {
        let slots = window.next_power_of_two() as usize;
        let sent_at_ns = vec![0; slots].into_boxed_slice();
        Confirms { window, answered: Numbers::default(), answered_count: 0, sent_at_ns }
    }

    fn room(&self, loaded: u64) -> u64 {
        // Counted from the oldest unanswered one, so that no time is overwritten before its answer.
        self.window.saturating_sub(loaded - self.answered.next())
    }

    #[inline]
    fn note(&mut self, index: u64, sent_at_ns: u64) {
        let slot = index as usize & (self.sent_at_ns.len() - 1);
        self.sent_at_ns[slot] = sent_at_ns;
    }

    /// Takes the answer to one message or all up to it, shows when each was sent, and counts them.
    fn answer(&mut self, tag: u64, multiple: bool, loaded: u64, mut show: impl FnMut(u64)) -> u64 {
        // Tag 0 with `multiple` is all so far (specification 1.8.3.13).
        let tag = if tag == 0 && multiple { loaded } else { tag.min(loaded) };
        let Some(last) = tag.checked_sub(1) else { return 0 };
        let first = if multiple { self.answered.next() } else { last };
        let mut count = 0;
        for index in first..=last {
            if self.answered.see(index) == Seen::New {
                show(self.sent_at_ns[index as usize & (self.sent_at_ns.len() - 1)]);
                count += 1;
            }
        }
        self.answered_count += count;
        count
    }
}

/// basic.publish and content header of a message with key number `key`.
fn head(topology: &Topology, key: usize, options: &Options) -> Bytes {
    let (is_by_header, key) = (topology.shape.exchange == Exchange::Headers, &topology.keys[key]);
    let publish = basic::Publish {
        exchange: topology.exchange_name().into(),
        routing_key: if is_by_header { "".into() } else { key.as_str().into() },
        mandatory: options.is_mandatory,
        ..Default::default()
    };
    let mut headers = Vec::new();
    if is_by_header {
        Table::from_iter([("key", Value::text(key.as_str()))]).encode(&mut headers);
    }
    let properties = Properties {
        headers: is_by_header.then_some(&headers),
        delivery_mode: options.is_persistent.then_some(2),
        ..Default::default()
    };
    let mut out = BytesMut::new();
    frame::put_method(&mut out, CHANNEL, &Cold::Basic(basic::AMQPMethod::Publish(publish)));
    frame::put_header(&mut out, CHANNEL, options.body_bytes as u64, &properties.encode());
    out.freeze()
}

/// The body frames of a message, not yet stamped.
fn tail(body_bytes: usize, frame_bytes_max: u32) -> Bytes {
    let body = vec![b'x'; body_bytes];
    let mut out = BytesMut::new();
    for part in frame::body_parts(body_bytes, frame_bytes_max) {
        frame::put_body(&mut out, CHANNEL, &body[part]);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirms(window: u64, sent: u64) -> Confirms {
        let mut confirms = Confirms::new(window);
        (0..sent).for_each(|index| confirms.note(index, 100 + index));
        confirms
    }

    #[test]
    fn single_confirms_in_any_order_open_the_window_from_its_oldest() {
        let mut confirms = confirms(4, 4);
        assert_eq!(confirms.room(4), 0);

        let mut times = Vec::new();
        assert_eq!(confirms.answer(2, false, 4, |t| times.push(t)), 1);
        assert_eq!(confirms.room(4), 0);
        assert_eq!(confirms.answer(1, false, 4, |t| times.push(t)), 1);
        assert_eq!(confirms.room(4), 2);

        assert_eq!(times, [101, 100]);
    }

    #[test]
    fn a_multiple_confirm_counts_what_was_not_confirmed_before() {
        let mut confirms = confirms(8, 6);
        confirms.answer(3, false, 6, |_| {});

        let mut times = Vec::new();
        assert_eq!(confirms.answer(5, true, 6, |t| times.push(t)), 4);

        assert_eq!(times, [100, 101, 103, 104]);
        assert_eq!((confirms.answered_count, confirms.room(6)), (5, 7));
        assert_eq!(confirms.answer(0, true, 6, |_| {}), 1);
    }

    #[test]
    fn a_confirm_of_what_was_never_sent_counts_nothing() {
        let mut confirms = confirms(4, 1);

        assert_eq!(confirms.answer(0, false, 1, |_| {}), 0);
        assert_eq!(confirms.answer(9, false, 1, |_| {}), 1, "no more than was sent");
        assert_eq!(confirms.answer(1, false, 1, |_| {}), 0);
    }

    #[test]
    fn a_large_body_is_cut_to_the_frame_size() {
        let tail = tail(10_000, 4096);

        let sizes: Vec<usize> = frame::Frames::new(&tail).map(|frame| frame.payload.len()).collect();
        assert_eq!(sizes, [4088, 4088, 1824]);
    }
}
