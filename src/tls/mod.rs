//! TLS as a server: an acceptor whose certificates are read again when their files change, and what is
//! known of the other side.

mod certificate;
mod files;
mod stream;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};

use crate::config::{Certificate, Tls, TlsVersion};
pub use certificate::PeerCertificate;
pub use stream::Stream;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Sessions that can be taken up again with less work.
const SESSIONS_MAX: usize = 4096;

/// Speaks TLS with what a listener's files hold. New connections see new files; open ones go on.
pub struct Acceptor {
    settings: Tls,
    /// Protocols that can be agreed on, such as `h2`; none for AMQP.
    protocols: Vec<Vec<u8>>,
    loaded: RwLock<Loaded>,
    /// What was loaded last, or tried: a bad file is told of once.
    seen: Mutex<Vec<Stamp>>,
}

#[derive(Clone)]
struct Loaded {
    config: Arc<ServerConfig>,
    certificates: Vec<Expiry>,
}

/// Until when a certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Its file.
    pub file: PathBuf,
    /// Who it is for.
    pub subject: String,
    /// In seconds since 1970.
    pub at_secs: i64,
}

/// When a file was changed, and how long it is.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(PathBuf, Option<(SystemTime, u64)>);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("certificate", &self.settings.certificate).finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads certificates and keys. `protocols` can be agreed on by ALPN.
    ///
    /// # Errors
    /// What is wrong, naming the file or the setting.
    pub fn new(settings: &Tls, protocols: &[&str]) -> Result<Arc<Acceptor>, String> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let seen = stamps(settings);
        let loaded = load(settings, &protocols)?;
        let (loaded, seen) = (RwLock::new(loaded), Mutex::new(seen));
        Ok(Arc::new(Acceptor { settings: settings.clone(), protocols, loaded, seen }))
    }

    fn loaded(&self) -> Loaded {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until when its certificates are valid.
    pub fn expiries(&self) -> Vec<Expiry> {
        self.loaded().certificates
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Tls {
        &self.settings
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// Why that failed. The client has been told, as far as TLS can.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<Stream<S>> {
        TlsAcceptor::from(self.loaded().config).accept(stream).await.map(Stream::new)
    }

    /// What is known of the client of a stream.
    pub fn peer(&self, connection: &ServerConnection) -> Peer {
        let suite = connection.negotiated_cipher_suite();
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "tlsv1.2",
            _ => "tlsv1.3",
        };
        let group = connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        Peer {
            version,
            cipher: suite.map(iana_name).unwrap_or_default(),
            key_exchange: group.unwrap_or_default().to_lowercase(),
            certificate: certificate.and_then(|der| PeerCertificate::read(der, &self.settings)),
        }
    }

    /// Reads the files again. If that fails, what was there stays.
    pub fn reload(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamps(&self.settings);
        let file = self.settings.certificate.display();
        match load(&self.settings, &self.protocols) {
            Ok(loaded) => {
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
                info!(certificate = %file, "TLS certificates have been read again");
            }
            Err(error) => {
                error!(certificate = %file, error, "TLS certificates cannot be read; the old ones stay in use");
            }
        }
    }

    /// Reads the files again whenever they have changed, until the caller stops polling.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != stamps(&self.settings) {
                self.reload();
            }
        }
    }
}

/// What is known of the client of a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `tlsv1.2` or `tlsv1.3`, as RabbitMQ names them.
    pub version: &'static str,
    /// The cipher suite by its IANA name.
    pub cipher: String,
    /// The group of the key exchange, such as `x25519`.
    pub key_exchange: String,
    /// What it says of itself, signed by somebody we trust.
    pub certificate: Option<PeerCertificate>,
}

impl Peer {
    /// The hash of the cipher suite, such as `sha256`.
    pub fn hash(&self) -> String {
        self.cipher.rsplit('_').next().unwrap_or_default().to_lowercase()
    }
}

/// The name of rustls, without its mark on suites of TLS 1.3.
fn iana_name(suite: SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

/// As OpenSSL calls it: `ECDHE-RSA-AES128-GCM-SHA256`; those of TLS 1.3 have their IANA name.
fn openssl_name(suite: SupportedCipherSuite) -> String {
    let name = iana_name(suite);
    match name.strip_prefix("TLS_").and_then(|rest| rest.split_once("_WITH_")) {
        Some((exchange, cipher)) => {
            let cipher = cipher.replace("AES_", "AES").replace("POLY1305_SHA256", "POLY1305");
            format!("{exchange}-{cipher}").replace('_', "-")
        }
        None => name,
    }
}

fn stamps(settings: &Tls) -> Vec<Stamp> {
    let others = settings.server_names.values().flat_map(|other| [&other.certificate, &other.key]);
    let files = [&settings.certificate, &settings.key].into_iter().chain(&settings.ca).chain(others);
    let stamp = |file: &PathBuf| {
        let data = std::fs::metadata(file).ok();
        Stamp(file.clone(), data.and_then(|data| Some((data.modified().ok()?, data.len()))))
    };
    files.map(stamp).collect()
}

fn load(settings: &Tls, protocols: &[Vec<u8>]) -> Result<Loaded, String> {
    let provider = Arc::new(provider(settings)?);
    let mut certificates = Vec::new();
    let mut certified = |certificate: &Certificate| -> Result<Arc<CertifiedKey>, String> {
        let (key, expiry) = files::certified_key(certificate, &provider)?;
        certificates.push(expiry);
        Ok(Arc::new(key))
    };
    let first = certified(&Certificate {
        certificate: settings.certificate.clone(),
        key: settings.key.clone(),
        key_password: settings.key_password.clone(),
    })?;
    let mut named = Vec::new();
    for (name, certificate) in &settings.server_names {
        named.push((name.to_lowercase(), certified(certificate)?));
    }
    let versions = settings.versions.iter().map(|version| match version {
        TlsVersion::V1_2 => &TLS12,
        TlsVersion::V1_3 => &TLS13,
    });
    let versions: Vec<_> = versions.collect();
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(&versions).map_err(|e| {
        format!("tls.versions is {:?} and tls.ciphers {:?}: {e}", settings.versions, settings.ciphers)
    })?;
    let builder = match client_verifier(settings, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName { first, named }));
    config.alpn_protocols = protocols.to_vec();
    config.ignore_client_order = settings.prefer_own_ciphers;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(Loaded { config: Arc::new(config), certificates })
}

/// The cryptography, with the ciphers that are wanted.
fn provider(settings: &Tls) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if settings.ciphers.is_empty() {
        return Ok(provider);
    }
    let all = std::mem::take(&mut provider.cipher_suites);
    for wanted in &settings.ciphers {
        let fits =
            |suite: &&SupportedCipherSuite| iana_name(**suite) == *wanted || openssl_name(**suite) == *wanted;
        match all.iter().find(fits) {
            Some(suite) => provider.cipher_suites.push(*suite),
            None => warn!(cipher = wanted, "this cipher suite is not spoken here, and passed over"),
        }
    }
    if provider.cipher_suites.is_empty() {
        let names: Vec<String> = all.into_iter().map(openssl_name).collect();
        return Err(format!("none of tls.ciphers {:?} is spoken; there are {names:?}", settings.ciphers));
    }
    Ok(provider)
}

fn client_verifier(
    settings: &Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>, String> {
    if !settings.verify_peer {
        if settings.require_certificate {
            return Err("tls.require_certificate needs tls.verify_peer and tls.ca: a certificate that \
                        nobody looks at proves nothing"
                .into());
        }
        return Ok(None);
    }
    let Some(file) = &settings.ca else {
        return Err("tls.verify_peer needs tls.ca, the certificates of those who sign clients' ones".into());
    };
    let mut roots = RootCertStore::empty();
    for der in files::certificates(file)? {
        roots.add(der).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if !settings.require_certificate {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(Some).map_err(|e| format!("{}: {e}", file.display()))
}

/// Certificates by the server name that a client asks for.
#[derive(Debug)]
struct ByName {
    first: Arc<CertifiedKey>,
    named: Vec<(String, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name().map(str::to_lowercase);
        let named = wanted.and_then(|wanted| self.named.iter().find(|(name, _)| is_for(name, &wanted)));
        Some(named.map_or(&self.first, |(_, key)| key).clone())
    }
}

/// `*.example.org` is for every name one step below.
fn is_for(name: &str, wanted: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => wanted.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_have_the_names_that_openssl_gives_them() {
        let names: Vec<String> =
            ring::default_provider().cipher_suites.into_iter().map(openssl_name).collect();

        for known in [
            "TLS_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-RSA-CHACHA20-POLY1305",
        ] {
            assert!(names.iter().any(|name| name == known), "{known} is not among {names:?}");
        }
    }

    #[test]
    fn a_star_stands_for_one_step() {
        assert!(is_for("a.org", "a.org"));
        assert!(is_for("*.a.org", "b.a.org"));
        assert!(!is_for("*.a.org", "a.org"));
        assert!(!is_for("*.a.org", "c.b.a.org"));
    }
}
