//! Routing by topic: queues are bound with patterns over the words of the routing key, `*` for one word and
//! `#` for any number of them. A message goes once to each queue that has a pattern for it.
//!
//! Run a broker, then: `cargo run --release --example topic_routing` (AMQP_URL says where it is).

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties, ExchangeKind};

const EXCHANGE: &str = "example.log";

#[tokio::main]
async fn main() -> lapin::Result<()> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let options = ExchangeDeclareOptions::default();
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, options, FieldTable::default()).await?;

    let mut queues = Vec::new();
    for patterns in [&["#"][..], &["*.error"], &["disk.#"], &["disk.*", "*.error"]] {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
        for pattern in patterns {
            let (queue, options) = (queue.name().clone(), QueueBindOptions::default());
            channel
                .queue_bind(queue, EXCHANGE.into(), (*pattern).into(), options, FieldTable::default())
                .await?;
        }
        queues.push((patterns.join(" or "), queue.name().clone()));
    }

    for key in ["disk.error", "disk.full", "disk.full.again", "disk", "network.error", "network.slow"] {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let confirm =
            channel.basic_publish(EXCHANGE.into(), key.into(), options, key.as_bytes(), properties).await?;
        // When it is confirmed it is in all its queues.
        confirm.await?;
    }

    for (patterns, queue) in queues {
        let mut keys = Vec::new();
        while let Some(message) = channel.basic_get(queue.clone(), BasicGetOptions { no_ack: true }).await? {
            keys.push(message.delivery.routing_key.to_string());
        }
        println!("{patterns:20} has got {}", keys.join(", "));
    }
    channel.exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default()).await?;
    connection.close(200, "goodbye".into()).await
}
