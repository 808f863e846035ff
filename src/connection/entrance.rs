//! From an accepted socket to a stream on which AMQP can be spoken: PROXY header, then TLS, if the door
//! has them.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::proxy;
use super::stream::Stream;
use crate::tls;

/// How clients come in at a port.
#[derive(Clone, Debug)]
pub struct Door {
    /// TLS is spoken here.
    pub tls: Option<Arc<tls::Acceptor>>,
    /// A PROXY header comes first.
    pub has_proxy_header: bool,
}

/// A client that has come in.
pub struct Visitor {
    pub stream: Stream,
    /// Where it comes from, as far as we know.
    pub peer: SocketAddr,
    /// Where it wanted to go.
    pub local: SocketAddr,
    /// What TLS says of it.
    pub tls: Option<Arc<tls::Peer>>,
}

/// Lets a client in, or says why not.
pub async fn let_in(mut socket: TcpStream, peer: SocketAddr, door: Door) -> Result<Visitor, String> {
    let mut addresses = (peer, socket.local_addr().unwrap_or(peer));
    if door.has_proxy_header
        && let Some(announced) = proxy::read(&mut socket).await?
    {
        addresses = announced;
    }
    let (peer, local) = addresses;
    let Some(acceptor) = door.tls else {
        return Ok(Visitor { stream: Stream::Plain(socket), peer, local, tls: None });
    };
    let mut first = [0; 8];
    let n = socket.peek(&mut first).await.map_err(|e| e.to_string())?;
    if !matches!(first[..n], [0x16, ..]) {
        let said = match &first[..n] {
            [] => return Err("the client hung up before it said anything".into()),
            [b'A', b'M', b'Q', b'P', ..] => "AMQP without TLS",
            [b'G' | b'P' | b'H' | b'D' | b'O', ..] => "an HTTP request",
            _ => "no TLS hello",
        };
        return Err(format!(
            "the client opened with {said}; this port speaks AMQP in TLS: {:02x?}",
            &first[..n]
        ));
    }
    let stream = acceptor.accept(socket).await.map_err(|e| format!("the TLS handshake failed: {e}"))?;
    let tls = Some(Arc::new(acceptor.peer(stream.connection())));
    Ok(Visitor { stream: Stream::tls(stream), peer, local, tls })
}
