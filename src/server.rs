//! The broker as a server: opens the store, listens, serves until it is asked to stop.

use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use amqp::{Exception, ReplyCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::alarm::Siren;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::config::{Config, Tls};
use crate::connection::{self, Door};
use crate::http;
use crate::metrics;
use crate::node::{Expiry, Listener};
use crate::shutdown::Shutdown;
use crate::tls;
use crate::web::Port;

/// How long connections may take to say goodbye when the broker stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// What is spoken on the ports of HTTP, as RabbitMQ names it.
const HTTP: &str = "http";
const HTTPS: &str = "https";
const METRICS: &str = "http/prometheus";
const METRICS_HTTPS: &str = "https/prometheus";

/// A port on which HTTP is to be spoken.
#[derive(Debug)]
struct Web {
    listener: TcpListener,
    protocol: &'static str,
    tls: Option<Arc<tls::Acceptor>>,
}

/// A broker that has its data and its port and is about to serve.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<(TcpListener, Door)>,
    /// Whose files may change, and what is spoken there.
    acceptors: Vec<(&'static str, Arc<tls::Acceptor>)>,
    web: Vec<Web>,
    broker: Arc<Broker>,
    siren: Siren,
}

/// What can go wrong before the broker serves.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

impl Server {
    /// Opens the data directory and the port.
    ///
    /// # Errors
    /// What stands in the way, with the next step.
    pub async fn start(config: Config, options: store::Options, clock: Clock) -> Result<Server, StartError> {
        let mut listeners = Vec::new();
        for &address in &config.listen {
            let door = Door { tls: None, has_proxy_header: config.proxy_protocol };
            listeners.push((listen(address, "--listen").await?, door));
        }
        let acceptor = config.tls.as_ref().map(|settings| tls::Acceptor::new(settings, &[])).transpose()?;
        for &address in &config.listen_tls {
            let door = Door { tls: acceptor.clone(), has_proxy_header: config.proxy_protocol };
            listeners.push((listen(address, "--listen-tls").await?, door));
        }
        let of = |own: &Option<Tls>, protocols: &[&str]| {
            own.as_ref()
                .or(config.tls.as_ref())
                .map(|settings| tls::Acceptor::new(settings, protocols))
                .transpose()
        };
        let mut web = Vec::new();
        for (address, flag, protocol) in
            [(config.http, "--http", HTTP), (config.metrics, "--metrics", METRICS)]
        {
            if let Some(address) = address {
                web.push(Web { listener: listen(address, flag).await?, protocol, tls: None });
            }
        }
        for (address, key, protocol, own) in [
            (config.https, "https", HTTPS, &config.https_tls),
            (config.metrics_https, "metrics_https", METRICS_HTTPS, &config.metrics_tls),
        ] {
            if let Some(address) = address {
                let tls = of(own, &["http/1.1"])?;
                web.push(Web { listener: listen(address, key).await?, protocol, tls });
            }
        }
        let (broker, siren) =
            tokio::task::spawn_blocking(move || Broker::open(config, options, clock)).await??;
        let of_web = web.iter().filter_map(|web| Some((web.protocol, web.tls.clone()?)));
        let acceptors = acceptor.map(|acceptor| ("amqp/ssl", acceptor)).into_iter().chain(of_web).collect();
        Ok(Server { listeners, acceptors, web, broker, siren })
    }

    /// Where it listens first.
    ///
    /// # Errors
    /// The system's, or that it does not listen at all.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        let first = self.listeners.first().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        first.0.local_addr()
    }

    /// Where it listens first with TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        let (listener, _) = self.listeners.iter().find(|(_, door)| door.tls.is_some())?;
        listener.local_addr().ok()
    }

    /// What has certificates that can be read again.
    pub fn acceptors(&self) -> Vec<Arc<tls::Acceptor>> {
        self.acceptors.iter().map(|(_, acceptor)| acceptor.clone()).collect()
    }

    /// Where the HTTP API is, if anywhere.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.web_address(HTTP)
    }

    /// Where something of HTTP is: `http`, `https`, `http/prometheus` or `https/prometheus`.
    pub fn web_address(&self, protocol: &str) -> Option<SocketAddr> {
        self.web.iter().find(|web| web.protocol == protocol)?.listener.local_addr().ok()
    }

    /// The broker behind the port.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Serves until `shutdown`, then tells all clients, syncs everything and lets go of the data
    /// directory.
    ///
    /// # Errors
    /// If not everything could be written.
    pub async fn run(self, mut shutdown: Shutdown) -> Result<(), store::Error> {
        let Server { mut listeners, acceptors, web, broker, siren } = self;
        let mut watching_files = JoinSet::new();
        for (_, acceptor) in acceptors.clone() {
            watching_files.spawn(async move { acceptor.watch().await });
        }
        broker.set_certificates(move || acceptors.iter().flat_map(|(at, from)| expiries(at, from)).collect());
        let mut connections = JoinSet::new();
        broker.set_listeners(addresses(&listeners, &web));
        let watching = siren.watch(
            &broker.config.data_dir,
            || broker.budget().disk_free_bytes_min(),
            || broker.budget().shortage(),
        );
        let porter = broker.clone();
        let seeing_off = tokio::spawn(async move { porter.see_off().await });
        let teller = broker.clone();
        let telling = tokio::spawn(async move { teller.tell_news().await });
        let mut doors = JoinSet::new();
        for Web { listener, protocol, tls } in web {
            match Port::open(listener, tls) {
                Ok(port) if protocol == HTTP || protocol == HTTPS => {
                    drop(doors.spawn(http::serve(port, broker.clone())))
                }
                Ok(port) => drop(doors.spawn(metrics::serve(port, broker.clone()))),
                Err(error) => error!(%error, protocol, "HTTP cannot be served"),
            }
        }
        let timing = broker.keep_time();
        let tidying = broker.keep_memory();
        let noting = broker.keep_history();
        tokio::pin!(watching, timing, tidying, noting);
        info!(addresses = ?broker.config.listen, tls = ?broker.config.listen_tls, "Server startup complete");
        loop {
            tokio::select! {
                () = shutdown.asked() => break,
                () = broker.is_asked_to_stop() => break,
                () = &mut watching => {}
                () = &mut timing => {}
                () = &mut tidying => {}
                () = &mut noting => {}
                Some(ended) = connections.join_next() => {
                    if let Err(panic) = ended {
                        error!(%panic, "a connection's task has panicked; please report this");
                    }
                }
                accepted = accept(&mut listeners) => match accepted {
                    Ok((stream, peer, door)) => {
                        connections.spawn(connection::serve(stream, peer, door, broker.clone()));
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: give others time to end.
                        warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        info!(connections = broker.roster.len(), "stopping");
        drop(listeners);
        doors.abort_all();
        let text = "broker forced connection closure with reason 'shutdown'";
        broker.roster.close_all(&Exception::new(ReplyCode::ConnectionForced, text));
        let all_gone = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, all_gone).await.is_err() {
            warn!("some clients did not answer and are cut off");
            connections.shutdown().await;
        }
        telling.abort();
        let _ = telling.await;
        seeing_off.abort();
        let _ = seeing_off.await;
        broker.see_off_the_last();
        let store = broker.store().clone();
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        info!("stopped");
        closed.unwrap_or(Err(store::Error::Poisoned))
    }
}

/// Opens a port that one can choose with a flag.
async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, String> {
    let listener = match TcpListener::bind(address).await {
        // "All addresses", on a machine without IPv6.
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        listener => listener,
    };
    listener.map_err(|e| {
        format!("cannot listen on {address}: {e}; is another broker running? ({flag} takes another address)")
    })
}

/// The next connection of any listener.
async fn accept(listeners: &mut [(TcpListener, Door)]) -> std::io::Result<(TcpStream, SocketAddr, Door)> {
    poll_fn(|context| {
        for at in 0..listeners.len() {
            let (listener, door) = &listeners[at];
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                let door = door.clone();
                // The next time it is asked last: nobody is passed over for ever.
                listeners.rotate_left(at + 1);
                return Poll::Ready(accepted.map(|(stream, peer)| (stream, peer, door)));
            }
        }
        Poll::Pending
    })
    .await
}

/// Where everything listens.
fn addresses(amqp: &[(TcpListener, Door)], web: &[Web]) -> Vec<Listener> {
    let amqp = amqp.iter().map(|(listener, door)| match &door.tls {
        Some(_) => ("amqp/ssl", listener),
        None => ("amqp", listener),
    });
    let web = web.iter().map(|web| (web.protocol, &web.listener));
    let address = |(protocol, listener): (&'static str, &TcpListener)| {
        Some(Listener { protocol, address: listener.local_addr().ok()? })
    };
    amqp.chain(web).filter_map(address).collect()
}

fn expiries(protocol: &'static str, acceptor: &tls::Acceptor) -> Vec<Expiry> {
    let expiry = |one: tls::Expiry| Expiry {
        protocol,
        file: one.file.display().to_string(),
        not_after_secs: u64::try_from(one.at_secs).unwrap_or_default(),
    };
    acceptor.expiries().into_iter().map(expiry).collect()
}
