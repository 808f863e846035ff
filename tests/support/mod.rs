//! What every test stands on: a broker of its own, and a client that speaks frame by frame.
//!
//! ```ignore
//! let broker = Broker::start();
//! let mut client = broker.client();
//! client.declare("q");
//! client.publish("", "q", "hello");
//! client.send(basic::Get { queue: "q".into(), no_ack: true });
//! client.expect_got("hello");
//! ```

mod broker;
pub mod certificates;
mod client;
mod events;
mod process;
pub mod tunnel;
pub mod wire;

use std::time::{Duration, Instant};

pub use amqp::method::{Cold, basic, channel, confirm, connection, exchange, queue, tx};
pub use amqp::{ReplyCode, Table, Value};
pub use broker::{Broker, permission, user, vhost};
pub use client::{Client, Login};
pub use events::{Event, Message, Method};
pub use process::Process;

/// How long anything may take that has to happen. Nothing is decided by it on a broker that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `happened` says so. For what happens without a frame that tells of it.
#[track_caller]
pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "it has not come to this: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Arguments of a declare or a binding.
pub fn arguments<const N: usize>(entries: [(&str, Value); N]) -> amqp::method::FieldTable {
    (&Table::from_iter(entries)).into()
}
