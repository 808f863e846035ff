//! With amqprs.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use amqprs::callbacks::{ChannelCallback, DefaultConnectionCallback};
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicGetArguments, BasicNackArguments, BasicPublishArguments,
    BasicQosArguments, Channel, ConfirmSelectArguments, ConsumerMessage, QueueDeclareArguments,
    QueueDeleteArguments, QueuePurgeArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, FieldTable, FieldValue, Nack, Return};
use tokio::sync::mpsc;

use super::{MESSAGES, converse, no_queue};

/// What a channel tells without being asked.
#[derive(Debug, PartialEq)]
enum Told {
    Confirmed { through: u64, multiple: bool },
    Refused,
    Returned { code: u16, text: String, body: Vec<u8> },
    Closed { code: u16, text: String },
}

/// Passes on what a channel is told.
struct Listener(mpsc::UnboundedSender<Told>);

type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What `async_trait` would write.
macro_rules! tells {
    ($self:ident, $told:expr, $answer:expr) => {{
        let _ = $self.0.send($told);
        Box::pin(std::future::ready($answer))
    }};
}

impl ChannelCallback for Listener {
    fn close<'s, 'c, 'l>(&'s mut self, _: &'c Channel, close: CloseChannel) -> Later<'l, Result<(), Error>>
    where
        's: 'l,
        'c: 'l,
    {
        tells!(self, Told::Closed { code: close.reply_code(), text: close.reply_text().clone() }, Ok(()))
    }

    fn cancel<'s, 'c, 'l>(&'s mut self, _: &'c Channel, _: Cancel) -> Later<'l, Result<(), Error>>
    where
        's: 'l,
        'c: 'l,
    {
        Box::pin(std::future::ready(Ok(())))
    }

    fn flow<'s, 'c, 'l>(&'s mut self, _: &'c Channel, active: bool) -> Later<'l, Result<bool, Error>>
    where
        's: 'l,
        'c: 'l,
    {
        Box::pin(std::future::ready(Ok(active)))
    }

    fn publish_ack<'s, 'c, 'l>(&'s mut self, _: &'c Channel, ack: Ack) -> Later<'l, ()>
    where
        's: 'l,
        'c: 'l,
    {
        tells!(self, Told::Confirmed { through: ack.delivery_tag(), multiple: ack.mutiple() }, ())
    }

    fn publish_nack<'s, 'c, 'l>(&'s mut self, _: &'c Channel, _: Nack) -> Later<'l, ()>
    where
        's: 'l,
        'c: 'l,
    {
        tells!(self, Told::Refused, ())
    }

    fn publish_return<'s, 'c, 'l>(
        &'s mut self,
        _: &'c Channel,
        returned: Return,
        _: BasicProperties,
        body: Vec<u8>,
    ) -> Later<'l, ()>
    where
        's: 'l,
        'c: 'l,
    {
        let (code, text) = (returned.reply_code(), returned.reply_text().clone());
        tells!(self, Told::Returned { code, text, body }, ())
    }
}

async fn connect(address: SocketAddr) -> Connection {
    let (host, port) = (address.ip().to_string(), address.port());
    let connection =
        Connection::open(&OpenConnectionArguments::new(&host, port, "guest", "guest")).await.unwrap();
    connection.register_callback(DefaultConnectionCallback).await.unwrap();
    connection
}

async fn open(connection: &Connection) -> (Channel, mpsc::UnboundedReceiver<Told>) {
    let channel = connection.open_channel(None).await.unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    channel.register_callback(Listener(tell)).await.unwrap();
    (channel, told)
}

async fn declare(channel: &Channel, queue: &str) {
    channel.queue_declare(QueueDeclareArguments::durable_client_named(queue)).await.unwrap();
    // Another broker may have it from before.
    channel.queue_purge(QueuePurgeArguments::new(queue)).await.unwrap();
}

async fn publish(channel: &Channel, queue: &str, body: impl Into<Vec<u8>>) {
    let properties = BasicProperties::default().with_persistence(true).finish();
    channel.basic_publish(properties, body.into(), BasicPublishArguments::new("", queue)).await.unwrap();
}

async fn consume(channel: &Channel, queue: &str) -> mpsc::UnboundedReceiver<ConsumerMessage> {
    let (_, deliveries) = channel.basic_consume_rx(BasicConsumeArguments::new(queue, "")).await.unwrap();
    deliveries
}

/// The next delivery: tag, redelivered, properties, body.
async fn next(
    deliveries: &mut mpsc::UnboundedReceiver<ConsumerMessage>,
) -> (u64, bool, BasicProperties, Vec<u8>) {
    let message = deliveries.recv().await.expect("a consumer that goes on");
    let deliver = message.deliver.expect("a delivery");
    let properties = message.basic_properties.expect("properties");
    (deliver.delivery_tag(), deliver.redelivered(), properties, message.content.expect("a body"))
}

async fn ack(channel: &Channel, tag: u64) {
    channel.basic_ack(BasicAckArguments::new(tag, false)).await.unwrap();
}

async fn get(channel: &Channel, queue: &str) -> Option<Vec<u8>> {
    let arguments = BasicGetArguments::new(queue).no_ack(true).finish();
    channel.basic_get(arguments).await.unwrap().map(|(_, _, body)| body)
}

async fn goodbye(connection: Connection, channel: Channel, queue: &str) {
    channel.queue_delete(QueueDeleteArguments::new(queue)).await.unwrap();
    channel.close().await.unwrap();
    connection.close().await.unwrap();
}

#[test]
fn persistent_messages_are_confirmed_and_consumed_in_order() {
    converse(async |address| {
        let connection = connect(address).await;
        let (channel, mut told) = open(&connection).await;
        declare(&channel, "amqprs.orders").await;
        channel.confirm_select(ConfirmSelectArguments::default()).await.unwrap();

        for n in 0..MESSAGES {
            publish(&channel, "amqprs.orders", n.to_string()).await;
        }
        let mut confirmed = 0;
        while confirmed < MESSAGES as u64 {
            let Some(Told::Confirmed { through, multiple }) = told.recv().await else { panic!("no confirm") };
            assert!(through == confirmed + 1 || (through > confirmed && multiple));
            confirmed = through;
        }

        let (reader, _told) = open(&connection).await;
        reader.basic_qos(BasicQosArguments::new(0, 10, false)).await.unwrap();
        let mut deliveries = consume(&reader, "amqprs.orders").await;
        for n in 0..MESSAGES {
            let (tag, redelivered, properties, body) = next(&mut deliveries).await;
            assert_eq!(body, n.to_string().as_bytes());
            assert!(!redelivered);
            assert_eq!(properties.delivery_mode(), Some(2));
            ack(&reader, tag).await;
        }
        reader.close().await.unwrap();
        assert_eq!(get(&channel, "amqprs.orders").await, None);
        goodbye(connection, channel, "amqprs.orders").await;
    });
}

#[test]
fn unroutable_mandatory_message_is_returned_before_its_confirm() {
    converse(async |address| {
        let connection = connect(address).await;
        let (channel, mut told) = open(&connection).await;
        channel.confirm_select(ConfirmSelectArguments::default()).await.unwrap();

        let arguments = BasicPublishArguments::new("", "amqprs.nowhere").mandatory(true).finish();
        channel.basic_publish(BasicProperties::default(), b"hello?".to_vec(), arguments).await.unwrap();

        let (text, body) = ("NO_ROUTE".into(), b"hello?".to_vec());
        assert_eq!(told.recv().await, Some(Told::Returned { code: 312, text, body }));
        assert_eq!(told.recv().await, Some(Told::Confirmed { through: 1, multiple: false }));
        channel.close().await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn returned_delivery_comes_again_with_the_flag() {
    converse(async |address| {
        let connection = connect(address).await;
        let (channel, _told) = open(&connection).await;
        declare(&channel, "amqprs.again").await;
        publish(&channel, "amqprs.again", "once more").await;

        let mut deliveries = consume(&channel, "amqprs.again").await;
        let (first, was_redelivered, ..) = next(&mut deliveries).await;
        channel.basic_nack(BasicNackArguments::new(first, false, true)).await.unwrap();
        let (second, redelivered, _, body) = next(&mut deliveries).await;

        assert!(!was_redelivered && redelivered);
        assert_eq!(body, b"once more");
        assert_ne!(first, second);
        ack(&channel, second).await;
        goodbye(connection, channel, "amqprs.again").await;
    });
}

#[test]
fn channel_error_ends_the_channel_and_not_the_connection() {
    converse(async |address| {
        let connection = connect(address).await;
        let (doomed, mut told) = open(&connection).await;

        let arguments = QueueDeclareArguments::new("amqprs.missing").passive(true).finish();
        let declared = doomed.queue_declare(arguments).await;

        assert!(declared.is_err());
        let text = no_queue("amqprs.missing");
        assert_eq!(told.recv().await, Some(Told::Closed { code: 404, text }));

        let (channel, _told) = open(&connection).await;
        declare(&channel, "amqprs.after").await;
        publish(&channel, "amqprs.after", "still here").await;
        assert_eq!(get(&channel, "amqprs.after").await.as_deref(), Some(&b"still here"[..]));
        goodbye(connection, channel, "amqprs.after").await;
    });
}

#[test]
fn properties_headers_and_bodies_of_any_size_come_back_as_they_were_sent() {
    converse(async |address| {
        let connection = connect(address).await;
        let (channel, _told) = open(&connection).await;
        declare(&channel, "amqprs.bodies").await;
        let mut headers = FieldTable::new();
        headers.insert("text".try_into().unwrap(), FieldValue::S("Kaninchen".try_into().unwrap()));
        headers.insert("number".try_into().unwrap(), FieldValue::l(-1 << 40));
        headers.insert("nothing".try_into().unwrap(), FieldValue::V);
        let properties = BasicProperties::default()
            .with_content_type("application/octet-stream")
            .with_persistence(true)
            .with_priority(3)
            .with_correlation_id("correlation")
            .with_reply_to("somewhere")
            .with_expiration("600000")
            .with_message_id("message")
            .with_timestamp(1_700_000_000)
            .with_message_type("kind")
            .with_user_id("guest")
            .with_app_id("conversation")
            .finish();
        let all = properties.clone().with_headers(headers.clone()).finish();
        let large: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
        let bodies: [&[u8]; 3] = [b"", &large, b"small"];

        for body in bodies {
            let arguments = BasicPublishArguments::new("", "amqprs.bodies");
            channel.basic_publish(all.clone(), body.to_vec(), arguments).await.unwrap();
        }

        let mut deliveries = consume(&channel, "amqprs.bodies").await;
        for sent in bodies {
            let (tag, _, received, body) = next(&mut deliveries).await;
            assert_eq!(body.len(), sent.len());
            assert!(body == sent);
            assert_eq!(received.headers(), Some(&headers));
            // They can only be compared as text, in which headers have no order.
            let others = received.clone().with_headers(FieldTable::new()).finish();
            assert_eq!(others.to_string(), properties.clone().with_headers(FieldTable::new()).to_string());
            ack(&channel, tag).await;
        }
        goodbye(connection, channel, "amqprs.bodies").await;
    });
}
