//! What operators see of a queue at a moment.

use std::sync::Arc;

use amqp::Properties;

use super::Handle;
use super::arguments::Arguments;
use super::consumers::Consumer;
use crate::samples::{Course, Samples, Span};
use crate::tally::{Figures, Rated};

/// How a queue stands.
#[derive(Clone, Debug)]
pub struct Look {
    /// What holds for it.
    pub settings: Arc<Arguments>,
    /// Ready messages.
    pub ready: usize,
    /// Delivered and not yet settled.
    pub unacked: usize,
    /// Messages that failed, and rest.
    pub resting: usize,
    /// Consumers.
    pub consumers: usize,
    /// One of them could take a message now, and there is none.
    pub starving: bool,
    /// The one that gets everything, where only one does.
    pub single_active: Option<Arc<str>>,
    /// The one that has the queue for itself.
    pub exclusive: Option<Arc<str>>,
    /// Octets of the bodies of ready messages, so far as they are known.
    pub ready_body_bytes: u64,
    /// Octets of the bodies of messages that are delivered and not settled.
    pub unacked_body_bytes: u64,
    /// How many ready messages are in the store and not in memory.
    pub away: usize,
    /// What its ready messages take in memory, in octets, about.
    pub memory_bytes: usize,
    /// When it was last used, in milliseconds since 1970.
    pub used_at_ms: u64,
    /// Until when it delivers nothing, in milliseconds since 1970; 0 if it does.
    pub paused_until_ms: u64,
    /// When the message that is first was taken by the broker, and what it says of its time, in seconds; nothing if
    /// there is none, or it is away.
    pub head: Option<(u64, Option<u64>)>,
    /// What is counted of it.
    pub figures: Figures,
    /// How much more is ready, and unacked, in a second.
    pub growth: (f64, f64),
    /// How much was ready, and unacked, at moments, if that was asked for.
    pub past: Option<Samples<2>>,
}

/// Which moments of the past are of interest: of what is in a queue, and of what is counted of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past {
    /// What is in it.
    pub lengths: Option<Span>,
    /// What is counted.
    pub rates: Option<Span>,
}

/// How much is in a queue.
#[derive(Clone, Debug)]
pub struct Depth {
    /// Ready messages.
    pub ready: usize,
    /// Delivered and not yet settled.
    pub unacked: usize,
    /// Consumers.
    pub consumers: usize,
    /// How much more is ready, and unacked, in a second.
    pub growth: (f64, f64),
    /// How much was ready, and unacked, at moments, if that was asked for.
    pub past: Option<Samples<2>>,
}

/// A consumer as operators see it.
#[derive(Clone, Debug)]
pub struct ConsumerLook {
    /// What it was made with.
    pub consumer: Consumer,
    /// What it has not settled.
    pub unacked: u32,
    /// It gets messages.
    pub is_active: bool,
}

/// How much was in a queue. If nothing has been counted of it, it has had what it has since the start.
fn past_levels(rated: Option<&Rated>, span: Span, now_ms: u64, levels: [u64; 2]) -> Samples<2> {
    match rated {
        Some(rated) => rated.past_levels(span, now_ms),
        None => Course::default().samples(span, now_ms, 0, levels),
    }
}

impl Handle {
    /// How the queue stands.
    pub fn look(&self) -> Look {
        self.look_back(Past::default())
    }

    /// How the queue stands, and has stood.
    pub fn look_back(&self, past: Past) -> Look {
        let now_ms = self.0.surroundings.clock.now_ms();
        let guarded = self.lock();
        let state = &guarded.state;
        let (ready, unacked) = (state.ready_count(), state.unacked_count());
        let rated = guarded.rated.as_deref();
        let consumers = state.consumers();
        let exclusive = consumers.iter().find(|(consumer, ..)| consumer.exclusive);
        let head = state.head().map(|message| {
            let read = Properties::parse(message.parts.properties()).unwrap_or_default();
            (message.taken_at_ms, read.timestamp)
        });
        Look {
            settings: state.settings().clone(),
            ready,
            unacked,
            resting: state.resting_count(),
            consumers: state.consumer_count(),
            starving: consumers.has_starving(),
            single_active: consumers.single_active().map(|consumer| consumer.tag.clone()),
            exclusive: exclusive.map(|(consumer, ..)| consumer.tag.clone()),
            ready_body_bytes: state.ready_body_bytes(),
            unacked_body_bytes: state.unacked_body_bytes(),
            away: state.away_count(),
            memory_bytes: state.bytes(),
            used_at_ms: state.unused_since_ms().max(rated.map_or(0, Rated::added_at_ms)),
            paused_until_ms: state.pause_until_ms(),
            head,
            figures: match rated {
                Some(rated) => rated.figures(now_ms, past.rates),
                None => Rated::default().figures(now_ms, past.rates),
            },
            growth: rated
                .map(|rated| rated.growth([ready as u64, unacked as u64], now_ms))
                .unwrap_or_default(),
            past: past.lengths.map(|span| past_levels(rated, span, now_ms, [ready as u64, unacked as u64])),
        }
    }

    /// How much is in it; and was, if a span is asked for.
    pub fn depth(&self, span: Option<Span>) -> Depth {
        let now_ms = self.0.surroundings.clock.now_ms();
        let guarded = self.lock();
        let state = &guarded.state;
        let (ready, unacked) = (state.ready_count(), state.unacked_count());
        let rated = guarded.rated.as_deref();
        let growth = rated.map(|rated| rated.growth([ready as u64, unacked as u64], now_ms));
        Depth {
            ready,
            unacked,
            consumers: state.consumer_count(),
            growth: growth.unwrap_or_default(),
            past: span.map(|span| past_levels(rated, span, now_ms, [ready as u64, unacked as u64])),
        }
    }

    /// How many of its messages survive a restart, so far as the store has applied what it was given, and about how
    /// many octets of bodies they have: where only some survive, each counts as one of middle size.
    pub fn persistent(&self, look: &Look) -> (u64, u64) {
        if !self.declaration().is_kept() {
            return (0, 0);
        }
        let store = &self.0.surroundings.store;
        let (messages, bytes) =
            ((look.ready + look.unacked) as u64, look.ready_body_bytes + look.unacked_body_bytes);
        let persistent = self.line_ids().map(|id| store.live(id)).sum::<u64>().min(messages);
        let share = u128::from(bytes) * u128::from(persistent) / u128::from(messages.max(1));
        (persistent, u64::try_from(share).unwrap_or(bytes))
    }

    /// Its consumers, in the order in which they came.
    pub fn consumers(&self) -> Vec<ConsumerLook> {
        let guarded = self.lock();
        let all = guarded.state.consumers().iter();
        all.map(|(consumer, unacked, is_active)| ConsumerLook {
            consumer: consumer.clone(),
            unacked,
            is_active,
        })
        .collect()
    }
}
