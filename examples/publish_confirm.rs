//! Publisher confirms: a message is safe once its confirm has come, and not before. A thousand persistent
//! messages are published without waiting for each, and one that no queue wants comes back.
//!
//! Run a broker, then: `cargo run --release --example publish_confirm` (AMQP_URL says where it is).

use std::time::Instant;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};

const MESSAGES: usize = 1000;
const QUEUE: &str = "example.publish_confirm";

#[tokio::main]
async fn main() -> lapin::Result<()> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;

    // delivery_mode 2 is persistent; a durable queue alone does not make its messages last.
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let start = Instant::now();
    let mut waiting = Vec::new();
    for number in 0..MESSAGES {
        let body = format!("message {number}");
        let confirm = channel
            .basic_publish("".into(), QUEUE.into(), options, body.as_bytes(), properties.clone())
            .await?;
        waiting.push(confirm);
    }
    // The broker confirms many at once, so it is much faster to publish on and to wait at the end.
    let mut confirmed = 0;
    for confirm in waiting {
        confirmed += usize::from(confirm.await?.is_ack());
    }
    println!("{confirmed} of {MESSAGES} messages are on the broker's disk after {:?}", start.elapsed());

    let nowhere = "example.nobody.listens";
    let confirm = channel.basic_publish("".into(), nowhere.into(), options, b"hello?", properties).await?;
    match confirm.await?.take_message() {
        Some(returned) => println!("1 message came back: {} {}", returned.reply_code, returned.reply_text),
        None => println!("somebody has a queue named {nowhere}"),
    }

    let left = channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    println!("{left} messages were in the queue");
    connection.close(200, "goodbye".into()).await
}
