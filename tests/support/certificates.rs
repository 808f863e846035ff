//! Certificates for tests: an authority, and what it signs, as files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

/// Somebody who signs certificates, and keeps all of them in a directory.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// The certificate as it goes over the wire.
    pub fn der(&self) -> Vec<u8> {
        use rustls::pki_types::pem::PemObject;
        rustls::pki_types::CertificateDer::from_pem_file(&self.certificate).expect("a certificate").to_vec()
    }
}

impl Authority {
    pub fn new() -> Authority {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "Test Authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("a file");
        Authority { dir, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A server's certificate for these names, in files called `file`; what was there is replaced.
    pub fn server(&self, file: &str, names: &[&str]) -> Files {
        self.sign(file, server(file, names))
    }

    /// A client's certificate: organization, common name, and alternative names.
    pub fn client(&self, file: &str, names: Vec<SanType>) -> Files {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop, Inc.");
        params.distinguished_name.push(DnType::CommonName, file);
        self.sign(file, params)
    }

    /// A server's certificate that another authority has signed, which this one has signed; both in one file.
    /// The key is what is given in PEM, if it is.
    pub fn server_in_chain(&self, file: &str, names: &[&str], key: Option<&str>) -> Files {
        let mut between = CertificateParams::default();
        between.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        between.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        between.distinguished_name = DistinguishedName::new();
        between.distinguished_name.push(DnType::CommonName, "Authority In Between");
        let between_key = KeyPair::generate().expect("a key");
        let link = between.signed_by(&between_key, &self.issuer).expect("a certificate");
        let key = key.map_or_else(KeyPair::generate, KeyPair::from_pem).expect("a key");
        let issuer = Issuer::new(between, between_key);
        let certificate = server(file, names).signed_by(&key, &issuer).expect("a certificate");
        self.write(file, &key, &(certificate.pem() + &link.pem()))
    }

    fn sign(&self, file: &str, params: CertificateParams) -> Files {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        self.write(file, &key, &certificate.pem())
    }

    fn write(&self, file: &str, key: &KeyPair, certificates: &str) -> Files {
        let files = Files {
            certificate: self.dir.path().join(format!("{file}.pem")),
            key: self.dir.path().join(format!("{file}.key")),
        };
        std::fs::write(&files.key, key.serialize_pem()).expect("a file");
        std::fs::write(&files.certificate, certificates).expect("a file");
        files
    }
}

/// What a server's certificate says.
fn server(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let mut params = CertificateParams::new(names).expect("names of hosts");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
