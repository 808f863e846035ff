//! A connection: what is to be said is gathered and goes out at once, what is heard comes from a thread of
//! its own into one line with what the others hear.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::Sender;

use amqp::method::{self, Cold, basic, connection};
use amqp::{FrameKind, Header, frame};
use bytes::{Bytes, BytesMut};

/// Something that a connection has heard.
#[derive(Debug)]
pub struct Heard {
    /// The number of the connection.
    pub client: u64,
    pub channel: u16,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Method(Box<Cold>),
    /// A delivery or a get-ok, properties and body.
    Message(Box<Cold>, Bytes, Vec<u8>),
    /// The end of the connection.
    Gone,
}

pub struct Client {
    pub number: u64,
    stream: TcpStream,
    out: BytesMut,
}

impl Client {
    /// A connection that has said the first words of its handshake.
    pub fn connect(address: SocketAddr, number: u64, line: Sender<Heard>) -> std::io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let reader = stream.try_clone()?;
        std::thread::spawn(move || listen(reader, number, &line));
        let mut client = Client { number, stream, out: BytesMut::new() };
        client.out.extend_from_slice(&amqp::limits::PROTOCOL_HEADER);
        client.say(
            0,
            Cold::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
                mechanism: "PLAIN".into(),
                response: b"\0guest\0guest".as_slice().into(),
                locale: "en_US".into(),
                ..connection::StartOk::default()
            })),
        );
        let tune_ok = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
        client.say(0, Cold::Connection(connection::AMQPMethod::TuneOk(tune_ok)));
        let open = connection::Open { virtual_host: "/".into() };
        client.say(0, Cold::Connection(connection::AMQPMethod::Open(open)));
        Ok(client)
    }

    /// Says a method with the next flush.
    pub fn say(&mut self, channel: u16, method: Cold) {
        frame::put_method(&mut self.out, channel, &method);
    }

    /// Publishes with the next flush.
    pub fn publish(&mut self, channel: u16, publish: basic::Publish, properties: &[u8], body: &[u8]) {
        self.say(channel, Cold::Basic(basic::AMQPMethod::Publish(publish)));
        frame::put_header(&mut self.out, channel, body.len() as u64, properties);
        if !body.is_empty() {
            frame::put_body(&mut self.out, channel, body);
        }
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&self.out.split())
    }

    /// Ends the socket without a word.
    pub fn hang_up(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// Sorts what comes into events, until the socket ends.
fn listen(mut stream: TcpStream, client: u64, line: &Sender<Heard>) {
    let mut buffer = BytesMut::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut half: Option<(Box<Cold>, Option<Header>, Vec<u8>)> = None;
    // Whoever has let go of the line does not listen any more.
    let tell = |channel, what| line.send(Heard { client, channel, what }).is_ok();
    loop {
        let n = match stream.read(&mut chunk) {
            Ok(n) if n > 0 => n,
            _ => break,
        };
        buffer.extend_from_slice(&chunk[..n]);
        let (n, bad) = frame::whole(&buffer, 0);
        let whole = buffer.split_to(n).freeze();
        for frame in frame::Frames::new(&whole) {
            match frame.kind {
                FrameKind::Heartbeat => {}
                FrameKind::Method => {
                    let method = match method::decode(frame.payload) {
                        Ok(method::Method::Cold(method)) => method,
                        Ok(method::Method::Ack(ack)) => {
                            let (delivery_tag, multiple) = (ack.delivery_tag, ack.multiple);
                            let ack = basic::Ack { delivery_tag, multiple };
                            Box::new(Cold::Basic(basic::AMQPMethod::Ack(ack)))
                        }
                        other => panic!("the broker says {other:?}"),
                    };
                    use basic::AMQPMethod as M;
                    if matches!(*method, Cold::Basic(M::Deliver(_) | M::GetOk(_))) {
                        half = Some((method, None, Vec::new()));
                        continue;
                    }
                    if !tell(frame.channel, What::Method(method)) {
                        return;
                    }
                }
                FrameKind::Header => {
                    let (_, header, _) = half.as_mut().expect("a header after its method");
                    *header = Some(Header::decode(&whole, frame.payload).expect("a content header"));
                }
                FrameKind::Body => {
                    let (_, _, body) = half.as_mut().expect("a body after its header");
                    body.extend_from_slice(frame.payload);
                }
            }
            let is_whole = half.as_ref().is_some_and(|(_, header, body)| {
                header.as_ref().is_some_and(|header| header.body_bytes == body.len() as u64)
            });
            if is_whole
                && let Some((method, Some(header), body)) = half.take()
                && !tell(frame.channel, What::Message(method, header.properties, body))
            {
                return;
            }
        }
        if bad.is_some() {
            break;
        }
    }
    tell(0, What::Gone);
}
