//! The way of a message down the chain of dead letters: where it stands, what its headers must tell there,
//! and in which queues it was found in the end.

use amqp::{Properties, Table, Value};

use crate::findings::Findings;
use crate::publisher::Published;
use crate::wire::{Delivered, number_in};

/// A queue of the chain, how messages come into it, and why they leave it.
pub struct Link {
    pub queue: &'static str,
    pub exchange: &'static str,
    pub kind: &'static str,
    pub key: &'static str,
    pub reason: &'static str,
}

const DIRECT: (&str, &str) = ("crash.chain.direct", "direct");
const TOPIC: (&str, &str) = ("crash.chain.topic", "topic");
const FANOUT: (&str, &str) = ("crash.chain.end", "fanout");

/// All queues, in the order in which a message passes them; the last one collects.
pub const LINKS: [Link; 5] = [
    link("crash.chain.one", DIRECT, "one", "expired"),
    link("crash.chain.two", TOPIC, "to.two", "expired"),
    link("crash.chain.three", DIRECT, "three", "maxlen"),
    link("crash.chain.four", TOPIC, "to.four", "rejected"),
    link("crash.chain.five", FANOUT, "five", ""),
];

const fn link(
    queue: &'static str,
    (exchange, kind): (&'static str, &'static str),
    key: &'static str,
    reason: &'static str,
) -> Link {
    Link { queue, exchange, kind, key, reason }
}

/// Where the third and the last stand.
pub const THREE: usize = 2;
pub const FOUR: usize = 3;
pub const FIVE: usize = 4;

/// So many stay in the third queue; at the end as many pushers take their places.
pub const LENGTH_MAX: u64 = 2000;
/// The number of all pushers.
pub const PUSHER: u64 = u64::MAX;

pub const LOST: &str = "confirmed and lost";
pub const TWICE: &str = "in more than one place";
pub const STUCK: &str = "not at the end of the chain";
const HISTORY: &str = "a history that does not fit the queue";

/// How long it stays in the first queue, in no order: some not at all, some over many a kill.
pub fn expiration_ms(n: u64) -> u64 {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    match mixed % 16 {
        0 => 0,
        1 => 1000 + (mixed >> 4) % 3000,
        _ => (mixed >> 4) % 1000,
    }
}

/// The size of its body: its number, again and again.
pub fn body_bytes(n: u64) -> usize {
    8 + 8 * (n.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 59) as usize
}

/// The number of a message that has come out of the queue at `at`, if it is one that somebody published;
/// whatever is wrong with it is found.
pub fn read(at: usize, message: &Delivered, findings: &Findings) -> Option<u64> {
    let queue = LINKS[at].queue;
    let number = number_in(&message.body).filter(|n| *n == PUSHER || body_bytes(*n) == message.body.len());
    let Some(n) = number else {
        findings.add("not the body that was published", format!("{queue}, {} octets", message.body.len()));
        return None;
    };
    if n != PUSHER
        && let Err(why) = check_history(at, n, message)
    {
        findings.add(HISTORY, format!("{queue}, number {n}: {why}"));
    }
    Some(n)
}

/// One entry for each queue that it has passed, the newest first, each counted once.
fn check_history(at: usize, n: u64, message: &Delivered) -> Result<(), String> {
    let link = &LINKS[at];
    if (message.exchange.as_str(), message.routing_key.as_str()) != (link.exchange, link.key) {
        return Err(format!("came by '{}' with key '{}'", message.exchange, message.routing_key));
    }
    let properties = Properties::parse(&message.properties).map_err(|bad| format!("{bad:?}"))?;
    if properties.delivery_mode != Some(2) || properties.expiration.is_some() != (at == 0) {
        return Err(format!("properties {properties:?}"));
    }
    let headers = properties.header_table();
    let deaths = match headers.get("x-death") {
        Some(Value::Array(deaths)) => deaths.as_slice(),
        None if at == 0 => &[],
        other => return Err(format!("x-death {other:?}")),
    };
    let passed = &LINKS[..at];
    let is_complete = deaths.len() == at
        && passed
            .iter()
            .rev()
            .zip(deaths)
            .all(|(link, death)| matches!(death, Value::Table(death) if is_death_in(link, n, death)));
    let names = |which: &str, link: &Link| {
        headers.get_str(&format!("x-{which}-death-queue")) == Some(link.queue)
            && headers.get_str(&format!("x-{which}-death-reason")) == Some(link.reason)
            && headers.get_str(&format!("x-{which}-death-exchange")) == Some(link.exchange)
    };
    let has_ends = passed.first().is_none_or(|first| names("first", first))
        && passed.last().is_none_or(|last| names("last", last));
    if is_complete && has_ends { Ok(()) } else { Err(format!("{headers:?}")) }
}

fn is_death_in(link: &Link, n: u64, death: &Table) -> bool {
    let key = Value::Array(vec![Value::text(link.key)]);
    let original = (link.queue == LINKS[0].queue).then(|| expiration_ms(n).to_string());
    death.get("count") == Some(&Value::Int(1))
        && death.get_str("queue") == Some(link.queue)
        && death.get_str("reason") == Some(link.reason)
        && death.get_str("exchange") == Some(link.exchange)
        && death.get("routing-keys") == Some(&key)
        && death.get_str("original-expiration") == original.as_deref()
}

/// In which queues each message was found when all were emptied.
#[derive(Default)]
pub struct Places {
    found: Vec<[u8; LINKS.len()]>,
    /// Pushers in each queue.
    pub pushers: [u64; LINKS.len()],
}

/// What the places say beside the book of the publishers.
#[derive(Default)]
pub struct Sum {
    pub at_the_end: u64,
    /// Of these, not confirmed.
    pub unconfirmed: u64,
}

impl Places {
    pub fn add(&mut self, at: usize, n: u64) {
        if n == PUSHER {
            self.pushers[at] += 1;
            return;
        }
        let n = n as usize;
        if self.found.len() <= n {
            self.found.resize(n + 1, [0; LINKS.len()]);
        }
        self.found[n][at] = self.found[n][at].saturating_add(1);
    }

    /// What was confirmed must be at the end, once, and nothing may be anywhere else. `publishers` have the
    /// numbers in turns.
    pub fn check(&self, publishers: &[&Published], findings: &Findings) -> Sum {
        let mut sum = Sum::default();
        let turns = publishers.len() as u64;
        let published =
            publishers.iter().map(|one| one.is_confirmed.len()).max().unwrap_or(0) * publishers.len();
        for n in 0..published.max(self.found.len()) as u64 {
            let places = self.found.get(n as usize).copied().unwrap_or_default();
            let known = publishers[(n % turns) as usize].is_confirmed.get((n / turns) as usize);
            let count: u64 = places.iter().map(|count| u64::from(*count)).sum();
            let about = || format!("number {n}, found {places:?} times");
            match known {
                None if count > 0 => findings.add("never published", about()),
                Some(true) if count == 0 => findings.add(LOST, about()),
                _ => {}
            }
            if count > 1 {
                findings.add(TWICE, about());
            }
            if count != u64::from(places[FIVE]) {
                findings.add(STUCK, about());
            }
            sum.at_the_end += u64::from(places[FIVE]);
            sum.unconfirmed += u64::from(known == Some(&false)) * u64::from(places[FIVE]);
        }
        sum
    }
}
