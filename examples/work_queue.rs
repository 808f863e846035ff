//! A work queue: tasks are shared out among workers, each has one at a time, and a task whose worker
//! leaves in the middle goes to another.
//!
//! Run a broker, then: `cargo run --release --example work_queue` (AMQP_URL says where it is).

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::sync::mpsc;

const TASKS: usize = 12;
const QUEUE: &str = "example.work_queue";

#[tokio::main]
async fn main() -> lapin::Result<()> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;

    let (done, mut results) = mpsc::channel(TASKS);
    for worker in ["Ada", "Grace", "Hedy"] {
        tokio::spawn(work(worker, connection.create_channel().await?, done.clone()));
    }
    for task in 0..TASKS {
        let body = format!("task {task}");
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), QUEUE.into(), options, body.as_bytes(), properties).await?;
    }

    for _ in 0..TASKS {
        let Some((worker, task, redelivered)) = results.recv().await else { break };
        let note = if redelivered { " (somebody had begun it before)" } else { "" };
        println!("{worker} has done {task}{note}");
    }
    let left = channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    println!("{TASKS} tasks are done, {left} are left");
    connection.close(200, "goodbye".into()).await
}

async fn work(
    worker: &'static str,
    channel: Channel,
    done: mpsc::Sender<(&'static str, String, bool)>,
) -> lapin::Result<()> {
    // One unacknowledged task at a time: who is slow gets fewer.
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut tasks =
        channel.basic_consume(QUEUE.into(), worker.into(), options, FieldTable::default()).await?;
    let mut tasks_done = 0;
    while let Some(task) = tasks.next().await {
        let task = task?;
        let name = String::from_utf8_lossy(&task.data).into_owned();
        if worker == "Ada" && tasks_done == 2 {
            println!("Ada leaves in the middle of {name}");
            return channel.close(200, "without an acknowledgement".into()).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        // Only now: if this program dies before, the task goes to another worker.
        task.ack(BasicAckOptions::default()).await?;
        tasks_done += 1;
        let _ = done.send((worker, name, task.redelivered)).await;
    }
    Ok(())
}
