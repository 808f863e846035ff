//! What can be configured. Each key has a default, a place in the TOML file and, where an operator
//! reaches for it often, a flag and an environment variable (`garenne --help`).

mod conf;
mod draft;
mod environment;
mod keys;
mod load;
mod seed;
mod tls;
mod translate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use amqp::{limits, sasl};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use store::SyncMode;

pub use keys::parse_bytes;
pub use load::{Notes, PLUGINS, Sources, load};
pub use seed::{
    DefaultLimits, DefaultPolicy, DefaultUser, PermissionSeed, Seed, TopicPermissionSeed, UserSeed,
    VhostDefaults, VhostSeed,
};
pub use tls::{Certificate, LoginFrom, SanType, Tls, TlsVersion};
pub use translate::translate;

/// The log's records hold less than 1 GiB.
const MESSAGE_BYTES_LIMIT: u64 = 512 * 1024 * 1024;

/// The broker's configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where clients connect: one address or several.
    #[serde(deserialize_with = "one_or_many")]
    pub listen: Vec<SocketAddr>,
    /// Where clients connect with TLS.
    #[serde(deserialize_with = "one_or_many")]
    pub listen_tls: Vec<SocketAddr>,
    /// The certificate of `listen_tls`, and of `https` and `metrics_https` if they have none of their own.
    pub tls: Option<Tls>,
    /// Connections begin with a PROXY header (version 1 or 2) that says where the client is.
    pub proxy_protocol: bool,
    /// Where the HTTP API listens; none turns it off.
    #[serde(deserialize_with = "address_or_none", serialize_with = "put_address")]
    pub http: Option<SocketAddr>,
    /// Where the HTTP API listens with TLS.
    #[serde(deserialize_with = "address_or_none", serialize_with = "put_address")]
    pub https: Option<SocketAddr>,
    /// The certificate of `https`, if not that of `tls`.
    pub https_tls: Option<Tls>,
    /// What stands before `/api` in the HTTP API's paths, such as `/rabbit`.
    pub http_path_prefix: String,
    /// Where metrics are scraped; none turns it off.
    #[serde(deserialize_with = "address_or_none", serialize_with = "put_address")]
    pub metrics: Option<SocketAddr>,
    /// Where metrics are scraped with TLS.
    #[serde(deserialize_with = "address_or_none", serialize_with = "put_address")]
    pub metrics_https: Option<SocketAddr>,
    /// The certificate of `metrics_https`, if not that of `tls`.
    pub metrics_tls: Option<Tls>,
    /// The path of the metrics.
    pub metrics_path: String,
    /// `/metrics` tells of each queue and connection, as `/metrics/per-object` does.
    pub metrics_per_object: bool,
    /// Whoever scrapes metrics has to log in.
    pub metrics_authentication: bool,
    /// What this broker is called: `rabbit@` and the host's short name.
    pub node_name: String,
    /// What the cluster is called, if not as the node.
    pub cluster_name: Option<String>,
    /// Tags of the cluster, shown in the HTTP API.
    pub cluster_tags: BTreeMap<String, String>,
    /// Tags of the node, shown in the HTTP API.
    pub node_tags: BTreeMap<String, String>,
    /// Definitions that are imported at the start: files, or directories of `*.json`.
    #[serde(deserialize_with = "one_or_many")]
    pub load_definitions: Vec<PathBuf>,
    /// A file of definitions that has not changed since it was imported is passed over.
    pub skip_unchanged_definitions: bool,
    /// Users that may log in from this machine only.
    pub loopback_users: Vec<String>,
    /// How a client may say who it is: `PLAIN`, `AMQPLAIN`, and `EXTERNAL` by its certificate.
    pub auth_mechanisms: Vec<String>,
    /// How many connections the broker takes.
    pub connection_max: Option<u32>,
    /// How many channels all connections may have together.
    pub channel_max_per_node: Option<u32>,
    /// How many consumers a channel may have.
    pub consumer_max_per_channel: Option<u32>,
    /// How many vhosts there may be.
    pub vhost_max: Option<u32>,
    /// The type of queues that are declared without `x-queue-type`, in vhosts that do not say it.
    pub default_queue_type: Option<String>,
    /// New passwords have so many characters at least.
    pub password_length_min: usize,
    /// New passwords fit this regular expression; all do if there is none.
    pub password_pattern: Option<String>,
    /// How many steps of messages a vhost remembers for queues with `trace-messages`.
    pub trail_steps_max: usize,
    /// The vhost that has `amq.rabbitmq.event` and `amq.rabbitmq.log`.
    pub news_vhost: String,
    /// How long a consumer may keep a message unacknowledged, in milliseconds, if its queue does not say it.
    pub consumer_timeout_ms: Option<u64>,
    /// What is logged: `error`, `warn`, `info`, `debug`, or a filter such as `info,garenne=debug`.
    pub log: String,
    /// How it is written: for people or for programs.
    pub log_format: LogFormat,
    /// The file it is appended to; the standard output if there is none.
    pub log_file: Option<PathBuf>,
    /// The heartbeat proposed to clients, in seconds; 0 turns it off.
    pub heartbeat_secs: u16,
    /// The largest frame proposed to clients, in octets; at least 4096.
    pub frame_bytes_max: u32,
    /// How many channels a connection may have.
    pub channel_max: u16,
    /// The largest body of a message, in octets; at most 512 MiB.
    pub message_bytes_max: u64,
    /// How long a client may take to log in, in seconds.
    pub handshake_timeout_secs: u64,
    /// When messages are synced, if their queue does not say it: before the confirm, within a time, or when
    /// the system likes.
    #[serde(deserialize_with = "sync", skip_serializing)]
    pub sync: SyncMode,
    /// A message that a consumer nacks and asks back counts as failed, towards its queue's delivery limit.
    pub nack_counts_as_failure: bool,
    /// How many delayed messages of an exchange go on in a second, at most; 0 for any number. It counts after a
    /// time in which the broker was down.
    pub delayed_release_rate: u64,
    /// Publishers are blocked while the disk has less free than this, in octets.
    pub disk_free_bytes_min: u64,
    /// Publishers are blocked while the process takes more than this part of the memory there is.
    pub memory_high_watermark: f64,
    /// How much memory there is, in octets, if not what control groups and the machine say.
    pub memory_bytes_total: Option<u64>,
    /// How much memory waiting messages may take, in octets, before queues leave the middle of long lines
    /// to the store.
    pub message_memory_bytes_max: usize,
    /// How much memory waiting messages may take, in octets, before those that are not kept are written to
    /// the store as well; by default half of what the high watermark allows.
    pub transient_memory_bytes_max: Option<usize>,
    /// Where the process's number is written once it serves.
    pub pid_file: Option<PathBuf>,
    /// What the broker says of itself.
    pub server_properties: ServerProperties,
    /// What a new data directory starts with.
    pub first: Seed,
    /// What every new vhost starts with.
    pub vhost_defaults: VhostDefaults,
    /// Users, vhosts and permissions to be there after the start.
    #[serde(flatten)]
    pub seed: Seed,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// What the broker says of itself to clients.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerProperties {
    /// `Garenne`, or `RabbitMQ` for programs that ask for it by name.
    pub product: String,
    /// Three numbers with dots.
    pub version: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: "garenne-data".into(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 5672))],
            listen_tls: Vec::new(),
            tls: None,
            proxy_protocol: false,
            http: Some(SocketAddr::from(([127, 0, 0, 1], 15672))),
            https: None,
            https_tls: None,
            http_path_prefix: String::new(),
            metrics: Some(SocketAddr::from(([127, 0, 0, 1], 15692))),
            metrics_https: None,
            metrics_tls: None,
            metrics_path: "/metrics".into(),
            metrics_per_object: false,
            metrics_authentication: false,
            node_name: node_name(),
            cluster_name: None,
            cluster_tags: BTreeMap::new(),
            node_tags: BTreeMap::new(),
            load_definitions: Vec::new(),
            skip_unchanged_definitions: false,
            loopback_users: vec!["guest".into()],
            auth_mechanisms: sasl::MECHANISMS.map(String::from).to_vec(),
            connection_max: None,
            channel_max_per_node: None,
            consumer_max_per_channel: None,
            vhost_max: None,
            default_queue_type: None,
            password_length_min: 0,
            password_pattern: None,
            trail_steps_max: 100_000,
            news_vhost: "/".into(),
            consumer_timeout_ms: None,
            log: "info".into(),
            log_format: LogFormat::Text,
            log_file: None,
            heartbeat_secs: limits::HEARTBEAT_SECS,
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            channel_max: limits::CHANNEL_MAX,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            handshake_timeout_secs: 10,
            sync: SyncMode::Group,
            nack_counts_as_failure: true,
            delayed_release_rate: 50_000,
            disk_free_bytes_min: 200_000_000,
            memory_high_watermark: 0.4,
            memory_bytes_total: None,
            message_memory_bytes_max: 12 * 1024 * 1024,
            transient_memory_bytes_max: None,
            pid_file: None,
            server_properties: ServerProperties::default(),
            first: Seed::first(),
            vhost_defaults: VhostDefaults::default(),
            seed: Seed::default(),
        }
    }
}

fn sync<'de, D: Deserializer<'de>>(text: D) -> Result<SyncMode, D::Error> {
    let text = String::deserialize(text)?;
    text.parse().map_err(|error| D::Error::custom(format!("sync is '{text}', {error}")))
}

/// `rabbit@host`, which tools of the RabbitMQ world build by themselves.
fn node_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().split('.').next().unwrap_or_default().to_string();
    format!("rabbit@{}", if host.is_empty() { "localhost" } else { &host })
}

/// A value, or a list of such.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    match OneOrMany::deserialize(value) {
        Ok(OneOrMany::One(one)) => Ok(vec![one]),
        Ok(OneOrMany::Many(many)) => Ok(many),
        Err(_) => Err(D::Error::custom("it must be one text or a list of such; an address is ADDRESS:PORT")),
    }
}

/// `ADDRESS:PORT` or `none`.
fn address_or_none<'de, D: Deserializer<'de>>(text: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(text)?;
    parse_address_or_none(&text).map_err(D::Error::custom)
}

fn put_address<S: Serializer>(address: &Option<SocketAddr>, out: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => out.collect_str(address),
        None => out.serialize_str("none"),
    }
}

/// Reads `ADDRESS:PORT` or `none`, as flags and files have it.
///
/// # Errors
/// What it is instead.
pub fn parse_address_or_none(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "none" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("'{text}' is neither ADDRESS:PORT nor none")),
    }
}

impl Default for ServerProperties {
    fn default() -> Self {
        ServerProperties { product: "Garenne".into(), version: env!("CARGO_PKG_VERSION").into() }
    }
}

impl Config {
    /// What the cluster is called.
    pub fn cluster_name(&self) -> &str {
        self.cluster_name.as_deref().unwrap_or(&self.node_name)
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// What is wrong, naming the file and the key.
    pub fn read(path: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let config: Config = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        config.check().map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Holds the values against each other.
    ///
    /// # Errors
    /// What cannot be, naming the key and what it may be.
    pub fn check(self) -> Result<Config, String> {
        if self.frame_bytes_max != 0 && self.frame_bytes_max < limits::FRAME_BYTES_MIN {
            let (is, min) = (self.frame_bytes_max, limits::FRAME_BYTES_MIN);
            return Err(format!("frame_bytes_max is {is}, and must be 0 or at least {min}"));
        }
        if self.message_bytes_max > MESSAGE_BYTES_LIMIT {
            let is = self.message_bytes_max;
            return Err(format!("message_bytes_max is {is}, and must be at most {MESSAGE_BYTES_LIMIT}"));
        }
        if !(0.0..=1.0).contains(&self.memory_high_watermark) {
            let is = self.memory_high_watermark;
            return Err(format!("memory_high_watermark is {is}, and must be a part between 0 and 1"));
        }
        let known = |name: &String| name == sasl::EXTERNAL || sasl::MECHANISMS.contains(&name.as_str());
        if self.auth_mechanisms.is_empty() || !self.auth_mechanisms.iter().all(known) {
            let is = &self.auth_mechanisms;
            return Err(format!("auth_mechanisms is {is:?}, and may have PLAIN, AMQPLAIN and EXTERNAL"));
        }
        if self.tls.is_none() && !self.listen_tls.is_empty() {
            return Err("listen_tls needs [tls] with certificate and key".into());
        }
        if self.tls.is_none() && self.https.is_some() && self.https_tls.is_none() {
            return Err("https needs [https_tls] or [tls] with certificate and key".into());
        }
        if self.tls.is_none() && self.metrics_https.is_some() && self.metrics_tls.is_none() {
            return Err("metrics_https needs [metrics_tls] or [tls] with certificate and key".into());
        }
        if let Some(pattern) = &self.password_pattern
            && let Err(error) = fancy_regex::Regex::new(pattern)
        {
            return Err(format!(
                "password_pattern is '{pattern}', and must be a regular expression: {error}"
            ));
        }
        let prefix = &self.http_path_prefix;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
        if !prefix.is_empty()
            && (!prefix.starts_with('/') || prefix.ends_with('/') || !prefix.chars().all(is_plain))
        {
            return Err(format!("http_path_prefix is '{prefix}', and must be a path such as /rabbit"));
        }
        let version = &self.server_properties.version;
        let is_dotted =
            version.split('.').count() == 3 && version.split('.').all(|n| n.parse::<u32>().is_ok());
        if !is_dotted {
            return Err(format!(
                "server_properties.version is '{version}', and must be three numbers such as 3.13.7: clients parse it"
            ));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        toml::from_str::<Config>(text).map_err(|e| e.to_string()).and_then(Config::check)
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = parse("").unwrap();

        assert_eq!(config.listen[0].port(), 5672);
        assert_eq!(config.frame_bytes_max, 131_072);
        assert!(config.seed.users.is_empty());
    }

    #[test]
    fn users_vhosts_and_permissions_can_be_seeded() {
        let config = parse(
            "listen = \"127.0.0.1:1\"\n[[users]]\nname = \"a\"\npassword = \"b\"\n[[vhosts]]\nname = \"v\"\n\
             [[permissions]]\nuser = \"a\"\nvhost = \"v\"\nconfigure = \"\"\nwrite = \".*\"\nread = \".*\"\n",
        )
        .unwrap();

        assert_eq!(config.seed.users[0].name, "a");
        assert_eq!(config.seed.permissions[0].write, ".*");
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert!(parse("[server_properties]\nversion = \"1.0-rc1\"").unwrap_err().contains("1.0-rc1"));
        assert!(parse("http_path_prefix = \"/a{b}\"").unwrap_err().contains("a path such as /rabbit"));
        assert!(parse("http_path_prefix = \"rabbit\"").unwrap_err().contains("a path such as /rabbit"));
        assert!(parse("frame_bytes_max = 100").unwrap_err().contains("at least 4096"));
    }
}
