//! Who is connected, how each connection and channel stands, and the string to pull to close one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amqp::{Exception, Table};
use dashmap::DashMap;

use crate::delivery::ConnectionId;
use crate::outbox::{Event, Outbox};
use crate::tally::Tally;
use crate::tls;

/// An open connection as others may see it.
#[derive(Debug)]
pub struct Guest {
    /// Its number.
    pub id: ConnectionId,
    /// Where it came from.
    pub peer: SocketAddr,
    /// Where it came to.
    pub local: SocketAddr,
    /// What TLS says of it, if it is spoken.
    pub tls: Option<Arc<tls::Peer>>,
    /// Who logged in.
    pub user: Arc<str>,
    /// Where it works.
    pub vhost: Arc<str>,
    /// What the client says of itself, `connection_name` among it.
    pub client_properties: Arc<Table>,
    /// How it has proved who it is.
    pub mechanism: String,
    /// What both sides agreed on: octets of a frame, channels, seconds between heartbeats.
    pub frame_bytes_max: u32,
    /// How many channels it may have.
    pub channel_max: u16,
    /// Seconds between heartbeats.
    pub heartbeat_secs: u16,
    /// When it was opened, in milliseconds since 1970.
    pub connected_at_ms: u64,
    /// Its mailbox.
    pub outbox: Arc<Outbox>,
    /// What has gone over its socket.
    pub traffic: Traffic,
    /// It publishes during an alarm, and waits.
    pub is_blocked: AtomicBool,
    /// Its channels; none yet.
    pub channels: Channels,
}

/// The channels of a connection.
#[derive(Debug, Default)]
pub struct Channels(Mutex<BTreeMap<u16, Arc<ChannelFacts>>>);

/// What has gone over a socket. One task writes it, anybody reads it.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Octets received.
    pub received_bytes: AtomicU64,
    /// Reads from the socket.
    pub reads: AtomicU64,
    /// Octets sent.
    pub sent_bytes: AtomicU64,
    /// Writes to the socket.
    pub writes: AtomicU64,
    /// Octets that wait to be sent.
    pub pending_bytes: AtomicU64,
    sampled: Mutex<Sample>,
}

/// Octets at a moment, for rates.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at_ms: u64,
    received_bytes: u64,
    sent_bytes: u64,
    rates: (f64, f64),
}

/// A rate is over so many milliseconds at least.
const WINDOW_MS: u64 = 5_000;

impl Traffic {
    /// Adds to a number that nobody else writes.
    pub fn add(number: &AtomicU64, n: u64) {
        number.store(number.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Octets received and sent in a second, since somebody last asked some seconds ago.
    pub fn rates(&self, since_ms: u64, now_ms: u64) -> (f64, f64) {
        let mut sample = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        let before_ms = sample.at_ms.max(since_ms);
        let elapsed_ms = now_ms.saturating_sub(before_ms);
        if elapsed_ms >= WINDOW_MS {
            let received_bytes = self.received_bytes.load(Ordering::Relaxed);
            let sent_bytes = self.sent_bytes.load(Ordering::Relaxed);
            let rate = |now: u64, before: u64| (now - before) as f64 * 1000.0 / elapsed_ms as f64;
            let rates = (rate(received_bytes, sample.received_bytes), rate(sent_bytes, sample.sent_bytes));
            *sample = Sample { at_ms: now_ms, received_bytes, sent_bytes, rates };
        }
        sample.rates
    }
}

/// The name of a connection, as RabbitMQ gives it: where it comes from and where to.
pub fn name_of(peer: SocketAddr, local: SocketAddr) -> String {
    let text = |address: SocketAddr| format!("{}:{}", address.ip().to_canonical(), address.port());
    format!("{} -> {}", text(peer), text(local))
}

/// A channel as others may see it.
#[derive(Debug)]
pub struct ChannelFacts {
    /// Its number.
    pub number: u16,
    /// What is counted of it.
    pub tally: Tally,
    standing: Mutex<Standing>,
}

/// How a channel stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// For consumers to come; 0 is no limit.
    pub prefetch: u16,
    /// For all of its consumers together; 0 is no limit.
    pub global_prefetch: u32,
    /// It confirms publishes.
    pub confirm: bool,
    /// It has transactions.
    pub transactional: bool,
    /// Its consumers.
    pub consumers: u32,
    /// Delivered and not settled.
    pub unacked: u32,
    /// Published and not confirmed.
    pub unconfirmed: u32,
    /// Published and not committed.
    pub uncommitted: u32,
    /// Settled and not committed.
    pub acks_uncommitted: u32,
    /// Since when the oldest of what is unsettled is out, in milliseconds since 1970.
    pub oldest_unacked_at_ms: Option<u64>,
    /// When something last changed, in milliseconds since 1970.
    pub at_ms: u64,
}

impl ChannelFacts {
    /// Says how the channel stands.
    pub fn set(&self, standing: &Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = *standing;
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Its name, as RabbitMQ gives it: where it came from and where to.
    pub fn name(&self) -> String {
        name_of(self.peer, self.local)
    }

    /// What stands for one of its channels where RabbitMQ has the number of a process.
    pub fn channel_pid(&self, number: u16) -> String {
        format!("<channel.{}.{number}>", self.id.0)
    }

    /// What the client calls itself.
    pub fn client_name(&self) -> &str {
        self.client_properties.get_str("connection_name").unwrap_or_default()
    }

    /// A channel has been opened.
    pub fn open_channel(&self, number: u16) -> Arc<ChannelFacts> {
        let facts = ChannelFacts { number, tally: Tally::default(), standing: Mutex::default() };
        let facts = Arc::new(facts);
        self.lock().insert(number, facts.clone());
        facts
    }

    /// A channel is gone.
    pub fn close_channel(&self, number: u16) {
        self.lock().remove(&number);
    }

    /// Its channels, by number.
    pub fn channels(&self) -> Vec<Arc<ChannelFacts>> {
        self.lock().values().cloned().collect()
    }

    /// A channel of this number.
    pub fn channel(&self, number: u16) -> Option<Arc<ChannelFacts>> {
        self.lock().get(&number).cloned()
    }

    /// How many channels it has.
    pub fn channel_count(&self) -> usize {
        self.lock().len()
    }

    /// Asks it to close.
    pub fn close(&self, exception: Exception) {
        self.outbox.send(Event::Close(exception));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<ChannelFacts>>> {
        self.channels.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has gone over the sockets of a vhost's connections.
#[derive(Clone, Copy, Debug)]
pub struct VhostTraffic {
    /// Octets received.
    pub received_bytes: u64,
    /// Octets sent.
    pub sent_bytes: u64,
    /// Octets received and sent in a second.
    pub rates: (f64, f64),
}

/// All open connections.
#[derive(Debug, Default)]
pub struct Roster {
    guests: DashMap<ConnectionId, Arc<Guest>>,
    last_id: AtomicU64,
    /// What has gone over the sockets of connections that have ended, by vhost: received and sent.
    past_traffic: DashMap<Arc<str>, (u64, u64)>,
    /// How many connections have been opened and closed since the start, and channels, and queues.
    pub churn: Arc<Churn>,
}

/// What has come and gone since the start.
#[derive(Debug, Default)]
#[allow(missing_docs)] // the names say it
pub struct Churn {
    pub connections_opened: AtomicU64,
    pub connections_closed: AtomicU64,
    pub channels_opened: AtomicU64,
    pub channels_closed: AtomicU64,
    pub queues_declared: AtomicU64,
    pub queues_created: AtomicU64,
    pub queues_deleted: AtomicU64,
}

impl Churn {
    /// All of them, in the order in which they stand.
    pub fn counts(&self) -> [u64; 7] {
        [
            &self.connections_opened,
            &self.connections_closed,
            &self.channels_opened,
            &self.channels_closed,
            &self.queues_declared,
            &self.queues_created,
            &self.queues_deleted,
        ]
        .map(|number| number.load(Ordering::Relaxed))
    }

    /// One more.
    pub fn count(number: &AtomicU64) {
        number.fetch_add(1, Ordering::Relaxed);
    }
}

impl Roster {
    /// A number for a new connection.
    pub fn next_id(&self) -> ConnectionId {
        ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Enters a connection that has been opened.
    pub fn enter(&self, guest: Arc<Guest>) {
        Churn::count(&self.churn.connections_opened);
        self.guests.insert(guest.id, guest);
    }

    /// Strikes out a connection that has ended.
    pub fn leave(&self, id: ConnectionId) {
        if let Some((_, guest)) = self.guests.remove(&id) {
            Churn::count(&self.churn.connections_closed);
            let mut past = self.past_traffic.entry(guest.vhost.clone()).or_default();
            past.0 += guest.traffic.received_bytes.load(Ordering::Relaxed);
            past.1 += guest.traffic.sent_bytes.load(Ordering::Relaxed);
            drop(past);
            self.churn.channels_closed.fetch_add(guest.channel_count() as u64, Ordering::Relaxed);
        }
    }

    /// A connection.
    pub fn get(&self, id: ConnectionId) -> Option<Arc<Guest>> {
        self.guests.get(&id).map(|guest| guest.clone())
    }

    /// All of them, the oldest first.
    pub fn guests(&self) -> Vec<Arc<Guest>> {
        let mut all: Vec<Arc<Guest>> = self.guests.iter().map(|guest| guest.value().clone()).collect();
        all.sort_by_key(|guest| guest.id);
        all
    }

    /// What has gone over the sockets of all who have worked in a vhost.
    pub fn traffic_of(&self, vhost: &str, now_ms: u64) -> VhostTraffic {
        let (received_bytes, sent_bytes) = self.past_traffic.get(vhost).map(|past| *past).unwrap_or_default();
        let mut sum = VhostTraffic { received_bytes, sent_bytes, rates: (0.0, 0.0) };
        for guest in self.guests.iter().filter(|guest| *guest.vhost == *vhost) {
            sum.received_bytes += guest.traffic.received_bytes.load(Ordering::Relaxed);
            sum.sent_bytes += guest.traffic.sent_bytes.load(Ordering::Relaxed);
            let (received, sent) = guest.traffic.rates(guest.connected_at_ms, now_ms);
            sum.rates.0 += received;
            sum.rates.1 += sent;
        }
        sum
    }

    /// What was counted of a vhost is not to count any more.
    pub fn forget_vhost(&self, vhost: &str) {
        self.past_traffic.remove(vhost);
    }

    /// Asks every connection to close with this.
    pub fn close_all(&self, exception: &Exception) {
        for guest in &self.guests {
            guest.close(exception.clone());
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }
}
