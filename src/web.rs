//! Where HTTP comes in: a port, plain or in TLS. Handshakes go on beside each other, so that nobody holds others up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

use crate::tls::Acceptor;

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// So many TLS handshakes go on at a time; who comes when there are more is turned away.
const HANDSHAKES_MAX: usize = 256;

/// So many clients may have shaken hands and wait to be served: they are served at once.
const WAITING_MAX: usize = 64;

/// After an error of the listener, most likely for want of descriptors, others get time to end.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket, or TLS over one.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct From(pub SocketAddr);

/// A port on which HTTP is spoken.
pub struct Port {
    local: SocketAddr,
    comes: mpsc::Receiver<(Box<dyn Stream>, SocketAddr)>,
}

impl Port {
    /// Takes connections of a listener, in TLS if there is an acceptor, until it is dropped.
    ///
    /// # Errors
    /// The listener's.
    pub fn open(listener: TcpListener, tls: Option<Arc<Acceptor>>) -> std::io::Result<Port> {
        let local = listener.local_addr()?;
        let (goes, comes) = mpsc::channel(WAITING_MAX);
        tokio::spawn(accept(listener, tls, goes));
        Ok(Port { local, comes })
    }
}

type Goes = mpsc::Sender<(Box<dyn Stream>, SocketAddr)>;

async fn accept(listener: TcpListener, tls: Option<Arc<Acceptor>>, goes: Goes) {
    let turns = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = goes.closed() => return,
        };
        if let Ok((stream, _)) = &accepted {
            // An answer goes out in pieces: Nagle's algorithm would have one wait until the one before is acknowledged.
            let _ = stream.set_nodelay(true);
        }
        match (accepted, &tls) {
            (Ok((stream, peer)), None) => {
                // It can only fail when the port is closed, which is seen at the top.
                let _ = goes.send((Box::new(stream), peer)).await;
            }
            (Ok((stream, peer)), Some(acceptor)) => {
                let Ok(turn) = turns.clone().try_acquire_owned() else {
                    debug!(%peer, "too many TLS handshakes at a time; the client is turned away");
                    continue;
                };
                let (acceptor, goes) = (acceptor.clone(), goes.clone());
                tokio::spawn(async move {
                    shake_hands(stream, peer, acceptor, goes).await;
                    drop(turn);
                });
            }
            (Err(error), _) => {
                warn!(%error, "a connection of HTTP could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn shake_hands(stream: TcpStream, peer: SocketAddr, acceptor: Arc<Acceptor>, goes: Goes) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => drop(goes.send((Box::new(stream), peer)).await),
        Ok(Err(error)) => debug!(%peer, %error, "no TLS handshake"),
        Err(_) => debug!(%peer, "the TLS handshake took too long"),
    }
}

impl Listener for Port {
    type Io = Box<dyn Stream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.comes.recv().await {
            Some(came) => came,
            // The task that accepts has ended: nobody will come any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl Connected<IncomingStream<'_, Port>> for From {
    fn connect_info(stream: IncomingStream<'_, Port>) -> From {
        From(*stream.remote_addr())
    }
}
