//! What is counted of messages, and how fast it has grown lately.
//!
//! Whoever handles messages notes them in a [`Delta`] of its own, which costs an addition, and adds that to a
//! [`Tally`] once a batch. A rate is over the last five seconds in which something was counted: nobody has to come
//! by to take samples.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::samples::{self, Course, Samples, Span};

/// What is counted. The names are those of RabbitMQ's statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Published on a channel; of a queue, what has come into it.
    Publish,
    /// Published on a channel that confirms.
    PublishConfirm,
    /// Confirmed to publishers.
    Confirm,
    /// Each for a queue that a publish was routed to.
    Routed,
    /// Mandatory, and led nowhere.
    ReturnUnroutable,
    /// Led nowhere, and nobody wanted to know.
    DropUnroutable,
    /// Published to an exchange.
    PublishIn,
    /// The same, each for a queue that it reached.
    PublishOut,
    /// Delivered, to be acknowledged.
    Deliver,
    /// Delivered for good.
    DeliverNoAck,
    /// Taken by basic.get, to be acknowledged.
    Get,
    /// Taken by basic.get for good.
    GetNoAck,
    /// Asked for by basic.get, and there was none.
    GetEmpty,
    /// Delivered, and not for the first time.
    Redeliver,
    /// The same, by how often it has come back where that is counted: once, 2 to 5 times, 6 to 20, more often.
    RedeliverOnce,
    /// 2 to 5 times.
    RedeliverFew,
    /// 6 to 20 times.
    RedeliverOften,
    /// More often.
    RedeliverEndlessly,
    /// Acknowledged.
    Ack,
    /// A dead letter: rejected.
    DeadRejected,
    /// A dead letter: expired.
    DeadExpired,
    /// A dead letter: no room.
    DeadMaxLen,
    /// A dead letter: delivered too often.
    DeadDeliveryLimit,
}

/// How many there are.
pub const COUNTS: usize = Count::DeadDeliveryLimit as usize + 1;

/// A rate is over so many milliseconds.
const WINDOW_MS: u64 = 5_000;

/// So many milliseconds of a window are enough to tell a rate.
const WINDOW_MS_MIN: u64 = 1_000;

/// What has been counted and not yet added to a tally.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    counts: [u32; COUNTS],
    is_some: bool,
}

impl Delta {
    /// Counts so many.
    #[inline]
    pub fn add(&mut self, count: Count, n: usize) {
        self.counts[count as usize] += n as u32;
        self.is_some = true;
    }

    /// Counts a delivery of a message that has come back so often before.
    #[inline]
    pub fn add_redelivery(&mut self, returns: u16) {
        self.add(Count::Redeliver, 1);
        let how_often = match returns {
            0 | 1 => Count::RedeliverOnce,
            2..=5 => Count::RedeliverFew,
            6..=20 => Count::RedeliverOften,
            _ => Count::RedeliverEndlessly,
        };
        self.add(how_often, 1);
    }

    /// Whether nothing was counted.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.is_some
    }

    /// What was counted, to begin anew.
    #[inline]
    pub fn take(&mut self) -> Delta {
        std::mem::take(self)
    }
}

/// Counts and their rates, for one owner.
#[derive(Clone, Debug, Default)]
pub struct Rated {
    counts: [u64; COUNTS],
    /// The counts when the window began.
    base: [u64; COUNTS],
    base_at_ms: u64,
    added_at_ms: u64,
    /// How much there was of two things when the window began.
    base_levels: [u64; 2],
    /// Those of the window before.
    rates: [f32; COUNTS],
    /// How much there is of two things.
    levels: [u64; 2],
    /// The counts, and behind them the levels, at the ends of the windows of the last minute.
    course: Course,
}

/// How many numbers stand in a course.
const NUMBERS: usize = COUNTS + 2;

/// What a tally says at a moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    counts: [u64; COUNTS],
    rates: [f64; COUNTS],
    past: Option<Samples<COUNTS>>,
}

impl Figures {
    /// How many there were at moments that were asked for, in milliseconds since 1970, the newest first.
    pub fn past(&self) -> Option<impl Iterator<Item = (u64, &[u64; COUNTS])>> {
        Some(self.past.as_ref()?.iter().map(|(at_ms, counts)| (*at_ms, counts)))
    }

    /// How many.
    pub fn count(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// How many in a second.
    pub fn rate(&self, count: Count) -> f64 {
        self.rates[count as usize]
    }

    /// Nothing of this was counted.
    fn forget(&mut self, count: Count) {
        (self.counts[count as usize], self.rates[count as usize]) = (0, 0.0);
        self.past.iter_mut().flatten().for_each(|(_, counts)| counts[count as usize] = 0);
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Figures) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, n)| *sum += n);
        self.rates.iter_mut().zip(&other.rates).for_each(|(sum, rate)| *sum += rate);
        if let Some(past) = &other.past {
            samples::add(&mut self.past, past);
        }
    }
}

impl Rated {
    /// Adds what was counted. There is so much now of two things whose growth is of interest.
    pub fn add(&mut self, delta: &Delta, levels: [u64; 2], now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.base_at_ms);
        if elapsed_ms >= WINDOW_MS {
            self.note(now_ms);
            self.roll(now_ms, elapsed_ms);
            self.base_levels = levels;
        }
        (self.added_at_ms, self.levels) = (now_ms, levels);
        self.counts.iter_mut().zip(&delta.counts).for_each(|(sum, n)| *sum += u64::from(*n));
    }

    /// Notes how it has stood since something was last added.
    fn note(&mut self, now_ms: u64) {
        let numbers = self.numbers();
        if self.added_at_ms > 0 {
            self.course.note(self.added_at_ms, &numbers);
        }
        if now_ms.saturating_sub(self.added_at_ms) > WINDOW_MS {
            self.course.note(now_ms, &numbers);
        }
    }

    fn numbers(&self) -> [u64; NUMBERS] {
        std::array::from_fn(|at| match at.checked_sub(COUNTS) {
            None => self.counts[at],
            Some(at) => self.levels[at],
        })
    }

    fn samples(&self, span: Span, now_ms: u64) -> Samples<NUMBERS> {
        self.course.samples(span, now_ms, self.added_at_ms, self.numbers())
    }

    /// How much there was of the two things at moments.
    pub fn past_levels(&self, span: Span, now_ms: u64) -> Samples<2> {
        let samples = self.samples(span, now_ms).into_iter();
        samples.map(|(at_ms, numbers)| (at_ms, [numbers[COUNTS], numbers[COUNTS + 1]])).collect()
    }

    fn roll(&mut self, now_ms: u64, elapsed_ms: u64) {
        for ((rate, count), base) in self.rates.iter_mut().zip(&self.counts).zip(&self.base) {
            *rate = per_second(count - base, elapsed_ms) as f32;
        }
        (self.base, self.base_at_ms) = (self.counts, now_ms);
    }

    /// When something was last counted, in milliseconds since 1970.
    pub fn added_at_ms(&self) -> u64 {
        self.added_at_ms
    }

    /// What it says now; and what it said, if a span is asked for.
    pub fn figures(&self, now_ms: u64, span: Option<Span>) -> Figures {
        let elapsed_ms = now_ms.saturating_sub(self.base_at_ms);
        let rate = |at: usize| match elapsed_ms {
            _ if now_ms.saturating_sub(self.added_at_ms) > WINDOW_MS => 0.0,
            WINDOW_MS_MIN.. => per_second(self.counts[at] - self.base[at], elapsed_ms),
            _ => self.rates[at].into(),
        };
        let past = span.map(|span| {
            let samples = self.samples(span, now_ms).into_iter();
            samples.map(|(at_ms, numbers)| (at_ms, std::array::from_fn(|at| numbers[at]))).collect()
        });
        Figures { counts: self.counts, rates: std::array::from_fn(rate), past }
    }
}

impl Rated {
    /// How much more there is of two things in a second than when the window began, if there is so much now.
    pub fn growth(&self, levels: [u64; 2], now_ms: u64) -> (f64, f64) {
        let elapsed_ms = now_ms.saturating_sub(self.base_at_ms);
        if elapsed_ms < WINDOW_MS_MIN || now_ms.saturating_sub(self.added_at_ms) > WINDOW_MS {
            return (0.0, 0.0);
        }
        let more = |at: usize| (levels[at] as f64 - self.base_levels[at] as f64) * 1000.0 / elapsed_ms as f64;
        (more(0), more(1))
    }
}

fn per_second(n: u64, elapsed_ms: u64) -> f64 {
    n as f64 * 1000.0 / elapsed_ms.max(1) as f64
}

/// Counts and their rates, shared. What is added is added to a parent as well.
#[derive(Debug, Default)]
pub struct Tally {
    // A few additions long, and nothing else is locked in it but the parent.
    rated: Mutex<Rated>,
    parent: Option<Arc<Tally>>,
}

impl Tally {
    /// One whose counts are part of another's.
    pub fn of(parent: Arc<Tally>) -> Tally {
        Tally { parent: Some(parent), ..Tally::default() }
    }

    /// Adds what was counted.
    pub fn add(&self, delta: &Delta, now_ms: u64) {
        if delta.is_empty() {
            return;
        }
        self.lock().add(delta, [0; 2], now_ms);
        if let Some(parent) = &self.parent {
            parent.add(delta, now_ms);
        }
    }

    /// What it says now.
    pub fn figures(&self, now_ms: u64) -> Figures {
        self.figures_over(now_ms, None)
    }

    /// What it says now; and what it said, if a span is asked for.
    pub fn figures_over(&self, now_ms: u64, span: Option<Span>) -> Figures {
        self.lock().figures(now_ms, span)
    }

    fn lock(&self) -> MutexGuard<'_, Rated> {
        self.rated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tallies of a vhost, or of all of them.
#[derive(Debug, Default)]
pub struct Tallies {
    /// Of what is published.
    pub published: Tally,
    /// Of what leaves classic queues, and what quorum queues.
    pub queues: [Tally; 2],
}

impl Tallies {
    /// Those of a vhost, which are part of the whole.
    pub fn of(whole: &Arc<WholeTallies>) -> Tallies {
        let queues = [Tally::of(whole.queues[0].clone()), Tally::of(whole.queues[1].clone())];
        Tallies { published: Tally::of(whole.published.clone()), queues }
    }

    /// All together.
    pub fn figures(&self, now_ms: u64, span: Option<Span>) -> Figures {
        together(&self.published, self.queues.each_ref(), now_ms, span)
    }
}

/// The sum of what is published and of what queues do. What comes into a queue was published before.
fn together(published: &Tally, queues: [&Tally; 2], now_ms: u64, span: Option<Span>) -> Figures {
    let mut sum = published.figures_over(now_ms, span);
    for queues in queues {
        let mut figures = queues.figures_over(now_ms, span);
        figures.forget(Count::Publish);
        sum.add(&figures);
    }
    sum
}

/// The tallies of the broker since its start, whatever has been deleted since.
#[derive(Debug, Default)]
pub struct WholeTallies {
    /// Of what is published.
    pub published: Arc<Tally>,
    /// Of what leaves classic queues, and what quorum queues.
    pub queues: [Arc<Tally>; 2],
}

impl WholeTallies {
    /// All together.
    pub fn figures(&self, now_ms: u64, span: Option<Span>) -> Figures {
        together(&self.published, self.queues.each_ref().map(|queues| &**queues), now_ms, span)
    }
}

/// The upper ends of the classes of size that bodies are counted in, in octets; a last class is above them.
pub const SIZES: [u64; 8] = [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];

/// How large bodies were, not yet added to the whole.
#[derive(Debug, Default)]
pub struct SizesDelta {
    classes: [u32; SIZES.len() + 1],
    bytes: u64,
}

impl SizesDelta {
    /// Counts a body.
    #[inline]
    pub fn add(&mut self, body_bytes: usize) {
        let bytes = body_bytes as u64;
        let class = SIZES.iter().take_while(|end| bytes > **end).count();
        self.classes[class] += 1;
        self.bytes += bytes;
    }
}

/// How large the bodies of all publishes were.
#[derive(Debug, Default)]
pub struct Sizes {
    classes: [AtomicU64; SIZES.len() + 1],
    bytes: AtomicU64,
}

impl Sizes {
    /// Adds what was counted, which begins anew.
    pub fn add(&self, counted: &mut SizesDelta) {
        for (sum, n) in self.classes.iter().zip(&counted.classes).filter(|(_, n)| **n > 0) {
            sum.fetch_add(u64::from(*n), Ordering::Relaxed);
        }
        self.bytes.fetch_add(counted.bytes, Ordering::Relaxed);
        *counted = SizesDelta::default();
    }

    /// How many there were in each class, and their octets.
    pub fn figures(&self) -> ([u64; SIZES.len() + 1], u64) {
        (
            std::array::from_fn(|at| self.classes[at].load(Ordering::Relaxed)),
            self.bytes.load(Ordering::Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(n: usize) -> Delta {
        let mut delta = Delta::default();
        delta.add(Count::Publish, n);
        delta
    }

    #[test]
    fn a_rate_is_over_the_last_seconds_and_ends_when_nothing_comes() {
        let mut rated = Rated::default();
        let start_ms = 1_000_000;
        for tenth in 0..100 {
            rated.add(&delta(50), [0; 2], start_ms + tenth * 100);
        }
        let figures = rated.figures(start_ms + 9_900, None);

        assert_eq!(figures.count(Count::Publish), 5_000);
        assert!((figures.rate(Count::Publish) - 500.0).abs() < 20.0, "{}", figures.rate(Count::Publish));
        assert_eq!(rated.figures(start_ms + 20_000, None).rate(Count::Publish), 0.0);
    }

    #[test]
    fn what_was_counted_at_moments_is_told_of_a_minute() {
        let mut rated = Rated::default();
        let start_ms = 1_000_000;
        for second in 0..100 {
            rated.add(&delta(10), [second, 0], start_ms + second * 1_000);
        }
        let now_ms = start_ms + 100_000;
        let span = Span { age_ms: 600_000, step_ms: 10_000 };

        let figures = rated.figures(now_ms, Some(span));

        let past: Vec<(u64, u64)> =
            figures.past().expect("it was asked for").map(|(at_ms, counts)| (at_ms, counts[0])).collect();
        assert_eq!((past[0], past[1]), ((1_100_000, 1_000), (1_090_000, 910)));
        assert!((6..=7).contains(&past.len()), "{past:?}");
        assert_eq!(rated.past_levels(span, now_ms)[1], (1_090_000, [90, 0]));
    }

    #[test]
    fn what_is_counted_is_counted_of_the_whole_too() {
        let whole = Arc::new(WholeTallies::default());
        let vhost = Tallies::of(&whole);

        vhost.published.add(&delta(3), 1);
        let mut acked = delta(3);
        acked.add(Count::Ack, 4);
        vhost.queues[1].add(&acked, 1);
        drop(vhost);

        let figures = whole.figures(1, None);
        assert_eq!(figures.count(Count::Ack), 4);
        assert_eq!(figures.count(Count::Publish), 3, "what has come into a queue was published once");
    }
}
