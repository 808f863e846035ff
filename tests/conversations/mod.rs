//! Conversations with the Rust clients: what a program says to a broker in its first week.
//!
//! GARENNE_CONVERSE_WITH=127.0.0.1:5673 holds them with another broker that is running there.

mod amqprs;
mod lapin;

use std::future::Future;
use std::net::SocketAddr;

use crate::support::{Broker, PATIENCE};

/// Messages of a conversation that publishes some.
const MESSAGES: usize = 100;

/// What RabbitMQ says about a queue that is not there.
fn no_queue(name: &str) -> String {
    format!("NOT_FOUND - no queue '{name}' in vhost '/'")
}

/// Holds a conversation with a broker of its own.
fn converse<F: Future<Output = ()>>(talk: impl FnOnce(SocketAddr) -> F) {
    let elsewhere = std::env::var("GARENNE_CONVERSE_WITH").ok();
    let broker = elsewhere.is_none().then(Broker::start);
    let address = match (&broker, elsewhere) {
        (Some(broker), _) => broker.address(),
        (None, elsewhere) => elsewhere.and_then(|e| e.parse().ok()).expect("an address and a port"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        tokio::time::timeout(PATIENCE, talk(address)).await.expect("a conversation comes to an end");
    });
}
