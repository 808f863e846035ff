//! What was published, confirmed, received and acknowledged without transactions, and what that allows.

use std::time::Instant;

use crate::findings::Findings;

/// The queues; the last three are behind one fanout exchange.
pub const QUEUES: [&str; 5] = ["crash.one", "crash.two", "crash.fan.a", "crash.fan.b", "crash.fan.c"];
/// Bound to the last three queues.
pub const FANOUT: &str = "crash.fan";
/// Bound to the first two queues by `both.#`.
pub const TOPIC: &str = "crash.topic";

pub const LOST: &str = "confirmed and lost";
pub const ORDER: &str = "out of order";
pub const LATE: &str = "acked long before the kill, and came again";
pub const UNFLAGGED: &str = "came again long after its delivery, not flagged";

/// An ack that was sent this long before a kill has been synced.
const ACK_AGE_MAX_MS: u32 = 1000;

const HEAD: usize = 16;

/// Who published, and the how manieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub publisher: u32,
    pub n: u64,
}

/// Where a message goes: exchange, routing key, and which queues that means.
pub fn route(number: Number) -> (&'static str, &'static str, &'static [usize]) {
    match number.n % 5 {
        0 => ("", QUEUES[0], &[0]),
        1 => ("", QUEUES[1], &[1]),
        2 => (TOPIC, "both.of.them", &[0, 1]),
        _ => (FANOUT, "", &[2, 3, 4]),
    }
}

/// A body that names its message and can be checked to the last octet.
pub fn body(number: Number, size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEAD + size);
    body.extend(number.publisher.to_be_bytes());
    body.extend((size as u32).to_be_bytes());
    body.extend(number.n.to_be_bytes());
    body.extend((0..size).map(|at| filling(number.n, at)));
    body
}

fn filling(n: u64, at: usize) -> u8 {
    (at as u64).wrapping_mul(167).wrapping_add(n) as u8 ^ (at >> 8) as u8
}

/// Reads and checks a body. `None` if it is not what anybody published.
pub fn read(body: &[u8]) -> Option<Number> {
    let (head, filled) = body.split_at_checked(HEAD)?;
    let publisher = u32::from_be_bytes(head[..4].try_into().ok()?);
    let size = u32::from_be_bytes(head[4..8].try_into().ok()?);
    let n = u64::from_be_bytes(head[8..].try_into().ok()?);
    let is_whole = filled.len() == size as usize
        && filled.iter().enumerate().all(|(at, octet)| *octet == filling(n, at));
    is_whole.then_some(Number { publisher, n })
}

/// What the consumer last did with a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It has not come.
    Out,
    /// It has come, and nothing was said.
    Held,
    /// An ack is being sent.
    Acking,
    /// The ack has been sent.
    Acked,
    /// It was given back.
    Returned,
}

/// A message in one queue.
#[derive(Clone, Copy)]
struct Copy {
    fate: Fate,
    received: u16,
    run: u16,
    /// When that fate began.
    at_ms: u32,
}

struct Sent {
    is_confirmed: bool,
    copies: [Copy; QUEUES.len()],
}

/// What to do with a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Ack,
    Return,
}

/// The book of one run of the harness.
pub struct Ledger {
    start: Instant,
    publishers: Vec<Vec<Sent>>,
    /// Number of the broker's present life.
    run: u16,
    /// When each life ended.
    kills_ms: Vec<u32>,
    last_first: [Vec<Option<u64>>; QUEUES.len()],
    pub tally: Tally,
}

/// Counts that are no violations.
#[derive(Default, Clone)]
pub struct Tally {
    pub published: u64,
    pub confirmed: u64,
    pub refused: u64,
    /// First deliveries, once for each queue.
    pub received: u64,
    /// Came again after a kill although an ack was on its way: allowed if it was not synced yet.
    pub duplicated: u64,
    /// How old the oldest ack of these was at the kill.
    pub duplicate_ack_age_ms_max: u32,
    /// Came again after a kill before anything was said.
    pub redelivered: u64,
    /// Of both, without the redelivered flag.
    pub unflagged: u64,
    /// How long before the kill the first delivery of these was at most.
    pub unflagged_age_ms_max: u32,
    /// Given back by the consumer, and came again.
    pub returned: u64,
    /// Not confirmed and there all the same.
    pub unconfirmed_received: u64,
    pub backlog: i64,
    pub backlog_max: i64,
}

impl Ledger {
    pub fn new(publishers: usize) -> Ledger {
        Ledger {
            start: Instant::now(),
            publishers: (0..publishers).map(|_| Vec::new()).collect(),
            run: 0,
            kills_ms: Vec::new(),
            last_first: std::array::from_fn(|_| vec![None; publishers]),
            tally: Tally::default(),
        }
    }

    fn now_ms(&self) -> u32 {
        self.start.elapsed().as_millis() as u32
    }

    /// The next number of a publisher, which is about to be sent.
    pub fn publish(&mut self, publisher: u32) -> Number {
        let sent = &mut self.publishers[publisher as usize];
        let number = Number { publisher, n: sent.len() as u64 };
        let copy = Copy { fate: Fate::Out, received: 0, run: 0, at_ms: 0 };
        sent.push(Sent { is_confirmed: false, copies: [copy; QUEUES.len()] });
        self.tally.published += 1;
        self.tally.backlog += route(number).2.len() as i64;
        self.tally.backlog_max = self.tally.backlog_max.max(self.tally.backlog);
        number
    }

    pub fn confirm(&mut self, number: Number) {
        self.publishers[number.publisher as usize][number.n as usize].is_confirmed = true;
        self.tally.confirmed += 1;
    }

    /// A delivery has come from a queue.
    pub fn receive(
        &mut self,
        queue: usize,
        number: Number,
        redelivered: bool,
        findings: &Findings,
    ) -> Answer {
        let (now_ms, run, name) = (self.now_ms(), self.run, QUEUES[queue]);
        let about = || format!("life {run}, {name}, {number:?}");
        let sent = self.publishers.get_mut(number.publisher as usize);
        let Some(sent) = sent.and_then(|sent| sent.get_mut(number.n as usize)) else {
            findings.add("never published", about());
            return Answer::Ack;
        };
        if !route(number).2.contains(&queue) {
            findings.add("in a wrong queue", about());
        }
        let copy = &mut sent.copies[queue];
        let before = *copy;
        *copy = Copy { fate: Fate::Held, received: before.received + 1, run, at_ms: now_ms };
        if before.fate == Fate::Out {
            let last = &mut self.last_first[queue][number.publisher as usize];
            if last.is_some_and(|last| last >= number.n) {
                findings.add(ORDER, format!("{} after number {last:?}", about()));
            }
            *last = (*last).max(Some(number.n));
            self.tally.received += 1;
            self.tally.unconfirmed_received += u64::from(!sent.is_confirmed);
            let is_returned = number.n.is_multiple_of(101);
            return if is_returned { Answer::Return } else { Answer::Ack };
        }

        if before.fate == Fate::Returned && before.run == run {
            self.tally.returned += 1;
            if !redelivered {
                findings.add("given back and not flagged as redelivered", about());
            }
            return Answer::Ack;
        }
        if before.run == run {
            findings.add("came again in the same life", format!("{}, which was {:?}", about(), before.fate));
            return Answer::Ack;
        }
        let killed_ms = self.kills_ms[usize::from(before.run)];
        let age_ms = killed_ms.saturating_sub(before.at_ms);
        if !redelivered {
            self.tally.unflagged += 1;
            self.tally.unflagged_age_ms_max = self.tally.unflagged_age_ms_max.max(age_ms);
            if age_ms > ACK_AGE_MAX_MS {
                let detail = format!("{}, first {age_ms} ms before kill {}", about(), before.run);
                findings.add(UNFLAGGED, detail);
            }
        }
        match before.fate {
            Fate::Acking | Fate::Acked => {
                self.tally.duplicated += 1;
                self.tally.backlog += 1;
                if before.fate == Fate::Acked {
                    self.tally.duplicate_ack_age_ms_max = self.tally.duplicate_ack_age_ms_max.max(age_ms);
                    if age_ms > ACK_AGE_MAX_MS {
                        let detail = format!("{}, acked {age_ms} ms before kill {}", about(), before.run);
                        findings.add(LATE, detail);
                    }
                }
            }
            _ => self.tally.redelivered += 1,
        }
        Answer::Ack
    }

    /// An ack is about to be sent.
    pub fn acking(&mut self, queue: usize, number: Number) {
        self.set(queue, number, Fate::Acking);
        self.tally.backlog -= 1;
    }

    /// The ack is in the socket.
    pub fn acked(&mut self, queue: usize, number: Number) {
        self.set(queue, number, Fate::Acked);
    }

    /// A nack with requeue is about to be sent.
    pub fn returned(&mut self, queue: usize, number: Number) {
        self.set(queue, number, Fate::Returned);
    }

    fn set(&mut self, queue: usize, number: Number, fate: Fate) {
        let at_ms = self.now_ms();
        let copy = &mut self.publishers[number.publisher as usize][number.n as usize].copies[queue];
        (copy.fate, copy.at_ms) = (fate, at_ms);
    }

    /// The broker is about to be killed.
    pub fn killing(&mut self) {
        self.kills_ms.push(self.now_ms());
    }

    /// It has been started again.
    pub fn restarted(&mut self) {
        self.run = self.kills_ms.len() as u16;
    }

    /// Holds the number of messages a queue has after a restart against the book.
    pub fn check_count(&self, queue: usize, count: u64, findings: &Findings) {
        let (mut least, mut most) = (0, 0);
        for (publisher, sent) in self.publishers.iter().enumerate() {
            for (n, sent) in sent.iter().enumerate() {
                if !route(Number { publisher: publisher as u32, n: n as u64 }).2.contains(&queue) {
                    continue;
                }
                let copy = &sent.copies[queue];
                let is_said = matches!(copy.fate, Fate::Acking | Fate::Acked);
                least += u64::from(sent.is_confirmed && !is_said);
                let killed_ms = self.kills_ms.get(usize::from(copy.run)).copied().unwrap_or(u32::MAX);
                let is_gone =
                    copy.fate == Fate::Acked && killed_ms.saturating_sub(copy.at_ms) > ACK_AGE_MAX_MS;
                most += u64::from(!is_gone);
            }
        }
        let about = format!("life {}, {} has {count}", self.run, QUEUES[queue]);
        if count < least {
            findings
                .add("too few messages after a restart", format!("{about}, at least {least} must be there"));
        }
        if count > most {
            findings
                .add("too many messages after a restart", format!("{about}, at most {most} can be there"));
        }
    }

    /// After everything was drained: what was confirmed must have come.
    pub fn check_lost(&self, findings: &Findings) {
        for (publisher, sent) in self.publishers.iter().enumerate() {
            for (n, sent) in sent.iter().enumerate().filter(|(_, sent)| sent.is_confirmed) {
                let number = Number { publisher: publisher as u32, n: n as u64 };
                for &queue in route(number).2 {
                    if sent.copies[queue].received == 0 {
                        findings.add(LOST, format!("{}, {number:?}", QUEUES[queue]));
                    }
                }
            }
        }
    }
}
