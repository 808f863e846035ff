//! Who is connected, and the string to pull to close one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amqp::{Exception, Table};
use dashmap::DashMap;

use crate::delivery::ConnectionId;
use crate::outbox::{Event, Outbox};

/// An open connection as others may see it.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Where it came from.
    pub peer: SocketAddr,
    /// Who logged in.
    pub user: Arc<str>,
    /// Where it works.
    pub vhost: Arc<str>,
    /// What the client says of itself, `connection_name` among it.
    pub client_properties: Arc<Table>,
    /// Its mailbox.
    pub outbox: Arc<Outbox>,
}

/// All open connections.
#[derive(Debug, Default)]
pub struct Roster {
    guests: DashMap<ConnectionId, Guest>,
    last_id: AtomicU64,
}

impl Roster {
    /// A number for a new connection.
    pub fn next_id(&self) -> ConnectionId {
        ConnectionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Enters a connection that has been opened.
    pub fn enter(&self, id: ConnectionId, guest: Guest) {
        self.guests.insert(id, guest);
    }

    /// Strikes out a connection that has ended.
    pub fn leave(&self, id: ConnectionId) {
        self.guests.remove(&id);
    }

    /// Asks every connection to close with this.
    pub fn close_all(&self, exception: &Exception) {
        for guest in &self.guests {
            guest.outbox.send(Event::Close(exception.clone()));
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
