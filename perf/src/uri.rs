//! Where a broker is and who we are there: `amqp://user:password@host:port/vhost`.

use std::fmt;
use std::str::FromStr;

/// The parts of an AMQP URI, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// With what.
    pub password: String,
    /// The virtual host.
    pub vhost: String,
}

impl Default for Uri {
    fn default() -> Self {
        Uri {
            host: "127.0.0.1".into(),
            port: 5672,
            user: "guest".into(),
            password: "guest".into(),
            vhost: "/".into(),
        }
    }
}

impl Uri {
    /// Host and port as one writes them: what errors name.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Uri {
    type Err = String;

    /// What is left out is as in the default, `amqp://guest:guest@127.0.0.1:5672/%2f`.
    fn from_str(text: &str) -> Result<Uri, String> {
        let wrong = |what: &str| format!("{what} in '{text}'; try amqp://guest:guest@127.0.0.1:5672/%2f");
        let rest = text.strip_prefix("amqp://").ok_or_else(|| wrong("no amqp:// at the beginning"))?;
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, vhost) = match rest.split_once('/') {
            Some((authority, vhost)) => (authority, Some(vhost)),
            None => (rest, None),
        };
        let (who, place) = match authority.rsplit_once('@') {
            Some((who, place)) => (Some(who), place),
            None => (None, authority),
        };
        let decode = |part: &str| decoded(part).ok_or_else(|| wrong("a bad % escape"));
        let mut uri = Uri::default();
        if let Some(vhost) = vhost {
            uri.vhost = decode(vhost)?;
        }
        if let Some(who) = who {
            let (user, password) = who.split_once(':').unwrap_or((who, ""));
            (uri.user, uri.password) = (decode(user)?, decode(password)?);
        }
        let (host, port) = split_port(place).ok_or_else(|| wrong("no end of the [address]"))?;
        if !host.is_empty() {
            uri.host = decode(host)?;
        }
        if let Some(port) = port {
            uri.port = port.parse().map_err(|_| wrong("no port"))?;
        }
        Ok(uri)
    }
}

/// Host and port; an IPv6 address stands in brackets.
fn split_port(place: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return Some((host, rest.strip_prefix(':')));
    }
    Some(match place.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    })
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for Uri {
    /// Without the password: what reports and logs may show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "amqp://{}@{}/{}", self.user, self.address(), self.vhost.replace('/', "%2f"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, user: &str, password: &str, host: &str, port: u16, vhost: &str) {
        let expected = Uri {
            host: host.into(),
            port,
            user: user.into(),
            password: password.into(),
            vhost: vhost.into(),
        };
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }

    #[test]
    fn what_is_left_out_is_as_usual() {
        check("amqp://", "guest", "guest", "127.0.0.1", 5672, "/");
        check("amqp://broker", "guest", "guest", "broker", 5672, "/");
        check("amqp://:5673", "guest", "guest", "127.0.0.1", 5673, "/");
        check("amqp://me@broker", "me", "", "broker", 5672, "/");
        check("amqp://broker/?heartbeat=10", "guest", "guest", "broker", 5672, "");
    }

    #[test]
    fn every_part_is_decoded() {
        check("amqp://guest:guest@127.0.0.1:5672/%2f", "guest", "guest", "127.0.0.1", 5672, "/");
        check("amqp://a%40b:c%3ad@h:1/x%2Fy", "a@b", "c:d", "h", 1, "x/y");
        check("amqp://u:p@[::1]:5673/v", "u", "p", "::1", 5673, "v");
    }

    #[test]
    fn what_is_no_uri_is_refused_with_an_example() {
        for text in ["", "http://a", "amqp://a:b", "amqp://h:70000", "amqp://%4", "amqp://%zz", "amqp://[::1"]
        {
            let error = text.parse::<Uri>().unwrap_err();
            assert!(error.contains("try amqp://"), "{error}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let uri: Uri = "amqp://me:secret@[::1]:5673/%2f".parse().unwrap();

        assert_eq!(uri.to_string(), "amqp://me@[::1]:5673/%2f");
    }
}
