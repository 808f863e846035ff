//! Passwords, of which only salted hashes are kept, in RabbitMQ's formats: files from there import as they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

use crate::error::Error;

/// A salted hash of a password, as RabbitMQ's definition files have it: base64 of four bytes of salt
/// and the hash of salt and password. The empty one is that of a user who has no password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash {
    /// base64(salt + hash)
    pub hash: String,
    /// Its algorithm, by the name that definition files have for it.
    pub algorithm: String,
}

/// The algorithm of new hashes.
pub const SHA256: &str = "rabbit_password_hashing_sha256";
/// Another that can be asked for.
pub const SHA512: &str = "rabbit_password_hashing_sha512";
/// That of RabbitMQ before 3.6: hashes from there still let their users in.
pub const MD5: &str = "rabbit_password_hashing_md5";

const SALT_BYTES: usize = 4;

impl PasswordHash {
    /// Hashes a password with fresh salt.
    pub fn sha256(password: &str) -> Self {
        let salt: [u8; SALT_BYTES] = rand::random();
        let bytes = [&salt[..], &hash_with(SHA256, &salt, password).unwrap_or_default()].concat();
        PasswordHash { hash: BASE64.encode(bytes), algorithm: SHA256.into() }
    }

    /// Hashes a password with fresh salt and an algorithm of these.
    ///
    /// # Errors
    /// `Invalid`: there is no such algorithm.
    pub fn with(algorithm: &str, password: &str) -> Result<Self, Error> {
        let salt: [u8; SALT_BYTES] = rand::random();
        let hash = hash_with(algorithm, &salt, password).ok_or_else(|| unknown(algorithm))?;
        let hash = BASE64.encode([&salt[..], &hash].concat());
        Ok(PasswordHash { hash, algorithm: algorithm.into() })
    }

    /// The hash of nobody's password: its user cannot log in with one.
    pub fn none() -> Self {
        PasswordHash { hash: String::new(), algorithm: SHA256.into() }
    }

    /// A hash that was made elsewhere; the empty one is for no password.
    ///
    /// # Errors
    /// `Invalid`: it is no base64, or of an algorithm that is not known.
    pub fn import(hash: &str, algorithm: Option<&str>) -> Result<Self, Error> {
        let algorithm = algorithm.filter(|name| !name.is_empty()).unwrap_or(SHA256);
        if hash_with(algorithm, &[], "").is_none() {
            return Err(unknown(algorithm));
        }
        if BASE64.decode(hash).is_err() {
            return Err(Error::Invalid(format!("not_base64: password_hash is '{hash}'")));
        }
        Ok(PasswordHash { hash: hash.into(), algorithm: algorithm.into() })
    }

    /// Whether there is a password at all.
    pub fn is_none(&self) -> bool {
        self.hash.is_empty()
    }

    /// Whether this is the password. An empty password, an unknown algorithm or a broken hash fits none.
    pub fn fits(&self, password: &str) -> bool {
        let Ok(bytes) = BASE64.decode(&self.hash) else { return false };
        let Some((salt, kept)) = bytes.split_at_checked(SALT_BYTES) else { return false };
        let Some(hash) = hash_with(&self.algorithm, salt, password) else { return false };
        // Every byte is looked at whatever the first ones say, so that the time tells nothing.
        let is_same =
            kept.len() == hash.len() && kept.iter().zip(&hash).fold(0, |d, (a, b)| d | (a ^ b)) == 0;
        is_same && !password.is_empty()
    }
}

fn hash_with(algorithm: &str, salt: &[u8], password: &str) -> Option<Vec<u8>> {
    Some(match algorithm {
        SHA256 => Sha256::new_with_prefix(salt).chain_update(password).finalize().to_vec(),
        SHA512 => Sha512::new_with_prefix(salt).chain_update(password).finalize().to_vec(),
        MD5 => Md5::new_with_prefix(salt).chain_update(password).finalize().to_vec(),
        _ => return None,
    })
}

fn unknown(algorithm: &str) -> Error {
    Error::Invalid(format!(
        "hashing_algorithm is '{algorithm}', and must be {SHA256} or {SHA512}, or {MD5} for hashes of before"
    ))
}

/// Name and password in the header `Authorization` of a request, if it has Basic credentials.
pub fn basic_credentials(header: Option<&[u8]>) -> Option<(String, String)> {
    let (scheme, encoded) = std::str::from_utf8(header?).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.into(), password.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_hash_and_no_other() {
        for algorithm in [SHA256, SHA512, MD5] {
            let hash = PasswordHash::with(algorithm, "secret").unwrap();

            assert!(hash.fits("secret"));
            assert!(!hash.fits("Secret"));
            assert!(!PasswordHash { hash: "??".into(), ..hash }.fits("secret"));
        }
    }

    #[test]
    fn nobody_gets_in_without_a_password() {
        assert!(!PasswordHash::none().fits(""));
        assert!(!PasswordHash::sha256("").fits(""));
    }

    #[test]
    fn a_hash_made_by_rabbitmq_is_understood() {
        // `rabbitmqctl hash_password test12` with the salt 90 8D C6 0A, from RabbitMQ's own guide.
        let hash = PasswordHash::import("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", None).unwrap();

        assert!(hash.fits("test12"));
    }

    #[test]
    fn what_is_no_hash_is_named() {
        let refused = |hash: &str, algorithm| PasswordHash::import(hash, algorithm).unwrap_err().to_string();

        assert_eq!(refused("!!", None), "not_base64: password_hash is '!!'");
        assert!(refused("", Some("bcrypt")).starts_with("hashing_algorithm is 'bcrypt'"));
    }
}
