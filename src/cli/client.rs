//! The HTTP API of a broker: requests with a user and password, answers in JSON, failures that name the thing.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::failure::{Failure, Result};
use super::settings::Settings;

/// What RFC 3986 leaves as it is in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most of an answer that is read; definitions and lists of 100,000 queues fit well.
const ANSWER_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

pub struct Client {
    agent: Agent,
    base: String,
    user: String,
    authorization: String,
    timeout: Option<Duration>,
    /// Sent as X-Reason.
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Get,
    Put,
    Post,
    Delete,
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Client> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(settings.timeout)
            .max_redirects(0)
            .allow_non_standard_methods(true)
            .user_agent(concat!("garennectl/", env!("CARGO_PKG_VERSION")));
        if settings.base.starts_with("https:") {
            config = config.tls_config(tls(settings)?);
        }
        let pair = format!("{}:{}", settings.user, settings.password);
        Ok(Client {
            agent: config.build().new_agent(),
            base: settings.base.clone(),
            user: settings.user.clone(),
            authorization: format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)),
            timeout: settings.timeout,
            reason: None,
        })
    }

    /// Where the API is, as in `http://localhost:15672/api`.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// Waits as long as it takes: for what moves many messages.
    pub fn without_timeout(&self) -> Client {
        Client { timeout: None, ..self.again() }
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::Get, path, None)
    }

    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::Put, path, Some(body))
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::Post, path, Some(body))
    }

    pub fn delete(&self, path: &str) -> Result<Value> {
        self.call(Method::Delete, path, None)
    }

    /// With a reason, for the log of the client that is shown out.
    pub fn delete_because(&self, path: &str, reason: &str) -> Result<Value> {
        // A header is one line of visible letters.
        let reason: String =
            reason.chars().map(|c| if c.is_ascii() && !c.is_control() { c } else { '?' }).collect();
        let config = Client { reason: Some(reason), ..self.again() };
        config.call(Method::Delete, path, None)
    }

    /// The host of the API, for other ports of the same machine.
    pub fn host(&self) -> String {
        let after = self.base.split("://").nth(1).unwrap_or_default();
        let authority = after.split('/').next().unwrap_or_default();
        let host = match authority.strip_prefix('[') {
            Some(six) => six.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        host.to_string()
    }

    fn again(&self) -> Client {
        Client {
            agent: self.agent.clone(),
            base: self.base.clone(),
            user: self.user.clone(),
            authorization: self.authorization.clone(),
            timeout: self.timeout,
            reason: None,
        }
    }

    /// An empty body is `Null`.
    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let mut answer = self.send(method, &url, body).map_err(|error| self.unreachable(error))?;
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| Failure::Answer { url: url.clone(), reason: error.to_string() })?;
        if (200..300).contains(&status) {
            if text.trim().is_empty() {
                return Ok(Value::Null);
            }
            let unreadable = |error| Failure::Answer { url: url.clone(), reason: format!("{error}") };
            return serde_json::from_str(&text).map_err(unreadable);
        }
        Err(self.failed(path, status, text))
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let authorization = self.authorization.as_str();
        match method {
            Method::Get | Method::Delete => {
                let request =
                    if method == Method::Get { self.agent.get(url) } else { self.agent.delete(url) };
                let request = request.header("authorization", authorization);
                let request = match &self.reason {
                    Some(reason) => request.header("x-reason", reason),
                    None => request,
                };
                request.config().timeout_global(self.timeout).build().call()
            }
            Method::Put | Method::Post => {
                let request = if method == Method::Put { self.agent.put(url) } else { self.agent.post(url) };
                let request = request
                    .header("authorization", authorization)
                    .header("content-type", "application/json")
                    .config()
                    .timeout_global(self.timeout)
                    .build();
                request.send(body.unwrap_or(&Value::Null).to_string())
            }
        }
    }

    fn unreachable(&self, error: ureq::Error) -> Failure {
        let reason = match &error {
            ureq::Error::Timeout(which) => format!("no answer in time ({which})"),
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        Failure::Unreachable { url: self.base.clone(), reason }
    }

    fn failed(&self, path: &str, status: u16, body: String) -> Failure {
        let reason = reason_of(&body);
        match status {
            401 | 403 => {
                let user = self.user.clone();
                Failure::Denied { user, url: self.base.clone(), status, reason }
            }
            // A broker that does not have a call says so by its path or by its method.
            405 if Thing::at(path).is_own => {
                Failure::NotFound { thing: Thing::at(path), url: self.base.clone() }
            }
            404 => Failure::NotFound { thing: Thing::at(path), url: self.base.clone() },
            _ => Failure::Refused { thing: Thing::at(path), status, reason, body },
        }
    }
}

/// `{"error":..,"reason":..}` as RabbitMQ and Garenne answer, or the plain text of something in between.
fn reason_of(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let text = |key: &str| match json.get(key) {
        Some(Value::String(text)) => Some(unescaped(text)),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    text("reason").or_else(|| text("error")).unwrap_or_else(|| match body.trim() {
        "" => "without a reason".to_string(),
        plain => plain.chars().take(300).collect(),
    })
}

/// RabbitMQ writes its reasons as HTML.
fn unescaped(text: &str) -> String {
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    pairs.iter().fold(text.to_string(), |text, (escaped, plain)| text.replace(escaped, plain))
}

fn tls(settings: &Settings) -> Result<TlsConfig> {
    let mut tls = TlsConfig::builder().disable_verification(settings.insecure);
    if let Some(path) = &settings.tls_ca {
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates(path)?));
    }
    match (&settings.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => {
            let pem = read(key)?;
            let private = PrivateKey::from_pem(&pem)
                .map_err(|error| Failure::Input(format!("{} is no private key: {error}", key.display())))?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(certificate)?, private)));
        }
        (None, None) => {}
        _ => return Err(Failure::Usage("--tls-cert-file and --tls-key-file go together".into())),
    }
    Ok(tls.build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let unusable = |error| Failure::Input(format!("{} cannot be read as PEM: {error}", path.display()));
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(&read(path)?) {
        if let ureq::tls::PemItem::Certificate(certificate) = item.map_err(unusable)? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(Failure::Input(format!("{} holds no certificate", path.display())));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Failure::Input(format!("{} cannot be read: {error}", path.display())))
}

/// A path of the API out of names, each percent-encoded: `path(&["queues", "/", "a b"])` is `/queues/%2F/a%20b`.
pub fn path(segments: &[&str]) -> String {
    segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, SEGMENT))).collect()
}

/// `path?one=1&two=2`, without the pairs that have no value.
pub fn with_query(path: String, pairs: &[(&str, Option<String>)]) -> String {
    let mut whole = path;
    let mut mark = '?';
    for (key, value) in pairs {
        if let Some(value) = value {
            whole.push_str(&format!("{mark}{key}={}", utf8_percent_encode(value, SEGMENT)));
            mark = '&';
        }
    }
    whole
}

/// What a path of the API is about, in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Thing {
    text: String,
    /// Garenne's own call, which a RabbitMQ does not have.
    pub is_own: bool,
}

impl Thing {
    pub fn at(path: &str) -> Thing {
        let bare = path.split('?').next().unwrap_or_default();
        let segments: Vec<String> = bare
            .trim_matches('/')
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let plain = |text: String| Thing { text, is_own: false };
        match parts[..] {
            [
                "queues",
                vhost,
                queue,
                "pause" | "resume" | "peek" | "find" | "unacked" | "redrive" | "move" | "arguments",
            ] => Thing { text: format!("{bare} (queue '{queue}' in vhost '{vhost}')"), is_own: true },
            ["exchanges", vhost, exchange, "route" | "delayed"] => {
                Thing { text: format!("{bare} (exchange '{exchange}' in vhost '{vhost}')"), is_own: true }
            }
            ["exchanges", vhost, exchange, "delayed", id] => {
                plain(format!("delayed message '{id}' at exchange '{exchange}' in vhost '{vhost}'"))
            }
            ["users", user, "explain"] => Thing { text: format!("{bare} (user '{user}')"), is_own: true },
            ["delayed" | "doctor" | "dead-letters" | "backup" | "shutdown" | "log-level", ..] => {
                Thing { text: bare.to_string(), is_own: true }
            }
            ["queues" | "exchanges" | "bindings" | "consumers" | "permissions", vhost] => {
                plain(format!("vhost '{vhost}'"))
            }
            ["queues", vhost, queue, ..] => plain(format!("queue '{queue}' in vhost '{vhost}'")),
            ["exchanges", vhost, exchange, ..] => plain(format!("exchange '{exchange}' in vhost '{vhost}'")),
            ["bindings", vhost, "e", from, kind, to, ..] => {
                let kind = if kind == "q" { "queue" } else { "exchange" };
                plain(format!("binding of exchange '{from}' to {kind} '{to}' in vhost '{vhost}'"))
            }
            ["vhosts", vhost, ..] => plain(format!("vhost '{vhost}'")),
            ["users", user, ..] => plain(format!("user '{user}'")),
            ["permissions" | "topic-permissions", vhost, user] => {
                plain(format!("permission of user '{user}' in vhost '{vhost}' (or no such user or vhost)"))
            }
            ["policies", vhost, name] => plain(format!("policy '{name}' in vhost '{vhost}'")),
            ["operator-policies", vhost, name] => {
                plain(format!("operator policy '{name}' in vhost '{vhost}'"))
            }
            ["parameters", component, vhost, name] => {
                plain(format!("parameter '{name}' of component '{component}' in vhost '{vhost}'"))
            }
            ["global-parameters", name] => plain(format!("global parameter '{name}'")),
            ["connections", name] => plain(format!("connection '{name}'")),
            ["connections", "username", user] => plain(format!("connection of user '{user}'")),
            ["nodes", name, ..] => plain(format!("node '{name}'")),
            ["vhost-limits", vhost, ..] => plain(format!("limit of vhost '{vhost}'")),
            ["user-limits", user, ..] => plain(format!("limit of user '{user}'")),
            ["feature-flags", name, ..] => plain(format!("feature flag '{name}'")),
            _ => plain(format!("call {bare} in this broker's API")),
        }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_percent_encoded_and_found_again_in_failures() {
        let path = path(&["queues", "/", "a b/ü"]);

        assert_eq!(path, "/queues/%2F/a%20b%2F%C3%BC");
        assert_eq!(Thing::at(&path).to_string(), "queue 'a b/ü' in vhost '/'");
    }

    #[test]
    fn a_query_has_only_the_pairs_with_a_value() {
        let whole =
            with_query("/queues".into(), &[("a", None), ("b", Some("x y".into())), ("c", Some("1".into()))]);

        assert_eq!(whole, "/queues?b=x%20y&c=1");
    }

    #[test]
    fn the_reason_is_taken_from_what_brokers_and_proxies_answer() {
        assert_eq!(reason_of(r#"{"error":"bad_request","reason":"no"}"#), "no");
        assert_eq!(reason_of(r#"{"error":"not_authorised"}"#), "not_authorised");
        assert_eq!(reason_of("<h1>502</h1>"), "<h1>502</h1>");
        assert_eq!(reason_of(""), "without a reason");
        assert_eq!(reason_of(r#"{"reason":"&lt;&lt;&quot;a&quot;&gt;&gt; &amp;lt;"}"#), "<<\"a\">> &lt;");
    }
}
