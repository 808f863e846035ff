//! Certificates and private keys as files hold them.

use std::path::Path;

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::pem::PemLabel;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::{Expiry, certificate};
use crate::config::Certificate;

/// All certificates of a PEM file.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{}: there is no certificate in it (PEM)", file.display())),
        Ok(all) => Ok(all),
        Err(e) => Err(format!("{}: {e}", file.display())),
    }
}

/// A certificate with its key, and until when it is valid.
pub fn certified_key(
    wanted: &Certificate,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Expiry), String> {
    let chain = certificates(&wanted.certificate)?;
    let (subject, at_secs) = certificate::subject_and_expiry(&chain[0])
        .ok_or_else(|| format!("{}: the first certificate is broken", wanted.certificate.display()))?;
    let key = private_key(&wanted.key, wanted.key_password.as_deref())?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|e| {
        let (certificate, key) = (wanted.certificate.display(), wanted.key.display());
        match e {
            rustls::Error::InconsistentKeys(_) => format!("{key} is not the key of {certificate}"),
            e => format!("{key}: {e}"),
        }
    })?;
    Ok((certified, Expiry { file: wanted.certificate.clone(), subject, at_secs }))
}

fn private_key(file: &Path, password: Option<&str>) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(file)?;
    let text = String::from_utf8_lossy(&bytes);
    let name = file.display();
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(format!(
            "{name}: this form of an encrypted key is not read; convert it: openssl pkcs8 -topk8 -in {name}"
        ));
    }
    let encrypted = text.find(&format!("-----BEGIN {}", EncryptedPrivateKeyInfoRef::PEM_LABEL));
    let Some(start) = encrypted else {
        return PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|e| format!("{name}: there is no private key in it: {e}"));
    };
    let Some(password) = password else {
        return Err(format!("{name}: the key is encrypted, and no password is configured"));
    };
    let (_, document) =
        pkcs8::SecretDocument::from_pem(text[start..].trim_end()).map_err(|e| format!("{name}: {e}"))?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes());
    let encrypted = encrypted.map_err(|e| format!("{name}: {e}"))?;
    let key = encrypted
        .decrypt(password)
        .map_err(|e| format!("{name}: the key cannot be decrypted: {e}; is its password right?"))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))
}
