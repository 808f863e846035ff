//! From the first eight bytes to connection.open-ok (specification 4.7): who is there, and which limits
//! both sides keep.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use amqp::method::{Cold, LongString, connection};
use amqp::{Exception, FrameKind, Method, ReplyCode, Table, Value, frame, limits, method, sasl};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::{info, warn};

use super::news;
use super::stream::Stream;
use crate::auth::User;
use crate::broker::{Broker, Place, Protocol};
use crate::channel::Failure;
use crate::delivery::ConnectionId;
use crate::tls;
use crate::vhost::{Caller, Vhost};

/// How long a client that cannot be told of a wrong password has to wait, as with RabbitMQ: it makes
/// guessing slow.
const SILENT_CLOSE_DELAY: Duration = Duration::from_secs(3);

/// What both sides agreed on.
#[derive(Debug)]
pub struct Agreed {
    /// Who, and with which rights.
    pub caller: Caller,
    /// Its place among those that there are.
    pub place: Place,
    /// Where it works.
    pub vhost: Arc<Vhost>,
    /// Octets of a frame with its envelope; 0 is no limit.
    pub frame_bytes_max: u32,
    /// How many channels may be open at a time.
    pub channel_max: u16,
    /// Seconds; 0 turns heartbeats off.
    pub heartbeat_secs: u16,
    /// What the client says of itself.
    pub client_properties: Arc<Table>,
    /// How it has proved who it is.
    pub mechanism: String,
}

/// How a handshake fails.
#[derive(Debug)]
pub enum Refusal {
    /// The client is told.
    Told(Failure),
    /// The client could not make sense of an answer: the socket is closed.
    Silent(String),
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        Refusal::Silent(error.to_string())
    }
}

/// A socket during the handshake: one method at a time.
struct Talk<'a> {
    stream: &'a mut Stream,
    buffer: &'a mut BytesMut,
}

impl Talk<'_> {
    async fn send(&mut self, method: connection::AMQPMethod) -> Result<(), Refusal> {
        let mut out = BytesMut::new();
        frame::put_method(&mut out, 0, &Cold::Connection(method));
        self.stream.write_all(&out).await?;
        Ok(self.stream.flush().await?)
    }

    async fn fill(&mut self) -> Result<(), Refusal> {
        match self.stream.read_buf(self.buffer).await? {
            0 => Err(Refusal::Silent("the client hung up during the handshake".into())),
            _ => Ok(()),
        }
    }

    /// The next method on channel 0; heartbeats are passed over.
    async fn receive(&mut self) -> Result<connection::AMQPMethod, Refusal> {
        loop {
            let Some(bytes) = frame::expected_bytes(self.buffer) else {
                self.fill().await?;
                continue;
            };
            if bytes > limits::FRAME_BYTES_MAX as usize {
                return Err(Refusal::Silent(format!("a frame of {bytes} octets during the handshake")));
            }
            if self.buffer.len() < bytes {
                self.buffer.reserve(bytes);
                self.fill().await?;
                continue;
            }
            let whole = self.buffer.split_to(bytes).freeze();
            if let (_, Some(error)) = frame::whole(&whole, limits::FRAME_BYTES_MAX) {
                return Err(Refusal::Silent(format!("bad frame during the handshake: {error:?}")));
            }
            let Some(frame) = frame::Frames::new(&whole).next() else { continue };
            match frame.kind {
                FrameKind::Heartbeat => {}
                FrameKind::Method if frame.channel == 0 => match method::decode(frame.payload) {
                    Ok(Method::Cold(method)) => match *method {
                        Cold::Connection(method) => return Ok(method),
                        other => {
                            let text = format!("method {other:?} before connection.open");
                            return Err(told(ReplyCode::ChannelError, &text, (0, 0)));
                        }
                    },
                    Ok(_) => return Err(Refusal::Silent("a message before connection.open".into())),
                    Err(method::Error::NotText) => {
                        let text = "Malformed UTF-8 in shortstr";
                        return Err(told(ReplyCode::FrameError, text, method::ids(frame.payload)));
                    }
                    Err(e) => return Err(Refusal::Told(crate::channel::undecodable(e, frame.payload))),
                },
                _ => {
                    let octets = crate::channel::octets(frame.payload);
                    let text = format!("type {}, all octets = {octets}", frame.kind as u8 + 1);
                    return Err(told(ReplyCode::UnexpectedFrame, &text, (0, 0)));
                }
            }
        }
    }
}

fn told(code: ReplyCode, text: &str, blame: (u16, u16)) -> Refusal {
    Refusal::Told(Failure::of(Exception::new(code, text), blame))
}

fn out_of_turn(method: &connection::AMQPMethod, state: &str) -> Refusal {
    let method = Cold::Connection(method.clone());
    let blame = (method.get_amqp_class_id(), method.get_amqp_method_id());
    told(ReplyCode::ChannelError, &format!("unexpected method in connection state {state}"), blame)
}

/// Talks to a client until the connection is open, or says why it is not.
pub async fn shake_hands(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    (peer, local): (SocketAddr, SocketAddr),
    tls: Option<&tls::Peer>,
    id: ConnectionId,
    broker: &Broker,
) -> Result<Agreed, Refusal> {
    let mut talk = Talk { stream, buffer };
    protocol_header(&mut talk).await?;
    talk.send(start(broker, tls)).await?;

    let start_ok = match talk.receive().await? {
        connection::AMQPMethod::StartOk(start_ok) => start_ok,
        other => return Err(out_of_turn(&other, "starting")),
    };
    let client_properties = Table::from(&start_ok.client_properties);
    let user = authenticate(&start_ok, &client_properties, (peer, local), tls, broker).await?;

    let config = &broker.config;
    talk.send(connection::AMQPMethod::Tune(connection::Tune {
        channel_max: config.channel_max,
        frame_max: config.frame_bytes_max,
        heartbeat: config.heartbeat_secs,
    }))
    .await?;
    let tune_ok = match talk.receive().await? {
        connection::AMQPMethod::TuneOk(tune_ok) => tune_ok,
        other => return Err(out_of_turn(&other, "tuning")),
    };
    let frame_bytes_max = agree("frame_max", tune_ok.frame_max, config.frame_bytes_max)?;
    let channel_max = agree("channel_max", tune_ok.channel_max.into(), config.channel_max.into())?;
    if frame_bytes_max != 0 && frame_bytes_max < limits::FRAME_BYTES_MIN {
        let text = format!(
            "negotiated frame_max = {frame_bytes_max} is lower than the minimum allowed value ({})",
            limits::FRAME_BYTES_MIN
        );
        return Err(told(ReplyCode::NotAllowed, &text, (10, 31)));
    }

    let open = match talk.receive().await? {
        connection::AMQPMethod::Open(open) => open,
        other => return Err(out_of_turn(&other, "opening")),
    };
    let refuse = |error: crate::error::Error| Refusal::Told(Failure::of(error.into(), (10, 40)));
    let vhost = broker.vhost(open.virtual_host.as_str()).map_err(refuse)?;
    let place = broker.take_place(&user.name, &vhost.about()).map_err(refuse)?;
    let access = broker.access(&user.name, vhost.name()).map_err(refuse)?;
    talk.send(connection::AMQPMethod::OpenOk(connection::OpenOk {})).await?;
    Ok(Agreed {
        caller: Caller { connection: id, user, access },
        place,
        vhost,
        frame_bytes_max,
        channel_max: channel_max as u16,
        heartbeat_secs: tune_ok.heartbeat,
        client_properties: Arc::new(client_properties),
        mechanism: start_ok.mechanism.to_string(),
    })
}

/// A client may lower what we propose, not raise it. 0 is no limit of its own: ours holds.
fn agree(what: &str, wanted: u32, proposed: u32) -> Result<u32, Refusal> {
    match (wanted, proposed) {
        (0, proposed) => Ok(proposed),
        (wanted, 0) => Ok(wanted),
        (wanted, proposed) if wanted <= proposed => Ok(wanted),
        _ => {
            let text =
                format!("negotiated {what} = {wanted} is higher than the maximum allowed value ({proposed})");
            Err(told(ReplyCode::NotAllowed, &text, (10, 31)))
        }
    }
}

/// Reads the eight bytes a client opens with. Anything but AMQP 0-9-1 (or the 0-9 header that old
/// clients send) is answered with what we speak.
async fn protocol_header(talk: &mut Talk<'_>) -> Result<(), Refusal> {
    while talk.buffer.len() < limits::PROTOCOL_HEADER.len() {
        talk.fill().await?;
    }
    let header = talk.buffer.split_to(limits::PROTOCOL_HEADER.len());
    if header == limits::PROTOCOL_HEADER[..] || &header[..] == b"AMQP\x01\x01\x00\x09" {
        return Ok(());
    }
    talk.stream.write_all(&limits::PROTOCOL_HEADER).await?;
    let looks_like = match &header[..] {
        [0x16, 3, ..] => "a TLS hello; this port speaks plain AMQP",
        [b'G' | b'P' | b'H' | b'D' | b'O', ..] => "an HTTP request; this port speaks AMQP",
        [b'A', b'M', b'Q', b'P', 0 | 3, 1, 0, 0] => "AMQP 1.0; this broker speaks 0-9-1",
        [b'A', b'M', b'Q', b'P', ..] => "another version of AMQP; this broker speaks 0-9-1",
        [0x10, ..] => "MQTT; this port speaks AMQP",
        _ => "no protocol that we know",
    };
    Err(Refusal::Silent(format!("the client opened with {looks_like}: {:02x?}", &header[..])))
}

/// The mechanisms that are configured; EXTERNAL only where there is something external.
fn mechanisms(broker: &Broker, tls: Option<&tls::Peer>) -> String {
    let offered = broker.config.auth_mechanisms.iter().map(String::as_str);
    let offered: Vec<&str> = offered.filter(|name| *name != sasl::EXTERNAL || tls.is_some()).collect();
    offered.join(" ")
}

fn start(broker: &Broker, tls: Option<&tls::Peer>) -> connection::AMQPMethod {
    const CAPABILITIES: &[&str] = &[
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ];
    let capabilities: Table = CAPABILITIES.iter().map(|&name| (name, Value::Bool(true))).collect();
    let said = &broker.config.server_properties;
    let properties = Table::from_iter([
        ("capabilities", Value::Table(capabilities)),
        ("cluster_name", Value::text(broker.cluster_name())),
        ("copyright", Value::text("Copyright (c) 2026 the Garenne authors")),
        ("information", Value::text("Licensed under MIT or Apache-2.0")),
        ("platform", Value::text(concat!("Rust ", env!("CARGO_PKG_RUST_VERSION")))),
        ("product", Value::text(said.product.as_str())),
        ("version", Value::text(said.version.as_str())),
    ]);
    connection::AMQPMethod::Start(connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: (&properties).into(),
        mechanisms: LongString::from(mechanisms(broker, tls)),
        locales: LongString::from("en_US"),
    })
}

async fn authenticate(
    start_ok: &connection::StartOk,
    client_properties: &Table,
    (peer, local): (SocketAddr, SocketAddr),
    tls: Option<&tls::Peer>,
    broker: &Broker,
) -> Result<Arc<User>, Refusal> {
    let mechanism = start_ok.mechanism.as_str();
    if !mechanisms(broker, tls).split(' ').any(|m| m == mechanism) {
        return Err(Refusal::Silent(format!("unknown SASL mechanism '{mechanism}'")));
    }
    let (name, outcome) = if mechanism == sasl::EXTERNAL {
        let name = tls.and_then(|tls| tls.certificate.as_ref()).and_then(|c| c.login.clone());
        let outcome = broker.log_in_known(name.as_deref().unwrap_or_default(), peer, Protocol::Amqp);
        (name.or_else(|| Some("(no name in a certificate)".into())), outcome)
    } else {
        let said = sasl::decode(mechanism, start_ok.response.as_bytes());
        let (name, password) = said.as_ref().map_or(("", ""), |c| (&*c.user, &*c.password));
        let outcome = broker.log_in(name, password, peer, Protocol::Amqp);
        (said.map(|c| c.user), outcome)
    };
    let user = outcome.as_ref().map(|user| &*user.name).ok().or(name.as_deref()).unwrap_or_default();
    let attempt = news::Attempt { user, mechanism, peer, local, is_tls: tls.is_some() };
    news::tried(broker, &attempt, outcome.is_ok());
    let refused = match outcome {
        Ok(user) => {
            info!(%peer, user = %user.name, "logged in");
            return Ok(user);
        }
        Err(refused) => refused,
    };
    warn!(%peer, user = name, mechanism, "login refused");
    let capabilities = match client_properties.get("capabilities") {
        Some(Value::Table(table)) => table.clone(),
        _ => Table::new(),
    };
    if !capabilities.is_true("authentication_failure_close") {
        tokio::time::sleep(refused.wait.max(SILENT_CLOSE_DELAY)).await;
        return Err(Refusal::Silent("the login was refused".into()));
    }
    tokio::time::sleep(refused.wait).await;
    let text = format!(
        "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
    );
    Err(told(ReplyCode::AccessRefused, &text, (0, 0)))
}
