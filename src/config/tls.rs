//! What a listener needs to speak TLS.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Certificate, key, and what is asked of clients.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and its chain, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// What the key is encrypted with, if it is.
    #[serde(default)]
    pub key_password: Option<String>,
    /// Who signs the clients' certificates, in PEM.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Clients are asked for a certificate; one that is not signed by `ca` is refused.
    #[serde(default)]
    pub verify_peer: bool,
    /// Clients without a certificate are refused.
    #[serde(default)]
    pub require_certificate: bool,
    /// The versions that are spoken.
    #[serde(default = "both")]
    pub versions: Vec<TlsVersion>,
    /// The cipher suites that are spoken, the best first, by their OpenSSL or IANA names; all that are safe
    /// if there are none.
    #[serde(default)]
    pub ciphers: Vec<String>,
    /// The order of `ciphers` counts, not the client's.
    #[serde(default)]
    pub prefer_own_ciphers: bool,
    /// Other certificates, for clients that ask for these server names.
    #[serde(default)]
    pub server_names: BTreeMap<String, Certificate>,
    /// What of its certificate names a client's user (EXTERNAL).
    #[serde(default)]
    pub login_from: LoginFrom,
    /// Which kind of subject alternative name it is.
    #[serde(default)]
    pub login_san_type: SanType,
    /// Which of that kind, from 0.
    #[serde(default)]
    pub login_san_index: usize,
}

impl Tls {
    /// With a certificate and its key, and nothing asked of clients.
    pub fn with(certificate: PathBuf, key: PathBuf) -> Tls {
        Tls {
            certificate,
            key,
            key_password: None,
            ca: None,
            verify_peer: false,
            require_certificate: false,
            versions: both(),
            ciphers: Vec::new(),
            prefer_own_ciphers: false,
            server_names: BTreeMap::new(),
            login_from: LoginFrom::default(),
            login_san_type: SanType::default(),
            login_san_index: 0,
        }
    }
}

/// A certificate for a server name.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate and its chain, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// What the key is encrypted with, if it is.
    #[serde(default)]
    pub key_password: Option<String>,
}

/// A version of TLS that is safe to speak.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Where in a client's certificate its user name stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum LoginFrom {
    /// The whole subject, such as `CN=cart,O=Shop`.
    #[default]
    DistinguishedName,
    /// The subject's common name.
    CommonName,
    /// A subject alternative name.
    SubjectAlternativeName,
}

/// Kinds of subject alternative names.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SanType {
    /// A host's name.
    #[default]
    Dns,
    /// An address.
    Ip,
    /// An e-mail address.
    Email,
    /// A URI.
    Uri,
    /// A name of somebody else's kind.
    OtherName,
}

fn both() -> Vec<TlsVersion> {
    vec![TlsVersion::V1_2, TlsVersion::V1_3]
}
