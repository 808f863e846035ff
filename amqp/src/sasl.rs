//! What a client answers to say who it is: PLAIN, AMQPLAIN and EXTERNAL (specification 4.1, RFC 4616).

use crate::table::{Table, Value};

/// The mechanisms that a name and a password are read from.
pub const MECHANISMS: [&str; 2] = ["PLAIN", "AMQPLAIN"];

/// The mechanism that leaves it to somebody else, such as TLS with a client's certificate.
pub const EXTERNAL: &str = "EXTERNAL";

/// A name and what is said to prove it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password as typed.
    pub password: String,
}

/// Reads the response of `mechanism`; `None` if the mechanism is unknown or the response is not one of
/// its own.
pub fn decode(mechanism: &str, response: &[u8]) -> Option<Credentials> {
    match mechanism {
        "PLAIN" => plain(response),
        "AMQPLAIN" => amqplain(response),
        _ => None,
    }
}

/// `[authzid] NUL user NUL password`.
fn plain(response: &[u8]) -> Option<Credentials> {
    let mut parts = response.splitn(3, |&b| b == 0);
    let _act_as = parts.next()?;
    credentials(parts.next()?, parts.next()?)
}

/// A table without its length, with LOGIN and PASSWORD.
fn amqplain(response: &[u8]) -> Option<Credentials> {
    let mut bytes = (response.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(response);
    let table = Table::decode(&bytes).ok()?;
    let field = |name| match table.get(name) {
        Some(Value::Bytes(bytes)) => Some(bytes.as_slice()),
        _ => None,
    };
    credentials(field("LOGIN")?, field("PASSWORD")?)
}

fn credentials(user: &[u8], password: &[u8]) -> Option<Credentials> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(Credentials { user: text(user)?, password: text(password)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials { user: user.into(), password: password.into() })
    }

    #[test]
    fn plain_has_three_parts_and_a_password_may_be_empty() {
        assert!(decode("PLAIN", b"\0guest\0secret") == named("guest", "secret"));
        assert!(decode("PLAIN", b"other\0guest\0") == named("guest", ""));
        assert!(decode("PLAIN", b"guest").is_none());
    }

    #[test]
    fn amqplain_is_a_table_without_its_length() {
        let table = Table::from_iter([("LOGIN", Value::text("guest")), ("PASSWORD", Value::text("secret"))]);
        let mut bytes = Vec::new();
        table.encode(&mut bytes);

        assert!(decode("AMQPLAIN", &bytes[4..]) == named("guest", "secret"));
        assert!(decode("AMQPLAIN", &bytes[..5]).is_none());
    }

    #[test]
    fn an_unknown_mechanism_proves_nothing() {
        assert!(decode("MAGIC", b"\0guest\0guest").is_none());
    }
}
