//! Publish and subscribe: a fanout exchange gives every subscriber a copy of every message. Each subscriber
//! has a queue of its own, named by the broker, which goes when its connection does.
//!
//! Run a broker, then: `cargo run --release --example publish_subscribe` (AMQP_URL says where it is).

use futures_lite::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties, Consumer, ExchangeKind};

const MESSAGES: usize = 5;
const EXCHANGE: &str = "example.news";

#[tokio::main]
async fn main() -> lapin::Result<()> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = ExchangeDeclareOptions::default();
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Fanout, options, FieldTable::default()).await?;

    // They subscribe before anything is published: an exchange keeps nothing.
    let mut subscribers = Vec::new();
    for name in ["radio", "television", "newspaper"] {
        let consumer = subscribe(&connection).await?;
        subscribers.push((name, tokio::spawn(listen(consumer))));
    }

    for number in 0..MESSAGES {
        let body = format!("news {number}");
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish(EXCHANGE.into(), "".into(), options, body.as_bytes(), properties).await?;
    }

    for (name, listening) in subscribers {
        let heard = listening.await.expect("a subscriber does not panic")?;
        println!("{name} has heard {} messages: {}", heard.len(), heard.join(", "));
    }
    channel.exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default()).await?;
    connection.close(200, "goodbye".into()).await
}

async fn subscribe(connection: &Connection) -> lapin::Result<Consumer> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    let name = queue.name().clone();
    let options = QueueBindOptions::default();
    channel.queue_bind(name.clone(), EXCHANGE.into(), "".into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    channel.basic_consume(name, "".into(), options, FieldTable::default()).await
}

async fn listen(mut consumer: Consumer) -> lapin::Result<Vec<String>> {
    let mut heard = Vec::new();
    while heard.len() < MESSAGES
        && let Some(delivery) = consumer.next().await
    {
        heard.push(String::from_utf8_lossy(&delivery?.data).into_owned());
    }
    Ok(heard)
}
