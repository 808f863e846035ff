//! A way into a broker that speaks TLS, for clients that do not: a plain port of this machine, and
//! behind it a TLS client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::certificates::{Authority, Files};

/// What the TLS client is like.
#[derive(Clone)]
pub struct Manner {
    pub server_name: &'static str,
    pub client: Option<Files>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

impl Default for Manner {
    fn default() -> Self {
        Manner { server_name: "localhost", client: None, versions: rustls::ALL_VERSIONS.to_vec() }
    }
}

/// What the TLS client has learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The server's first certificate.
    pub certificate: Vec<u8>,
    pub version: Option<rustls::ProtocolVersion>,
    pub error: Option<String>,
}

/// The way in. It is closed when it is dropped.
pub struct Tunnel {
    pub address: SocketAddr,
    learned: Arc<Mutex<Learned>>,
    close: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnel {
    pub fn to(broker: SocketAddr, authority: &Authority, manner: Manner) -> Tunnel {
        let config = Arc::new(config(authority, &manner));
        let name = ServerName::try_from(manner.server_name).expect("a server name");
        let (close, closed) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let learned = Arc::new(Mutex::new(Learned::default()));
        let notes = learned.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
                tell.send(listener.local_addr().expect("its address")).expect("a test that waits");
                let serve = async {
                    while let Ok((plain, _)) = listener.accept().await {
                        tokio::spawn(pump(plain, broker, config.clone(), name.clone(), notes.clone()));
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = closed => {}
                }
            });
        });
        let address = told.recv().expect("a tunnel that is open");
        Tunnel { address, learned, close: Some(close), thread: Some(thread) }
    }

    pub fn learned(&self) -> Learned {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        drop(self.close.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn pump(
    mut plain: TcpStream,
    broker: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    notes: Arc<Mutex<Learned>>,
) {
    let note =
        |change: &dyn Fn(&mut Learned)| change(&mut notes.lock().unwrap_or_else(PoisonError::into_inner));
    let failed = |e: std::io::Error| note(&|learned| learned.error = Some(e.to_string()));
    let socket = TcpStream::connect(broker).await.expect("a broker that listens");
    let mut stream = match TlsConnector::from(config).connect(name, socket).await {
        Ok(stream) => stream,
        Err(error) => return failed(error),
    };
    let connection = stream.get_ref().1;
    let certificates = connection.peer_certificates().unwrap_or_default();
    note(&|learned| {
        learned.certificate = certificates.first().map(|der| der.to_vec()).unwrap_or_default();
        learned.version = connection.protocol_version();
    });
    if let Err(error) = tokio::io::copy_bidirectional(&mut plain, &mut stream).await {
        failed(error);
    }
}

pub fn config(authority: &Authority, manner: &Manner) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(authority.file()).expect("an authority");
    roots.add(root).expect("an authority's certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&manner.versions).expect("versions");
    let builder = builder.with_root_certificates(roots);
    match &manner.client {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let certificate = CertificateDer::from_pem_file(&files.certificate).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
            builder.with_client_auth_cert(vec![certificate], key).expect("a certificate with its key")
        }
    }
}
