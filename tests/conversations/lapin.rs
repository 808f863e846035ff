//! With lapin.

use std::net::SocketAddr;

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ErrorKind};

use super::{MESSAGES, converse, no_queue};

async fn connect(address: SocketAddr) -> Connection {
    let url = format!("amqp://guest:guest@{address}/%2f");
    Connection::connect(&url, ConnectionProperties::default()).await.unwrap()
}

async fn declare(channel: &Channel, queue: &str) {
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await.unwrap();
    // Another broker may have it from before.
    channel.queue_purge(queue.into(), Default::default()).await.unwrap();
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
}

async fn consume(channel: &Channel, queue: &str) -> Consumer {
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    consumer.next().await.expect("a consumer that goes on").unwrap()
}

async fn get(channel: &Channel, queue: &str) -> Option<Vec<u8>> {
    let message = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap();
    message.map(|message| message.delivery.data)
}

async fn goodbye(connection: &Connection, channel: &Channel, queue: &str) {
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    channel.close(200, "goodbye".into()).await.unwrap();
    connection.close(200, "goodbye".into()).await.unwrap();
}

#[test]
fn persistent_messages_are_confirmed_and_consumed_in_order() {
    converse(async |address| {
        let connection = connect(address).await;
        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "lapin.orders").await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();

        let mut confirms = Vec::new();
        for n in 0..MESSAGES {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let (options, body) = (BasicPublishOptions::default(), n.to_string());
            let published =
                channel.basic_publish("".into(), "lapin.orders".into(), options, body.as_bytes(), properties);
            confirms.push(published.await.unwrap());
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }

        let reader = connection.create_channel().await.unwrap();
        reader.basic_qos(10, BasicQosOptions::default()).await.unwrap();
        let mut consumer = consume(&reader, "lapin.orders").await;
        for n in 0..MESSAGES {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.data, n.to_string().as_bytes());
            assert!(!delivery.redelivered);
            assert_eq!(*delivery.properties.delivery_mode(), Some(2));
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        reader.close(200, "all read".into()).await.unwrap();
        assert_eq!(get(&channel, "lapin.orders").await, None);
        goodbye(&connection, &channel, "lapin.orders").await;
    });
}

#[test]
fn unroutable_mandatory_message_is_returned_before_its_confirm() {
    converse(async |address| {
        let connection = connect(address).await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();

        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_message_id("7".into());
        let published =
            channel.basic_publish("".into(), "lapin.nowhere".into(), options, b"hello?", properties);
        let confirmation = published.await.unwrap().await.unwrap();

        // lapin hands over with a confirm only what was returned before it.
        assert!(confirmation.is_ack());
        let returned = confirmation.take_message().expect("a returned message");
        assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
        assert_eq!(returned.delivery.routing_key.as_str(), "lapin.nowhere");
        assert_eq!(returned.delivery.properties.message_id().as_ref().map(|id| id.as_str()), Some("7"));
        assert_eq!(returned.delivery.data, b"hello?");
        connection.close(200, "goodbye".into()).await.unwrap();
    });
}

#[test]
fn returned_delivery_comes_again_with_the_flag() {
    converse(async |address| {
        let connection = connect(address).await;
        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "lapin.again").await;
        publish(&channel, "lapin.again", b"once more").await;

        let mut consumer = consume(&channel, "lapin.again").await;
        let first = next(&mut consumer).await;
        first.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.unwrap();
        let second = next(&mut consumer).await;

        assert!(!first.redelivered && second.redelivered);
        assert_eq!(second.data, b"once more");
        assert_ne!(first.delivery_tag, second.delivery_tag);
        second.ack(BasicAckOptions::default()).await.unwrap();
        goodbye(&connection, &channel, "lapin.again").await;
    });
}

#[test]
fn channel_error_ends_the_channel_and_not_the_connection() {
    converse(async |address| {
        let connection = connect(address).await;
        let doomed = connection.create_channel().await.unwrap();

        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = doomed.queue_declare("lapin.missing".into(), options, FieldTable::default()).await;

        let error = declared.expect_err("there is no such queue");
        let ErrorKind::ProtocolError(error) = error.kind() else { panic!("not from the broker: {error}") };
        assert_eq!(*error.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND));
        assert_eq!(error.get_message().as_str(), no_queue("lapin.missing"));
        assert!(!doomed.status().connected());

        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "lapin.after").await;
        publish(&channel, "lapin.after", b"still here").await;
        assert_eq!(get(&channel, "lapin.after").await.as_deref(), Some(&b"still here"[..]));
        goodbye(&connection, &channel, "lapin.after").await;
    });
}

#[test]
fn transaction_is_seen_when_it_is_committed_and_never_when_it_is_rolled_back() {
    converse(async |address| {
        let connection = connect(address).await;
        let channel = connection.create_channel().await.unwrap();
        let onlooker = connection.create_channel().await.unwrap();
        declare(&channel, "lapin.tx").await;
        channel.tx_select().await.unwrap();

        publish(&channel, "lapin.tx", b"rolled back").await;
        channel.tx_rollback().await.unwrap();
        assert_eq!(get(&onlooker, "lapin.tx").await, None);

        publish(&channel, "lapin.tx", b"first").await;
        publish(&channel, "lapin.tx", b"second").await;
        assert_eq!(get(&onlooker, "lapin.tx").await, None);
        channel.tx_commit().await.unwrap();
        assert_eq!(get(&onlooker, "lapin.tx").await.as_deref(), Some(&b"first"[..]));

        // An acknowledgement counts at the commit too: closed before it, the message waits again.
        let mut consumer = consume(&channel, "lapin.tx").await;
        next(&mut consumer).await.ack(BasicAckOptions::default()).await.unwrap();
        channel.close(200, "without a commit".into()).await.unwrap();
        let again = onlooker.basic_get("lapin.tx".into(), BasicGetOptions::default()).await.unwrap();
        let again = again.expect("the message is there again").delivery;
        assert_eq!((again.redelivered, &again.data[..]), (true, &b"second"[..]));
        again.ack(BasicAckOptions::default()).await.unwrap();
        goodbye(&connection, &onlooker, "lapin.tx").await;
    });
}

#[test]
fn properties_headers_and_bodies_of_any_size_come_back_as_they_were_sent() {
    converse(async |address| {
        let connection = connect(address).await;
        let channel = connection.create_channel().await.unwrap();
        declare(&channel, "lapin.bodies").await;
        let mut inner = FieldTable::default();
        inner.insert("deep".into(), AMQPValue::Boolean(true));
        let mut headers = FieldTable::default();
        headers.insert("text".into(), AMQPValue::LongString(LongString::from("Kaninchen")));
        headers.insert("number".into(), AMQPValue::LongLongInt(-1 << 40));
        headers.insert("nothing".into(), AMQPValue::Void);
        headers.insert("table".into(), AMQPValue::FieldTable(inner));
        let properties = BasicProperties::default()
            .with_content_type("application/octet-stream".into())
            .with_content_encoding("identity".into())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_priority(3)
            .with_correlation_id("correlation".into())
            .with_reply_to("somewhere".into())
            .with_expiration("600000".into())
            .with_message_id("message".into())
            .with_timestamp(1_700_000_000)
            .with_type("kind".into())
            .with_user_id("guest".into())
            .with_app_id("conversation".into());
        let large: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
        let bodies: [&[u8]; 3] = [b"", &large, b"small"];

        for body in bodies {
            let options = BasicPublishOptions::default();
            let properties = properties.clone();
            channel.basic_publish("".into(), "lapin.bodies".into(), options, body, properties).await.unwrap();
        }

        let mut consumer = consume(&channel, "lapin.bodies").await;
        for body in bodies {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.data.len(), body.len());
            assert!(delivery.data == body);
            assert_eq!(delivery.properties, properties);
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        goodbye(&connection, &channel, "lapin.bodies").await;
    });
}
