//! Garenne, a durable message broker for AMQP 0-9-1 clients. The rooms, top floor first; each imports
//! only from below (docs/ARCHITECTURE.md).

pub mod offline;
pub mod server;

mod connection;

mod channel;
pub mod http;
pub mod metrics;

pub mod broker;
pub mod budget;

pub mod vhost;

pub mod queue;

pub mod auth;
pub mod delivery;
pub mod outbox;

mod writer;

pub mod message;

pub mod alarm;
pub mod clock;
pub mod config;
pub mod error;
pub mod json;
pub mod log;
pub mod memory;
pub mod news;
pub mod node;
pub mod parts;
pub mod roster;
pub mod samples;
pub mod shutdown;
pub mod tally;
pub mod timers;
pub mod tls;
pub mod trail;
pub mod web;
