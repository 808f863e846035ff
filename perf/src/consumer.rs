//! A connection that consumes: checks each message against the ledger of its queue, and acknowledges.

use std::sync::atomic::Ordering::Relaxed;

use amqp::frame;
use amqp::method::Ack;

use crate::board::{Board, Counts, Stage};
use crate::delivery::{Assembly, Delivery, Fed};
use crate::error::{Error, Result};
use crate::host::{Desk, Work};
use crate::ledger::Order;
use crate::line::Line;
use crate::numbers::Seen;
use crate::session::{CHANNEL, Session, bad_frame, closed};
use crate::setup::{self, Consume};
use crate::topology::Topology;

/// What all consumers of a run have in common.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many there are.
    pub consumers: usize,
    /// After how many deliveries an acknowledgement goes out; 0 is automatic acknowledgement.
    pub ack_every: u64,
    /// How many deliveries may be unacknowledged; 0 is no limit.
    pub prefetch: u16,
    /// Octets that a body must have, if that is known.
    pub body_bytes: Option<u64>,
    /// Whether each latency is noted, not a sample: the rate is fixed, so there is time.
    pub is_each_latency_noted: bool,
    /// Whether the producers are in this process, so that times in stamps mean something.
    pub has_latency: bool,
}

/// At full speed the latency of one delivery in this many is noted.
const SAMPLE: u64 = 64;

/// What is unacknowledged goes out after this much silence, so that nothing stays behind.
const ACK_SILENCE_NS: u64 = 100_000_000;

/// See the head of the file.
pub struct Consumer {
    line: Line,
    options: Options,
    /// The same as the options', but never more than the prefetch: nothing would come any more.
    ack_every: u64,
    assembly: Assembly,
    /// By queue.
    orders: Vec<Order>,
    unacknowledged: u64,
    last_tag: u64,
    last_received_ns: u64,
}

/// The queues that a consumer consumes from. Consumers that share one have the same remainder.
pub fn queues_of(consumer: usize, consumers: usize, queues: usize) -> impl Iterator<Item = usize> {
    let step = consumers.min(queues);
    let end = if consumers < queues { queues } else { consumer % queues + 1 };
    (consumer % queues..end).step_by(step)
}

impl Consumer {
    /// Makes consumer number `index` out of a connection. It starts to consume with its first turn.
    pub fn new(
        mut session: Session,
        topology: &Topology,
        options: &Options,
        index: usize,
    ) -> Result<Consumer> {
        if options.prefetch > 0 {
            setup::prefetch(&mut session, options.prefetch)?;
        }
        let mut line = Line::new(session)?;
        for queue in queues_of(index, options.consumers, topology.queues.len()) {
            // Nobody waits for the answers: deliveries may come between them.
            let how = Consume { no_ack: options.ack_every == 0, nowait: true };
            let consume = setup::consume(&topology.queues[queue], queue, how);
            frame::put_method(&mut line.outbox, CHANNEL, &consume);
        }
        Ok(Consumer {
            line,
            options: options.clone(),
            ack_every: match options.prefetch {
                0 => options.ack_every,
                prefetch => options.ack_every.min(prefetch.into()),
            },
            assembly: Assembly::default(),
            orders: topology.queues.iter().map(|_| Order::default()).collect(),
            unacknowledged: 0,
            last_tag: 0,
            last_received_ns: 0,
        })
    }

    /// Says goodbye.
    pub fn close(self) -> Result<()> {
        self.line.close()
    }

    fn hear(&mut self, desk: &mut Desk, board: &Board) -> Result<()> {
        let Consumer { line, options, assembly, orders, .. } = self;
        let Line { inbox, outbox, address, .. } = line;
        let now_ns = board.now_ns();
        let has_latency = options.has_latency && board.is_measuring();
        let mut counts = Counts::default();
        for frame in inbox.take_frames().map_err(|e| bad_frame(address, e))? {
            let delivery = match assembly.feed(frame) {
                Fed::Part => continue,
                Fed::Whole(delivery) => delivery,
                Fed::Method => match closed(address, frame.payload) {
                    Some(error) => return Err(error),
                    None => continue,
                },
                Fed::Misplaced => return Err(misplaced(address)),
            };
            let Some(order) = orders.get_mut(delivery.queue) else { return Err(misplaced(address)) };
            check(&delivery, options.body_bytes, order, desk, &mut counts);
            if let (true, Some((_, Some(sent_at_ns)))) = (has_latency, delivery.stamp)
                && (options.is_each_latency_noted || delivery.delivery_tag.is_multiple_of(SAMPLE))
            {
                desk.record(now_ns.saturating_sub(sent_at_ns));
            }
            self.last_tag = delivery.delivery_tag;
            self.unacknowledged += 1;
            if self.unacknowledged == self.ack_every {
                frame::put_ack(outbox, CHANNEL, Ack { delivery_tag: self.last_tag, multiple: true });
                self.unacknowledged = 0;
            }
        }
        board.counters.add(&counts);
        if counts.received > 0 {
            self.last_received_ns = now_ns;
            board.last.received_ns.fetch_max(now_ns, Relaxed);
        }
        Ok(())
    }

    fn has_to_ack(&self) -> bool {
        self.ack_every > 0 && self.unacknowledged > 0
    }

    /// Whether the last deliveries wait for their acknowledgement in vain.
    fn is_silent(&self, board: &Board) -> bool {
        board.now_ns() >= self.last_received_ns + ACK_SILENCE_NS || self.is_last(board)
    }

    fn is_last(&self, board: &Board) -> bool {
        board.stage() >= Stage::Stopping && board.has_all()
    }
}

impl Work for Consumer {
    fn line(&self) -> &Line {
        &self.line
    }

    fn wants_to_write(&self, _: &Board) -> bool {
        !self.line.is_flushed()
    }

    fn due_ns(&self) -> Option<u64> {
        self.has_to_ack().then_some(self.last_received_ns + ACK_SILENCE_NS)
    }

    fn turn(&mut self, is_readable: bool, desk: &mut Desk, board: &Board) -> Result<()> {
        if is_readable && self.line.receive()? {
            self.hear(desk, board)?;
        }
        if self.has_to_ack() && self.is_silent(board) {
            let ack = Ack { delivery_tag: self.last_tag, multiple: true };
            frame::put_ack(&mut self.line.outbox, CHANNEL, ack);
            self.unacknowledged = 0;
        }
        self.line.flush().map(drop)
    }

    fn is_done(&self, board: &Board) -> bool {
        self.is_last(board) && self.line.is_flushed() && !self.has_to_ack()
    }
}

/// Enters one delivery into the ledger of its queue and counts what is wrong with it.
#[inline]
fn check(
    delivery: &Delivery,
    body_bytes: Option<u64>,
    order: &mut Order,
    desk: &mut Desk,
    counts: &mut Counts,
) {
    counts.received += 1;
    counts.redelivered += u64::from(delivery.is_redelivered);
    if body_bytes.is_some_and(|expected| expected != delivery.body_bytes) {
        counts.unreadable += 1;
        return;
    }
    let Some((stamp, _)) = delivery.stamp else { return };
    match desk.ledgers[delivery.queue].see(stamp) {
        Seen::New => {
            let is_in_order = delivery.is_redelivered || order.follows(stamp);
            counts.out_of_order += u64::from(!is_in_order);
        }
        Seen::Again => {
            counts.repeated += 1;
            counts.duplicated += u64::from(!delivery.is_redelivered);
        }
        Seen::TooFar => counts.unreadable += 1,
    }
}

fn misplaced(address: &str) -> Error {
    Error::Unexpected { address: address.into(), what: "frame within a delivery".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;

    fn counted(deliveries: &[(u64, bool)]) -> Counts {
        let (mut desk, mut order, mut counts) = (Desk::new(1), Order::default(), Counts::default());
        for &(number, is_redelivered) in deliveries {
            let stamp = Some((Stamp { stream: 0, number }, None));
            let delivery = Delivery { is_redelivered, stamp, body_bytes: 16, ..Default::default() };
            check(&delivery, Some(16), &mut order, &mut desk, &mut counts);
        }
        counts
    }

    #[test]
    fn every_queue_has_a_consumer_and_every_consumer_a_queue() {
        let all = |consumers, queues| -> Vec<Vec<usize>> {
            (0..consumers).map(|c| queues_of(c, consumers, queues).collect()).collect()
        };

        assert_eq!(all(2, 5), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(all(3, 2), [[0], [1], [0]]);
        assert_eq!(all(2, 2), [[0], [1]]);
    }

    #[test]
    fn a_message_that_comes_twice_unmarked_is_a_duplicate_and_no_disorder() {
        let counts = counted(&[(0, false), (1, false), (0, false)]);

        let expected = Counts { received: 3, duplicated: 1, repeated: 1, ..Default::default() };
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_redelivered_message_may_come_late_and_again() {
        let counts = counted(&[(1, false), (0, true), (1, true)]);

        let expected = Counts { received: 3, redelivered: 2, repeated: 1, ..Default::default() };
        assert_eq!(counts, expected);
    }

    #[test]
    fn an_unmarked_message_after_a_later_one_is_out_of_order() {
        assert_eq!(counted(&[(1, false), (0, false)]).out_of_order, 1);
    }
}
