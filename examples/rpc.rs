//! Remote calls over queues: a request names the queue for its answer (`reply_to`) and a number by which
//! the caller knows the answer again (`correlation_id`).
//!
//! Run a broker, then: `cargo run --release --example rpc` (AMQP_URL says where it is).

use futures_lite::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

const QUEUE: &str = "example.rpc.fibonacci";

#[tokio::main]
async fn main() -> lapin::Result<()> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::default(), FieldTable::default()).await?;
    tokio::spawn(serve(connection.create_channel().await?));

    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let answers = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    let reply_to = answers.name().clone();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut answers =
        channel.basic_consume(reply_to.clone(), "".into(), options, FieldTable::default()).await?;

    for n in [1, 10, 50, 90] {
        let properties = BasicProperties::default()
            .with_reply_to(reply_to.clone())
            .with_correlation_id(format!("request {n}").into());
        let (options, body) = (BasicPublishOptions::default(), n.to_string());
        channel.basic_publish("".into(), QUEUE.into(), options, body.as_bytes(), properties).await?;
        println!("fibonacci({n}) = {}", answer(&mut answers, &format!("request {n}")).await?);
    }

    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    connection.close(200, "goodbye".into()).await
}

/// Waits for the answer to one request; answers to others, which had been given up, are passed over.
async fn answer(answers: &mut Consumer, request: &str) -> lapin::Result<String> {
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        let is_ours = answer.properties.correlation_id().as_ref().is_some_and(|id| id.as_str() == request);
        if is_ours {
            return Ok(String::from_utf8_lossy(&answer.data).into_owned());
        }
    }
    Ok("no answer, the consumer was cancelled".into())
}

async fn serve(channel: Channel) -> lapin::Result<()> {
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut requests = channel.basic_consume(QUEUE.into(), "".into(), options, FieldTable::default()).await?;
    while let Some(request) = requests.next().await {
        let request = request?;
        let result = match String::from_utf8_lossy(&request.data).parse::<u32>() {
            Ok(n) => fibonacci(n).to_string(),
            Err(error) => format!("that is no number: {error}"),
        };
        if let Some(reply_to) = request.properties.reply_to().clone() {
            let id = request.properties.correlation_id().clone().unwrap_or_else(|| "".into());
            let properties = BasicProperties::default().with_correlation_id(id);
            let options = BasicPublishOptions::default();
            channel.basic_publish("".into(), reply_to, options, result.as_bytes(), properties).await?;
        }
        // After the answer: if this server dies in between, another one does the work again.
        request.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

fn fibonacci(n: u32) -> u128 {
    (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0
}
