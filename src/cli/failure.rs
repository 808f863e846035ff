//! Why a command could not be carried out, in words that say what to do next, and its exit code.

use std::fmt;

use super::client::Thing;

pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The command line itself: a missing or wrong argument.
    Usage(String),
    /// A file or a value that was handed in and cannot be used.
    Input(String),
    /// Nobody answers at this address.
    Unreachable { url: String, reason: String },
    /// 401 or 403.
    Denied { user: String, url: String, status: u16, reason: String },
    /// 404: this thing is not there.
    NotFound { thing: Thing, url: String },
    /// The broker refused, and said why.
    Refused { thing: Thing, status: u16, reason: String, body: String },
    /// What came back is not what this command can read.
    Answer { url: String, reason: String },
    /// A check that was asked for did not pass.
    Unhealthy(String),
    /// Standard output was closed or full.
    Output(String),
}

impl Failure {
    /// The codes of sysexits.h, as rabbitmqadmin and rabbitmqctl use them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 64,
            Failure::Input(_) | Failure::NotFound { .. } | Failure::Refused { .. } => 65,
            Failure::Unreachable { .. } | Failure::Unhealthy(_) => 69,
            Failure::Output(_) => 74,
            Failure::Answer { .. } => 76,
            Failure::Denied { .. } => 77,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Input(text) | Failure::Unhealthy(text) => f.write_str(text),
            Failure::Unreachable { url, reason } if reason.contains("ertificate") => write!(
                f,
                "no TLS with {url}: {reason}\n\
                 --tls-ca-cert-file names an authority that is not a public one, --tls-cert-file and --tls-key-file \
                 a certificate for a broker that asks for one; --insecure believes everybody."
            ),
            Failure::Unreachable { url, reason } => write!(
                f,
                "nobody answers at {url}: {reason}\n\
                 Is the broker running, and does it serve its HTTP API there? A Garenne does when started with \
                 --http ADDRESS:PORT, a RabbitMQ with the plugin rabbitmq_management.\n\
                 Another address is given with --host and --port, --base-uri, or GARENNE_URL."
            ),
            Failure::Denied { user, url, status: 401, reason } => write!(
                f,
                "{url} does not let user '{user}' in: {reason}\n\
                 Give a user and password with --username and --password, or GARENNE_USER and GARENNE_PASSWORD. \
                 The user needs one of the tags management, policymaker, monitoring or administrator."
            ),
            Failure::Denied { user, reason, .. } => write!(f, "user '{user}' may not do this: {reason}"),
            Failure::NotFound { thing, url } if thing.is_own => write!(
                f,
                "the broker at {url} does not know {thing}. If it is a RabbitMQ: this command is Garenne's own."
            ),
            Failure::NotFound { thing, .. } => write!(f, "there is no {thing}"),
            Failure::Refused { thing, status, reason, .. } => {
                write!(f, "{thing}: the broker refused ({status}): {reason}")
            }
            Failure::Answer { url, reason } => write!(f, "the answer of {url} cannot be read: {reason}"),
            Failure::Output(reason) => write!(f, "cannot write the output: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_reach_a_broker_learns_the_address_and_how_to_turn_the_api_on() {
        let failure = Failure::Unreachable { url: "http://localhost:1/api".into(), reason: "refused".into() };

        let text = failure.to_string();

        assert!(text.contains("http://localhost:1/api") && text.contains("--http"), "{text}");
        assert_eq!(failure.exit_code(), 69);
    }

    #[test]
    fn who_does_not_trust_a_broker_learns_how_to() {
        let reason = "invalid peer certificate: UnknownIssuer".to_string();
        let failure = Failure::Unreachable { url: "https://localhost:1/api".into(), reason };

        let text = failure.to_string();

        assert!(text.contains("UnknownIssuer") && text.contains("--tls-ca-cert-file"), "{text}");
    }
}
