//! What AMQP clients rely on, by class of the protocol; the texts are RabbitMQ's, word for word.

mod basic;
mod channel;
mod confirm;
mod connection;
mod exchange;
mod queue;
mod tx;
