//! The keys of `rabbitmq.conf`: what each sets here, or why it has no effect.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::conf::Entry;
use super::draft::{Draft, PasswordRule, TlsDraft};
use super::{LogFormat, LoginFrom, SanType, TlsVersion};

/// A key, or a family of keys.
pub struct Key {
    /// Its parts; `$` is any part, and `**` any parts at the end.
    pub pattern: &'static str,
    /// What it does.
    pub effect: Effect,
}

/// What a key does.
pub enum Effect {
    /// It sets something, or says what the value may be.
    Sets(fn(&mut Draft, &Entry) -> Result<(), String>),
    /// It is understood and has no effect, for this reason.
    Has(&'static str),
}

use Effect::{Has, Sets};

const fn key(pattern: &'static str, effect: Effect) -> Key {
    Key { pattern, effect }
}

const ERLANG: &str = "it is about Erlang's machine, which is not here";
const CLUSTER: &str = "this broker is a cluster of one";
const PLUGIN: &str = "there is no such plugin here";
const SOCKETS: &str = "the system's defaults are used for sockets";
const OWN_PACE: &str = "the broker finds its own pace";
const TLS_OWN: &str = "TLS here has no such choice: only safe versions, ciphers and curves are spoken";

/// All keys, in the order in which RabbitMQ's documentation has them.
pub const KEYS: &[Key] = &[
    key("listeners.tcp", Sets(|d, e| one_of(e, &[("none", ())]).map(|()| d.listen = Some(Vec::new())))),
    key("listeners.tcp.$", Sets(|d, e| add(d.listen.get_or_insert_default(), address(e)))),
    key("listeners.ssl", Sets(|d, e| one_of(e, &[("none", ())]).map(|()| d.listen_tls.clear()))),
    key("listeners.ssl.$", Sets(|d, e| add(&mut d.listen_tls, address(e)))),
    key("ssl_options", Sets(|d, e| one_of(e, &[("none", ())]).map(|()| d.tls = TlsDraft::default()))),
    key("ssl_options.**", Sets(|d, e| tls(&mut d.tls, e, 1))),
    key("ssl_cert_login_from", Sets(|d, e| set(&mut d.login_from, one_of(e, LOGIN_FROM)))),
    key("ssl_cert_login_san_type", Sets(|d, e| set(&mut d.login_san_type, one_of(e, SAN_TYPE)))),
    key("ssl_cert_login_san_index", Sets(|d, e| set(&mut d.login_san_index, number(e)))),
    key("ssl_handshake_timeout", Has("handshake_timeout is for all that comes before connection.open-ok")),
    key("ssl_allow_poodle_attack", Has(TLS_OWN)),
    key("proxy_protocol", Sets(|d, e| set(&mut d.config.proxy_protocol, truth(e)))),
    key(
        "handshake_timeout",
        Sets(|d, e| {
            set(
                &mut d.config.handshake_timeout_secs,
                Ok(match e.value.as_str() {
                    "infinity" => u64::from(u32::MAX),
                    _ => number::<u64>(e)?.div_ceil(1000),
                }),
            )
        }),
    ),
    key("reverse_dns_lookups", Has("addresses are shown, and no names asked for")),
    key("num_acceptors.$", Has(OWN_PACE)),
    key("socket_writer.gc_threshold", Has(ERLANG)),
    key("tcp_listen_options", Has(SOCKETS)),
    key("tcp_listen_options.**", Has(SOCKETS)),
    key("erlang.**", Has(ERLANG)),
    key("default_user", Sets(|d, e| set(&mut d.user, Ok(Some(e.value.clone()))))),
    key("default_pass", Sets(|d, e| set(&mut d.password, Ok(Some(secret(e)?))))),
    key("default_vhost", Sets(|d, e| set(&mut d.vhost, Ok(Some(e.value.clone()))))),
    key(
        "default_user_tags.$",
        Sets(|d, e| {
            if truth(e)? {
                d.tags.push(e.key[1].clone());
            }
            Ok(())
        }),
    ),
    key(
        "default_permissions.$",
        Sets(|d, e| {
            let at = ["configure", "write", "read"].iter().position(|name| *name == e.key[1]);
            let at = at.ok_or("there are default_permissions.configure, .write and .read")?;
            set(&mut d.permissions[at], Ok(Some(e.value.clone())))
        }),
    ),
    key("default_users.$.$", Sets(|d, e| d.default_user(e))),
    key("loopback_users", Sets(|d, e| one_of(e, &[("none", ())]).map(|()| d.config.loopback_users.clear()))),
    key(
        "loopback_users.$",
        Sets(|d, e| {
            let is_one = truth(e)?;
            d.config.loopback_users.retain(|user| *user != e.key[1]);
            if is_one {
                d.config.loopback_users.push(e.key[1].clone());
            }
            Ok(())
        }),
    ),
    key(
        "auth_mechanisms.$",
        Sets(|d, e| {
            let name = one_of(
                e,
                &[("PLAIN", "PLAIN"), ("AMQPLAIN", "AMQPLAIN"), ("EXTERNAL", "EXTERNAL"), ("ANONYMOUS", "")],
            )?;
            if !name.is_empty() {
                d.mechanisms.push(name.into());
            }
            Ok(())
        }),
    ),
    key(
        "auth_backends.**",
        Sets(|_, e| {
            one_of(e, &[("internal", ()), ("rabbit_auth_backend_internal", ())]).map_err(|error| {
                format!("{error}: users are kept by the broker; import them with load_definitions")
            })
        }),
    ),
    key("anonymous_login_user", Has("everybody has to say who it is")),
    key("anonymous_login_pass", Has("everybody has to say who it is")),
    key(
        "password_hashing_module",
        Has("new passwords are hashed with SHA-256; imported SHA-512 hashes work"),
    ),
    key(
        "credential_validator.validation_backend",
        Sets(|d, e| {
            const RULES: &[(&str, PasswordRule)] = &[
                ("rabbit_credential_validator_accept_everything", PasswordRule::Nothing),
                ("rabbit_credential_validator_min_password_length", PasswordRule::Length),
                ("rabbit_credential_validator_password_regexp", PasswordRule::Pattern),
            ];
            set(&mut d.password_rule, one_of(e, RULES))
        }),
    ),
    key("credential_validator.min_length", Sets(|d, e| set(&mut d.password_length_min, number(e)))),
    key("credential_validator.regexp", Sets(|d, e| set(&mut d.password_pattern, Ok(Some(e.value.clone()))))),
    key("default_password_hashing.**", Has("new passwords are hashed with SHA-256")),
    key("heartbeat", Sets(|d, e| set(&mut d.config.heartbeat_secs, number(e)))),
    key("frame_max", Sets(|d, e| set(&mut d.config.frame_bytes_max, bytes(e)?.try_into().map_err(too_much)))),
    key("initial_frame_max", Has("frames of a handshake may be as long as frame_max")),
    key("channel_max", Sets(|d, e| set(&mut d.config.channel_max, number(e)))),
    key("channel_max_per_node", Sets(|d, e| set(&mut d.config.channel_max_per_node, limit(e)))),
    key("connection_max", Sets(|d, e| set(&mut d.config.connection_max, limit(e)))),
    key("consumer_max_per_channel", Sets(|d, e| set(&mut d.config.consumer_max_per_channel, limit(e)))),
    key("vhost_max", Sets(|d, e| set(&mut d.config.vhost_max, limit(e)))),
    key("cluster_queue_limit", Has("a vhost's max-queues limits queues")),
    key("session_max_per_connection", Has("AMQP 1.0 is not spoken")),
    key("link_max_per_session", Has("AMQP 1.0 is not spoken")),
    key("max_message_size", Sets(|d, e| set(&mut d.config.message_bytes_max, bytes(e)))),
    key(
        "consumer_timeout",
        Sets(|d, e| {
            set(
                &mut d.config.consumer_timeout_ms,
                Ok(match e.value.as_str() {
                    "undefined" | "infinity" => None,
                    _ => Some(number(e)?),
                }),
            )
        }),
    ),
    key("default_queue_type", Sets(|d, e| set(&mut d.config.default_queue_type, Ok(Some(queue_type(e)?))))),
    key("default_limits.vhosts.$.$", Sets(|d, e| d.default_limits(e))),
    key("default_policies.operator.$.**", Sets(|d, e| d.default_policy(e))),
    key("runtime_parameters.limits.**", Has("runtime parameters are not limited")),
    key("message_interceptors.**", Has("messages are not changed on their way in")),
    key("deprecated_features.**", Has("what RabbitMQ calls deprecated works here and stays")),
    key("vm_memory_high_watermark.relative", Sets(|d, e| set(&mut d.config.memory_high_watermark, part(e)))),
    key(
        "vm_memory_high_watermark.absolute",
        Sets(|d, e| {
            // Of what the broker takes for the whole, so that the product is what was asked for.
            set(&mut d.memory_bytes, Ok(Some(bytes(e)?)))
        }),
    ),
    key("vm_memory_high_watermark_paging_ratio", Has("message_memory_bytes_max says what stays in memory")),
    key(
        "total_memory_available_override_value",
        Sets(|d, e| set(&mut d.config.memory_bytes_total, Ok(Some(bytes(e)?)))),
    ),
    key("vm_memory_calculation_strategy", Has("resident memory counts, as rss")),
    key("memory_monitor_interval", Has(OWN_PACE)),
    key("disk_free_limit.absolute", Sets(|d, e| set(&mut d.config.disk_free_bytes_min, bytes(e)))),
    key(
        "disk_free_limit.relative",
        Sets(|d, e| {
            let part =
                e.value.parse::<f64>().ok().filter(|part| *part >= 0.0).ok_or("a number, such as 1.0")?;
            set(&mut d.disk_part_of_memory, Ok(Some(part)))
        }),
    ),
    key("disk_monitor_interval", Has(OWN_PACE)),
    key("load_definitions", Sets(|d, e| add(&mut d.config.load_definitions, Ok(e.value.clone().into())))),
    key(
        "management.load_definitions",
        Sets(|d, e| add(&mut d.config.load_definitions, Ok(e.value.clone().into()))),
    ),
    key(
        "definitions.import_backend",
        Sets(|_, e| {
            one_of(e, &[("local_filesystem", ()), ("local", ())])
                .map_err(|error| format!("{error}: definitions are read from files"))
        }),
    ),
    key(
        "definitions.local.path",
        Sets(|d, e| add(&mut d.config.load_definitions, Ok(e.value.clone().into()))),
    ),
    key("definitions.skip_if_unchanged", Has("an import changes only what is different")),
    key("definitions.**", Has("definitions are read from files: definitions.local.path")),
    key("cluster_name", Sets(|d, e| set(&mut d.config.cluster_name, Ok(Some(e.value.clone()))))),
    key(
        "cluster_tags.$",
        Sets(|d, e| {
            d.config.cluster_tags.insert(e.key[1].clone(), e.value.clone());
            Ok(())
        }),
    ),
    key(
        "node_tags.$",
        Sets(|d, e| {
            d.config.node_tags.insert(e.key[1].clone(), e.value.clone());
            Ok(())
        }),
    ),
    key("product.name", Sets(|d, e| set(&mut d.config.server_properties.product, Ok(e.value.clone())))),
    key("product.version", Sets(|d, e| set(&mut d.config.server_properties.version, Ok(e.value.clone())))),
    key("motd_file", Has("there is no message of the day")),
    key("management.tcp.port", Sets(|d, e| set(&mut d.http.port, Ok(Some(number(e)?))))),
    key("management.tcp.ip", Sets(|d, e| set(&mut d.http.ip, Ok(Some(ip(e)?))))),
    key("management.ssl.port", Sets(|d, e| set(&mut d.https.port, Ok(Some(number(e)?))))),
    key("management.ssl.ip", Sets(|d, e| set(&mut d.https.ip, Ok(Some(ip(e)?))))),
    key("management.listener.port", Sets(|d, e| set(&mut d.http_old.port, Ok(Some(number(e)?))))),
    key("management.listener.ip", Sets(|d, e| set(&mut d.http_old.ip, Ok(Some(ip(e)?))))),
    key("management.listener.ssl", Sets(|d, e| set(&mut d.http_old_is_tls, truth(e)))),
    key("management.listener.ssl_opts.**", Sets(|d, e| tls(&mut d.https.tls, e, 3))),
    key("management.listener.server.**", Has(OWN_PACE)),
    key("management.path_prefix", Sets(|d, e| set(&mut d.config.http_path_prefix, Ok(e.value.clone())))),
    key("management.ssl.$", Sets(|d, e| tls(&mut d.https.tls, e, 2))),
    key("management.ssl.**", Sets(|d, e| tls(&mut d.https.tls, e, 2))),
    key("management.tcp.$", Has(OWN_PACE)),
    key("management.**", Has("it is about RabbitMQ's own management pages and their statistics")),
    key("management_agent.**", Has("metrics are always counted")),
    key("prometheus.tcp.port", Sets(|d, e| set(&mut d.metrics.port, Ok(Some(number(e)?))))),
    key("prometheus.tcp.ip", Sets(|d, e| set(&mut d.metrics.ip, Ok(Some(ip(e)?))))),
    key("prometheus.ssl.port", Sets(|d, e| set(&mut d.metrics_tls.port, Ok(Some(number(e)?))))),
    key("prometheus.ssl.ip", Sets(|d, e| set(&mut d.metrics_tls.ip, Ok(Some(ip(e)?))))),
    key("prometheus.ssl.**", Sets(|d, e| tls(&mut d.metrics_tls.tls, e, 2))),
    key("prometheus.path", Sets(|d, e| set(&mut d.config.metrics_path, Ok(e.value.clone())))),
    key("prometheus.return_per_object_metrics", Sets(|d, e| set(&mut d.config.metrics_per_object, truth(e)))),
    key(
        "prometheus.authentication.enabled",
        Sets(|d, e| set(&mut d.config.metrics_authentication, truth(e))),
    ),
    key("prometheus.**", Has(OWN_PACE)),
    key("log.dir", Sets(|d, e| set(&mut d.log_dir, Ok(Some(e.value.clone().into()))))),
    key(
        "log.file",
        Sets(|d, e| set(&mut d.log_file, Ok((e.value != "false").then(|| e.value.clone().into())))),
    ),
    key("log.console", Has("without log.file the log goes to the standard output")),
    key("log.console.level", Sets(|d, e| set(&mut d.log_level, Ok(Some(level(e)?))))),
    key("log.file.level", Sets(|d, e| set(&mut d.log_level, Ok(Some(level(e)?))))),
    key("log.default.level", Sets(|d, e| set(&mut d.log_level, Ok(Some(level(e)?))))),
    key("log.connection.level", Sets(|d, e| add(&mut d.log_rooms, Ok(("connection", level(e)?))))),
    key("log.channel.level", Sets(|d, e| add(&mut d.log_rooms, Ok(("channel", level(e)?))))),
    key("log.queue.level", Sets(|d, e| add(&mut d.log_rooms, Ok(("queue", level(e)?))))),
    key("log.console.formatter", Sets(|d, e| set(&mut d.config.log_format, format(e)))),
    key("log.file.formatter", Sets(|d, e| set(&mut d.config.log_format, format(e)))),
    key("log.file.rotation.**", Has("logrotate can move the file; SIGHUP opens it anew")),
    key(
        "log.exchange.**",
        Has("amq.rabbitmq.log has every line that is logged, once a queue is bound to it"),
    ),
    key(
        "log.exchange",
        Has("amq.rabbitmq.log is there, and has every line that is logged once a queue is bound to it"),
    ),
    key(
        "log.**",
        Has("the log goes to the standard output or to log.file, from where systemd and others take it"),
    ),
    key("cluster_formation.**", Has(CLUSTER)),
    key("cluster_partition_handling", Has(CLUSTER)),
    key("cluster_partition_handling.**", Has(CLUSTER)),
    key("cluster_keepalive_interval", Has(CLUSTER)),
    key("net_ticktime", Has(CLUSTER)),
    key("distribution.**", Has(CLUSTER)),
    key("mirroring_sync_batch_size", Has(CLUSTER)),
    key("mirroring_sync_max_throughput", Has(CLUSTER)),
    key("mnesia_table_loading_retry_timeout", Has(CLUSTER)),
    key("mnesia_table_loading_retry_limit", Has(CLUSTER)),
    key("metadata_store.**", Has(CLUSTER)),
    key("queue_master_locator", Has(CLUSTER)),
    key("queue_leader_locator", Has(CLUSTER)),
    key("raft.**", Has("there is one log for all queues; sync says when it is written")),
    key("quorum_queue.**", Has("quorum queues are kept in the same log as all others")),
    key("classic_queue.**", Has("queues are kept in one log, of a format of its own")),
    key("queue_index_embed_msgs_below", Has("messages of any size are kept in the log")),
    key("message_store_shutdown_timeout", Has("the log is synced at the end, however long that takes")),
    key("vhost_restart_strategy", Has("a vhost is never down while the broker is up")),
    key("collect_statistics", Has("statistics are always there")),
    key("collect_statistics_interval", Has("statistics are of the moment at which they are asked for")),
    key("delegate_count", Has(ERLANG)),
    key("default_worker_pool_size", Has(ERLANG)),
    key("hipe_compile", Has(ERLANG)),
    key("background_gc_enabled", Has(ERLANG)),
    key("background_gc_target_interval", Has(ERLANG)),
    key("sysmon_handler.**", Has(ERLANG)),
    key("advanced.**", Has(ERLANG)),
    key("config_entry_decoder.**", Has("values are read as they are; encrypted ones are refused")),
    key("stream.**", Has(PLUGIN)),
    key("osiris.**", Has(PLUGIN)),
    key("mqtt.**", Has(PLUGIN)),
    key("stomp.**", Has(PLUGIN)),
    key("web_mqtt.**", Has(PLUGIN)),
    key("web_stomp.**", Has(PLUGIN)),
    key("amqp1_0.**", Has(PLUGIN)),
    key("auth_ldap.**", Has(PLUGIN)),
    key("auth_http.**", Has(PLUGIN)),
    key("auth_oauth2.**", Has(PLUGIN)),
    key("auth_cache.**", Has(PLUGIN)),
    key("trust_store.**", Has("ssl_options.cacertfile says whom to trust; it is read again when it changes")),
    key("event_exchange.vhost", Sets(|d, e| set(&mut d.config.news_vhost, Ok(e.value.clone())))),
    key(
        "event_exchange.**",
        Has("events are told in headers, as newer versions tell them without another setting"),
    ),
    key("federation.**", Has(PLUGIN)),
    key("shovel.**", Has(PLUGIN)),
    key("aws.**", Has(PLUGIN)),
    key("consistent_hash.**", Has("the exchange type is always there")),
];

const LOGIN_FROM: &[(&str, LoginFrom)] = &[
    ("distinguished_name", LoginFrom::DistinguishedName),
    ("common_name", LoginFrom::CommonName),
    ("subject_alternative_name", LoginFrom::SubjectAlternativeName),
    ("subject_alt_name", LoginFrom::SubjectAlternativeName),
];

const SAN_TYPE: &[(&str, SanType)] = &[
    ("dns", SanType::Dns),
    ("ip", SanType::Ip),
    ("email", SanType::Email),
    ("uri", SanType::Uri),
    ("other_name", SanType::OtherName),
];

/// The key that an entry is of.
pub fn find(entry: &Entry) -> Option<&'static Key> {
    KEYS.iter().find(|key| fits(key.pattern, &entry.key))
}

fn fits(pattern: &str, key: &[String]) -> bool {
    let mut parts = key.iter();
    for wanted in pattern.split('.') {
        match (wanted, parts.next()) {
            ("**", Some(_)) => return true,
            ("$", Some(_)) => {}
            (wanted, Some(part)) if wanted == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

/// The known key that looks most like this.
pub fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |key: &&Key| strsim::jaro_winkler(key.pattern.trim_end_matches(".**"), name);
    let best = KEYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.85).then_some(best.pattern)
}

/// TLS settings, whose names begin after so many parts of the key.
fn tls(draft: &mut TlsDraft, entry: &Entry, skip: usize) -> Result<(), String> {
    let name: Vec<&str> = entry.key[skip..].iter().map(String::as_str).collect();
    let path = || Some(entry.value.clone().into());
    match name[..] {
        ["certfile"] => draft.certificate = path(),
        ["keyfile"] => draft.key = path(),
        ["cacertfile"] => draft.ca = path(),
        ["password"] => draft.key_password = Some(secret(entry)?),
        ["verify"] => draft.verify_peer = one_of(entry, &[("verify_peer", true), ("verify_none", false)])?,
        ["fail_if_no_peer_cert"] => draft.require_certificate = truth(entry)?,
        ["honor_cipher_order"] => draft.prefer_own_ciphers = truth(entry)?,
        ["ciphers", _] => draft.ciphers.push(entry.value.clone()),
        ["versions", _] => match entry.value.as_str() {
            "tlsv1.2" => draft.versions.push(TlsVersion::V1_2),
            "tlsv1.3" => draft.versions.push(TlsVersion::V1_3),
            // Too old to be safe: those that are safe, if any, are what is left.
            "tlsv1.1" | "tlsv1" | "sslv3" => draft.has_old_version = true,
            _ => return Err("one of tlsv1.3, tlsv1.2".into()),
        },
        ["sni", ref server @ .., what] if !server.is_empty() => {
            let named = draft.server_names.entry(server.join(".")).or_default();
            match what {
                "certfile" => named.0 = path(),
                "keyfile" => named.1 = path(),
                _ => return Err("there are sni.NAME.certfile and sni.NAME.keyfile".into()),
            }
        }
        ["cert" | "key" | "cacerts", ..] => {
            return Err("certificates are read from files: certfile, keyfile".into());
        }
        _ => draft.without_effect.push(entry.name()),
    }
    Ok(())
}

fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn add<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    list.push(value?);
    Ok(())
}

fn one_of<T: Copy>(entry: &Entry, values: &[(&str, T)]) -> Result<T, String> {
    let found = values.iter().find(|(name, _)| *name == entry.value);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    })
}

fn truth(entry: &Entry) -> Result<bool, String> {
    one_of(entry, &[("true", true), ("false", false)])
}

fn number<T: FromStr>(entry: &Entry) -> Result<T, String> {
    let bits = 8 * size_of::<T>();
    entry.value.parse().map_err(|_| format!("a whole number from 0, of at most {bits} bits"))
}

fn too_much(_: std::num::TryFromIntError) -> String {
    "less than 4 GiB".into()
}

/// A number, or `infinity`.
fn limit(entry: &Entry) -> Result<Option<u32>, String> {
    if entry.value == "infinity" {
        return Ok(None);
    }
    number(entry).map(Some).map_err(|error| format!("{error}, or infinity"))
}

fn part(entry: &Entry) -> Result<f64, String> {
    let part = entry.value.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| "a part between 0 and 1, such as 0.4".into())
}

/// `12345`, `100MB`, `2GiB`: with RabbitMQ kB, MB, GB, TB are powers of 1000, and k, M, G, T and KiB, MiB,
/// GiB, TiB of 1024.
pub fn bytes(entry: &Entry) -> Result<u64, String> {
    parse_bytes(&entry.value).ok_or_else(|| "octets, such as 134217728, 128MiB or 1GB".into())
}

/// The same of any text.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor: u64 = match unit.trim() {
        "" | "b" | "B" => 1,
        "kb" | "kB" | "KB" => 1000,
        "mb" | "mB" | "MB" => 1000 * 1000,
        "gb" | "gB" | "GB" => 1000 * 1000 * 1000,
        "tb" | "tB" | "TB" => 1000 * 1000 * 1000 * 1000,
        "k" | "K" | "ki" | "Ki" | "kiB" | "KiB" | "kib" => 1 << 10,
        "m" | "M" | "mi" | "Mi" | "miB" | "MiB" | "mib" => 1 << 20,
        "g" | "G" | "gi" | "Gi" | "giB" | "GiB" | "gib" => 1 << 30,
        "t" | "T" | "ti" | "Ti" | "tiB" | "TiB" | "tib" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn address(entry: &Entry) -> Result<SocketAddr, String> {
    let wrong = "a port, or ADDRESS:PORT such as 127.0.0.1:5672 or [::1]:5672";
    if let Ok(port) = entry.value.parse::<u16>() {
        return Ok(SocketAddr::from(([0u16; 8], port)));
    }
    if let Ok(address) = entry.value.parse() {
        return Ok(address);
    }
    // RabbitMQ takes ::1:5672 as well.
    let (ip, port) = entry.value.rsplit_once(':').ok_or(wrong)?;
    match (ip.trim_matches(['[', ']']).parse::<IpAddr>(), port.parse::<u16>()) {
        (Ok(ip), Ok(port)) => Ok(SocketAddr::from((ip, port))),
        _ => Err(wrong.into()),
    }
}

fn ip(entry: &Entry) -> Result<IpAddr, String> {
    entry.value.trim_matches(['[', ']']).parse().map_err(|_| "an address such as 0.0.0.0 or ::1".into())
}

fn secret(entry: &Entry) -> Result<String, String> {
    match entry.value.starts_with("encrypted:") {
        true => Err("in clear: encrypted values are not read; keep the file from others' eyes".into()),
        false => Ok(entry.value.clone()),
    }
}

fn queue_type(entry: &Entry) -> Result<String, String> {
    let names = [
        ("classic", "classic"),
        ("quorum", "quorum"),
        ("stream", "stream"),
        ("rabbit_classic_queue", "classic"),
        ("rabbit_quorum_queue", "quorum"),
        ("rabbit_stream_queue", "stream"),
    ];
    one_of(entry, &names).map(String::from)
}

/// RabbitMQ's levels in ours.
pub fn parse_level(name: &str) -> Option<&'static str> {
    Some(match name {
        "debug" => "debug",
        "info" | "notice" => "info",
        "warning" => "warn",
        "error" | "critical" | "alert" | "emergency" => "error",
        "none" => "off",
        _ => return None,
    })
}

fn level(entry: &Entry) -> Result<&'static str, String> {
    parse_level(&entry.value)
        .ok_or_else(|| "one of debug, info, notice, warning, error, critical, alert, emergency, none".into())
}

fn format(entry: &Entry) -> Result<LogFormat, String> {
    one_of(entry, &[("plaintext", LogFormat::Text), ("json", LogFormat::Json)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_parts() {
        let check = |pattern: &str, key: &str, expected: bool| {
            let key: Vec<String> = key.split('.').map(String::from).collect();
            assert_eq!(fits(pattern, &key), expected, "{pattern} {key:?}");
        };

        check("a.b", "a.b", true);
        check("a.b", "a.b.c", false);
        check("a.$", "a.b", true);
        check("a.$", "a", false);
        check("a.**", "a.b.c", true);
        check("a.**", "a", false);
    }

    #[test]
    fn octets_have_units() {
        for (text, expected) in
            [("10", 10), ("2GB", 2_000_000_000), ("2GiB", 2 << 30), ("50MB", 50_000_000), ("64Mi", 64 << 20)]
        {
            assert_eq!(parse_bytes(text), Some(expected), "{text}");
        }
        for text in ["", "x", "10 apples", "-1", "99999999999999999999", "9999999999999T"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
