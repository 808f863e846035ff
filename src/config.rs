//! What can be configured. Each key has a default, a place in the TOML file and, where an operator
//! reaches for it often, a flag and an environment variable (`garenne --help`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use amqp::limits;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use store::SyncMode;

/// The log's records hold less than 1 GiB.
const MESSAGE_BYTES_LIMIT: u64 = 512 * 1024 * 1024;

/// The broker's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the HTTP API is; nowhere if it is empty.
    pub http: Option<SocketAddr>,
    /// What is logged: `error`, `warn`, `info`, `debug`, or a filter such as `info,garenne=debug`.
    pub log: String,
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
    #[serde(deserialize_with = "sync")]
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
    /// What the broker says of itself.
    pub server_properties: ServerProperties,
    /// Users, vhosts and permissions to be there after the start.
    #[serde(flatten)]
    pub seed: Seed,
}

/// What the broker says of itself to clients.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerProperties {
    /// `Garenne`, or `RabbitMQ` for programs that ask for it by name.
    pub product: String,
    /// Three numbers with dots.
    pub version: String,
}

/// Users, vhosts and permissions that are made at the start, so far as they are not there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Seed {
    /// Vhosts.
    pub vhosts: Vec<VhostSeed>,
    /// Users; one that is there with another password or other tags is changed.
    pub users: Vec<UserSeed>,
    /// Permissions of users in vhosts.
    pub permissions: Vec<PermissionSeed>,
    /// Permissions of users on the keys of topic exchanges.
    pub topic_permissions: Vec<TopicPermissionSeed>,
    /// Policies: `vhost`, `name`, `pattern`, `apply-to`, `priority`, `definition`, `operator`.
    pub policies: Vec<serde_json::Value>,
}

/// A vhost to be there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VhostSeed {
    /// Its name.
    pub name: String,
}

/// A user to be there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSeed {
    /// Its name.
    pub name: String,
    /// Its password in clear; a hash of it is kept.
    pub password: String,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Permissions to be there: regular expressions over names.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionSeed {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// What it may declare and delete.
    pub configure: String,
    /// What it may publish and bind to.
    pub write: String,
    /// What it may consume and bind from.
    pub read: String,
}

/// Permissions on routing keys to be there: regular expressions over keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicPermissionSeed {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// On which topic exchange.
    pub exchange: String,
    /// Keys it may publish with.
    pub write: String,
    /// Keys it may bind with.
    pub read: String,
}

impl Seed {
    /// What a new data directory starts with: vhost `/`, and guest, who may do everything there.
    pub fn first() -> Seed {
        let all = || ".*".to_string();
        Seed {
            vhosts: vec![VhostSeed { name: "/".into() }],
            users: vec![UserSeed {
                name: "guest".into(),
                password: "guest".into(),
                tags: vec!["administrator".into()],
            }],
            permissions: vec![PermissionSeed {
                user: "guest".into(),
                vhost: "/".into(),
                configure: all(),
                write: all(),
                read: all(),
            }],
            ..Seed::default()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: "garenne-data".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 5672)),
            http: Some(SocketAddr::from(([127, 0, 0, 1], 15672))),
            log: "info".into(),
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
            server_properties: ServerProperties::default(),
            seed: Seed::default(),
        }
    }
}

fn sync<'de, D: Deserializer<'de>>(text: D) -> Result<SyncMode, D::Error> {
    let text = String::deserialize(text)?;
    text.parse().map_err(|error| D::Error::custom(format!("sync is '{text}', {error}")))
}

impl Default for ServerProperties {
    fn default() -> Self {
        ServerProperties { product: "Garenne".into(), version: env!("CARGO_PKG_VERSION").into() }
    }
}

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// What is wrong, naming the file and the key.
    pub fn read(path: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let config: Config = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        config.check().map_err(|e| format!("{}: {e}", path.display()))
    }

    fn check(self) -> Result<Config, String> {
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

        assert_eq!(config.listen.port(), 5672);
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
        assert!(parse("frame_bytes_max = 100").unwrap_err().contains("at least 4096"));
    }
}
