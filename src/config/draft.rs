//! A configuration while `rabbitmq.conf` is read: lists are gathered line by line, and pairs of keys
//! become one value at the end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::conf::Entry;
use super::{
    Certificate, Config, DefaultLimits, DefaultPolicy, DefaultUser, LoginFrom, SanType, Seed, Tls, TlsVersion,
};

/// What has been read so far.
#[derive(Default)]
pub struct Draft {
    pub config: Config,
    pub listen: Option<Vec<SocketAddr>>,
    pub listen_tls: Vec<SocketAddr>,
    pub tls: TlsDraft,
    pub login_from: LoginFrom,
    pub login_san_type: SanType,
    pub login_san_index: usize,
    pub user: Option<String>,
    pub password: Option<String>,
    pub vhost: Option<String>,
    /// Which of the two rules holds for new passwords.
    pub password_rule: PasswordRule,
    pub password_length_min: usize,
    pub password_pattern: Option<String>,
    pub tags: Vec<String>,
    /// Configure, write, read.
    pub permissions: [Option<String>; 3],
    pub mechanisms: Vec<String>,
    pub memory_bytes: Option<u64>,
    pub disk_part_of_memory: Option<f64>,
    pub http: Port,
    pub https: Port,
    /// management.listener, which may be either.
    pub http_old: Port,
    pub http_old_is_tls: bool,
    pub metrics: Port,
    pub metrics_tls: Port,
    pub log_dir: Option<PathBuf>,
    pub log_file: Option<PathBuf>,
    pub log_level: Option<&'static str>,
    pub log_rooms: Vec<(&'static str, &'static str)>,
}

/// What RabbitMQ's `credential_validator.validation_backend` asks of new passwords.
#[derive(Clone, Copy, Default)]
pub enum PasswordRule {
    #[default]
    Nothing,
    Length,
    Pattern,
}

/// A port whose address and number are keys of their own.
#[derive(Default)]
pub struct Port {
    pub ip: Option<IpAddr>,
    pub port: Option<u16>,
    pub tls: TlsDraft,
}

/// TLS settings that may not be whole yet.
#[derive(Default)]
pub struct TlsDraft {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub key_password: Option<String>,
    pub ca: Option<PathBuf>,
    pub verify_peer: bool,
    pub require_certificate: bool,
    pub prefer_own_ciphers: bool,
    pub versions: Vec<TlsVersion>,
    pub has_old_version: bool,
    pub ciphers: Vec<String>,
    pub server_names: BTreeMap<String, (Option<PathBuf>, Option<PathBuf>)>,
    /// Keys that are understood and mean nothing here.
    pub without_effect: Vec<String>,
}

impl TlsDraft {
    fn finish(self, section: &str) -> Result<Option<Tls>, String> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return match (self.certificate, self.key) {
                (None, None) => Ok(None),
                _ => Err(format!("{section}: certfile and keyfile belong together")),
            };
        };
        if self.versions.is_empty() && self.has_old_version {
            return Err(format!("{section}.versions: TLS before 1.2 is not spoken; have tlsv1.2 or tlsv1.3"));
        }
        let mut tls = Tls::with(certificate.clone(), key.clone());
        tls.key_password = self.key_password;
        tls.ca = self.ca;
        tls.verify_peer = self.verify_peer;
        // RabbitMQ lets it stand beside verify_none, where it has no effect.
        tls.require_certificate = self.require_certificate && self.verify_peer;
        tls.prefer_own_ciphers = self.prefer_own_ciphers;
        tls.ciphers = self.ciphers;
        if !self.versions.is_empty() {
            tls.versions = self.versions;
        }
        for (name, files) in self.server_names {
            let (Some(certificate), Some(key)) = files else {
                return Err(format!("{section}.sni.{name}: certfile and keyfile belong together"));
            };
            tls.server_names.insert(name, Certificate { certificate, key, key_password: None });
        }
        Ok(Some(tls))
    }
}

impl Port {
    /// Every address of this machine and a well-known port, where nothing else is said.
    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), self.port.unwrap_or(port))
    }

    fn is_asked_for(&self) -> bool {
        self.port.is_some() || self.ip.is_some()
    }
}

impl Draft {
    /// What RabbitMQ does when nothing is said: all addresses of the machine.
    pub fn like_rabbitmq() -> Draft {
        let all = |port| SocketAddr::from(([0u16; 8], port));
        let config = Config {
            listen: vec![all(5672)],
            http: Some(all(15672)),
            metrics: Some(all(15692)),
            ..Config::default()
        };
        Draft { config, ..Draft::default() }
    }

    /// default_users.NAME.WHAT
    pub fn default_user(&mut self, entry: &Entry) -> Result<(), String> {
        let users = &mut self.config.vhost_defaults.users;
        let user = at(users, |user| user.name == entry.key[1], || DefaultUser::of(&entry.key[1]));
        let value = entry.value.clone();
        match entry.key[2].as_str() {
            "vhost_pattern" => user.vhost_pattern = value,
            "configure" => user.configure = value,
            "read" => user.read = value,
            "write" => user.write = value,
            "password" => user.password = Some(value),
            "tags" => user.tags = value.split(',').map(|tag| tag.trim().to_string()).collect(),
            _ => return Err("vhost_pattern, configure, write, read, password or tags of a user".into()),
        }
        Ok(())
    }

    /// default_limits.vhosts.NAME.WHAT
    pub fn default_limits(&mut self, entry: &Entry) -> Result<(), String> {
        let name = &entry.key[2];
        let new = || DefaultLimits {
            name: name.clone(),
            vhost_pattern: ".*".into(),
            max_connections: None,
            max_queues: None,
        };
        let limits = at(&mut self.config.vhost_defaults.limits, |limits| limits.name == *name, new);
        let number = || entry.value.parse().map(Some).map_err(|_| "a whole number from 0".to_string());
        match entry.key[3].as_str() {
            "pattern" => limits.vhost_pattern = entry.value.clone(),
            "max_connections" => limits.max_connections = number()?,
            "max_queues" => limits.max_queues = number()?,
            _ => return Err("pattern, max_connections or max_queues of vhosts".into()),
        }
        Ok(())
    }

    /// default_policies.operator.NAME.WHAT
    pub fn default_policy(&mut self, entry: &Entry) -> Result<(), String> {
        let name = &entry.key[2];
        let new = || DefaultPolicy {
            name: name.clone(),
            vhost_pattern: ".*".into(),
            queue_pattern: ".*".into(),
            definition: serde_json::Map::new(),
        };
        let policy = at(&mut self.config.vhost_defaults.policies, |policy| policy.name == *name, new);
        match entry.key[3..].join(".").as_str() {
            "vhost_pattern" => policy.vhost_pattern = entry.value.clone(),
            "queue_pattern" => policy.queue_pattern = entry.value.clone(),
            what => {
                let value = match entry.value.parse::<i64>() {
                    Ok(number) => number.into(),
                    Err(_) if matches!(entry.value.as_str(), "true" | "false") => {
                        (entry.value == "true").into()
                    }
                    Err(_) => entry.value.clone().into(),
                };
                policy.definition.insert(what.replace('_', "-"), value);
            }
        }
        Ok(())
    }

    /// The configuration, and which keys have had no effect.
    pub fn finish(mut self) -> Result<(Config, Vec<String>), String> {
        let mut config = self.config;
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        // RabbitMQ takes /rabbit, and /rabbit/ for the same.
        config.http_path_prefix = config.http_path_prefix.trim_end_matches('/').into();
        let mut without_effect = Vec::new();
        for tls in [&mut self.tls, &mut self.https.tls, &mut self.metrics_tls.tls] {
            without_effect.append(&mut tls.without_effect);
        }
        if self.http_old.is_asked_for() || self.http_old_is_tls {
            let here = if self.http_old_is_tls { &mut self.https } else { &mut self.http };
            here.ip = here.ip.or(self.http_old.ip);
            here.port = here.port.or(self.http_old.port).or(Some(15672));
        }
        if self.http.is_asked_for() {
            config.http = Some(self.http.address(15672));
        } else if self.https.is_asked_for() {
            // As with RabbitMQ, HTTPS stands in for HTTP unless both are asked for.
            config.http = None;
        }
        if self.https.is_asked_for() {
            config.https = Some(self.https.address(15671));
        }
        if self.metrics.is_asked_for() {
            config.metrics = Some(self.metrics.address(15692));
        } else if self.metrics_tls.is_asked_for() {
            config.metrics = None;
        }
        if self.metrics_tls.is_asked_for() {
            config.metrics_https = Some(self.metrics_tls.address(15691));
        }
        config.listen_tls = self.listen_tls;
        config.tls = self.tls.finish("ssl_options")?;
        if let Some(tls) = &mut config.tls {
            tls.login_from = self.login_from;
            tls.login_san_type = self.login_san_type;
            tls.login_san_index = self.login_san_index;
        }
        config.https_tls = self.https.tls.finish("management.ssl")?;
        config.metrics_tls = self.metrics_tls.tls.finish("prometheus.ssl")?;
        if !self.mechanisms.is_empty() {
            config.auth_mechanisms = self.mechanisms;
        }
        if let Some(bytes) = self.memory_bytes {
            config.memory_high_watermark = 1.0;
            config.memory_bytes_total = Some(bytes);
        }
        if let Some(part) = self.disk_part_of_memory {
            let total = config.memory_bytes_total.unwrap_or_else(memory_bytes);
            config.disk_free_bytes_min = (part * total as f64) as u64;
        }
        config.log_file = match (self.log_dir, self.log_file) {
            (Some(dir), Some(file)) => Some(dir.join(file)),
            (None, file) => file,
            (Some(dir), None) => Some(dir.join("garenne.log")),
        };
        if let Some(level) = self.log_level {
            config.log = level.into();
        }
        for (room, level) in self.log_rooms {
            config.log += &format!(",garenne::{room}={level}");
        }
        match self.password_rule {
            PasswordRule::Nothing => {}
            PasswordRule::Length => config.password_length_min = self.password_length_min,
            PasswordRule::Pattern => config.password_pattern = self.password_pattern,
        }
        let first = FirstUser { user: self.user, password: self.password, vhost: self.vhost };
        first.apply(&mut config.first);
        let [configure, write, read] = self.permissions;
        let permission = config.first.permissions.iter_mut();
        for permission in permission {
            configure.iter().for_each(|pattern| permission.configure = pattern.clone());
            write.iter().for_each(|pattern| permission.write = pattern.clone());
            read.iter().for_each(|pattern| permission.read = pattern.clone());
        }
        if !self.tags.is_empty() {
            config.first.users.iter_mut().for_each(|user| user.tags = self.tags.clone());
        }
        Ok((config, without_effect))
    }
}

/// Who is there in a new data directory.
pub struct FirstUser {
    pub user: Option<String>,
    pub password: Option<String>,
    pub vhost: Option<String>,
}

impl FirstUser {
    pub fn apply(self, first: &mut Seed) {
        if let Some(name) = self.user {
            first.users.iter_mut().for_each(|user| user.name = name.clone());
            first.permissions.iter_mut().for_each(|permission| permission.user = name.clone());
        }
        if let Some(password) = self.password {
            first.users.iter_mut().for_each(|user| user.password = password.clone());
        }
        if let Some(name) = self.vhost {
            first.vhosts.iter_mut().for_each(|vhost| vhost.name = name.clone());
            first.permissions.iter_mut().for_each(|permission| permission.vhost = name.clone());
        }
    }
}

fn at<T>(list: &mut Vec<T>, is_it: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = list.iter().position(is_it).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[at]
}

/// What the machine has, in octets.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or_default() * 1024
}
