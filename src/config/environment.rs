//! The `RABBITMQ_*` environment of RabbitMQ's server: what each variable sets here, or why it has no effect.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::draft::FirstUser;
use super::{Config, Notes, keys};

/// Variables by name, and where each was read if not in the process's environment.
pub type Variables = BTreeMap<String, String>;

/// A variable that is understood and has no effect.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("ERLANG_COOKIE", "no Erlang nodes talk to each other here"),
    ("USE_LONGNAME", "RABBITMQ_NODENAME is taken as it is"),
    ("DIST_PORT", "this broker is a cluster of one"),
    ("FEATURE_FLAGS", "all features are always there"),
    ("STREAM_DIR", "everything is kept in RABBITMQ_MNESIA_DIR"),
    ("QUORUM_DIR", "everything is kept in RABBITMQ_MNESIA_DIR"),
    ("ADVANCED_CONFIG_FILE", "Erlang terms are not read"),
    ("PLUGINS_DIR", "there are no plugins to load"),
    ("PLUGINS_EXPAND_DIR", "there are no plugins to load"),
    ("SERVER_ADDITIONAL_ERL_ARGS", "there is no Erlang here"),
    ("SERVER_ERL_ARGS", "there is no Erlang here"),
    ("SERVER_START_ARGS", "there is no Erlang here"),
    ("CTL_ERL_ARGS", "there is no Erlang here"),
    ("IO_THREAD_POOL_SIZE", "there is no Erlang here"),
    ("MAX_NUMBER_OF_PROCESSES", "there is no Erlang here"),
    ("MAX_NUMBER_OF_ATOMS", "there is no Erlang here"),
    ("SCHEDULER_BIND_TYPE", "there is no Erlang here"),
    ("DISTRIBUTION_BUFFER_SIZE", "there is no Erlang here"),
    ("DEFAULT_ALLOC_ARGS", "there is no Erlang here"),
    ("CLUSTER_NODES", "this broker is a cluster of one"),
    ("HOME", "the binary is all there is"),
    ("VERSION", "it is said by the image, of RabbitMQ"),
    ("DATA_DIR", "RABBITMQ_MNESIA_DIR says where everything is kept"),
    ("SSL_CACERTFILE", "ssl_options.cacertfile in rabbitmq.conf says it"),
    ("SSL_CERTFILE", "ssl_options.certfile in rabbitmq.conf says it"),
    ("SSL_KEYFILE", "ssl_options.keyfile in rabbitmq.conf says it"),
];

/// Variables that say where to read from; `load` has seen to them.
const OF_FILES: &[&str] = &["CONFIG_FILE", "CONFIG_FILES", "CONF_ENV_FILE", "ENABLED_PLUGINS_FILE"];

/// Variables that set something.
const OF_VALUES: &[&str] = &[
    "DEFAULT_USER",
    "DEFAULT_PASS",
    "DEFAULT_VHOST",
    "DEFAULT_USER_FILE",
    "DEFAULT_PASS_FILE",
    "USERNAME",
    "PASSWORD",
    "NODENAME",
    "NODE_PORT",
    "NODE_IP_ADDRESS",
    "MNESIA_BASE",
    "MNESIA_DIR",
    "LOGS",
    "LOG",
    "LOG_BASE",
    "PID_FILE",
    "PRODUCT_NAME",
    "PRODUCT_VERSION",
    "VM_MEMORY_HIGH_WATERMARK",
    "ENABLED_PLUGINS",
];

/// Applies what is there.
pub fn apply(variables: &Variables, config: &mut Config, notes: &mut Notes) -> Result<(), String> {
    let get = |name: &str| variables.get(&format!("RABBITMQ_{name}")).filter(|value| !value.is_empty());
    let wrong =
        |name: &str, value: &str, may_be: &str| format!("RABBITMQ_{name} is '{value}', and must be {may_be}");
    let content = |name: &str| -> Result<Option<String>, String> {
        let Some(file) = get(name) else { return Ok(None) };
        let text = std::fs::read_to_string(file).map_err(|e| format!("RABBITMQ_{name}: {file}: {e}"))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_string()))
    };
    let first = FirstUser {
        user: get("DEFAULT_USER").or_else(|| get("USERNAME")).cloned().or(content("DEFAULT_USER_FILE")?),
        password: get("DEFAULT_PASS").or_else(|| get("PASSWORD")).cloned().or(content("DEFAULT_PASS_FILE")?),
        vhost: get("DEFAULT_VHOST").cloned(),
    };
    first.apply(&mut config.first);
    if let Some(name) = get("NODENAME") {
        let host = config.node_name.split_once('@').map_or("localhost", |(_, host)| host).to_string();
        config.node_name = if name.contains('@') { name.clone() } else { format!("{name}@{host}") };
    }
    let port =
        get("NODE_PORT").map(|text| text.parse::<u16>().map_err(|_| wrong("NODE_PORT", text, "a port")));
    let ip = get("NODE_IP_ADDRESS").filter(|text| *text != "auto");
    let ip = ip.map(|text| text.parse::<IpAddr>().map_err(|_| wrong("NODE_IP_ADDRESS", text, "an address")));
    let (port, ip) = (port.transpose()?, ip.transpose()?);
    if port.is_some() || ip.is_some() {
        let now = config.listen.first().copied().unwrap_or(SocketAddr::from(([0u16; 8], 5672)));
        config.listen = vec![SocketAddr::new(ip.unwrap_or(now.ip()), port.unwrap_or(now.port()))];
    }
    if let Some(base) = get("MNESIA_BASE") {
        config.data_dir = Path::new(base).join("garenne");
    }
    if let Some(dir) = get("MNESIA_DIR") {
        config.data_dir = dir.into();
    }
    match (get("LOGS").map(String::as_str), get("LOG_BASE")) {
        (Some("-"), _) => config.log_file = None,
        (Some(file), base) => {
            config.log_file = Some(base.map_or(PathBuf::from(file), |base| Path::new(base).join(file)))
        }
        (None, Some(base)) => {
            if let Some(file) = &config.log_file {
                config.log_file = Some(Path::new(base).join(file));
            }
        }
        (None, None) => {}
    }
    // A level, or levels of categories: debug,connection=error,+color
    for part in get("LOG").iter().flat_map(|text| text.split(',')) {
        match part.split_once('=') {
            _ if part.starts_with(['+', '-']) => {}
            Some((room @ ("connection" | "channel" | "queue"), level)) => {
                let level = keys::parse_level(level).ok_or_else(|| wrong("LOG", part, "CATEGORY=LEVEL"))?;
                config.log += &format!(",garenne::{room}={level}");
            }
            Some((category, _)) => {
                notes.explain(&format!("RABBITMQ_LOG: {category}"), "nothing is logged of it")
            }
            None => {
                config.log =
                    keys::parse_level(part).ok_or_else(|| wrong("LOG", part, "a level such as debug"))?.into()
            }
        }
    }
    if let Some(file) = get("PID_FILE") {
        config.pid_file = Some(file.into());
    }
    if let Some(name) = get("PRODUCT_NAME") {
        config.server_properties.product = name.clone();
    }
    if let Some(version) = get("PRODUCT_VERSION") {
        config.server_properties.version = version.clone();
    }
    if let Some(text) = get("VM_MEMORY_HIGH_WATERMARK") {
        config.memory_high_watermark =
            text.parse().map_err(|_| wrong("VM_MEMORY_HIGH_WATERMARK", text, "a part such as 0.4"))?;
    }
    for plugin in get("ENABLED_PLUGINS").iter().flat_map(|text| text.split([',', ' '])) {
        notes.plugin("RABBITMQ_ENABLED_PLUGINS", plugin);
    }
    tell(variables, notes);
    Ok(())
}

fn tell(variables: &Variables, notes: &mut Notes) {
    for name in variables.keys() {
        let Some(short) = name.strip_prefix("RABBITMQ_") else { continue };
        if let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == short) {
            notes.explain(name, why);
        } else if OF_FILES.contains(&short) || OF_VALUES.contains(&short) {
            notes.honoured.push(name.clone());
        } else if !is_of_an_orchestrator(short) {
            let known =
                OF_FILES.iter().chain(OF_VALUES).copied().chain(WITHOUT_EFFECT.iter().map(|(n, _)| *n));
            let likeness = |known: &&str| strsim::jaro_winkler(known, short);
            let nearest = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default();
            notes.unknown.push(format!("{name} is not known; the nearest is RABBITMQ_{nearest}"));
        }
    }
}

/// `RABBITMQ_SERVICE_HOST`, `RABBITMQ_PORT_5672_TCP_ADDR`: Kubernetes and Docker tell of services so.
fn is_of_an_orchestrator(short: &str) -> bool {
    short.contains("SERVICE_") || short == "PORT" || short.starts_with("PORT_")
}

/// Reads rabbitmq-env.conf: `NODENAME=x`, with RABBITMQ_ before it or without.
pub fn read(file: &Path) -> Result<Variables, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut variables = Variables::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| {
            format!("{}:{}: '{line}' is no NAME=VALUE; shell commands are not run", file.display(), at + 1)
        })?;
        let name = name.trim();
        let value = value.trim().trim_matches(['"', '\'']).to_string();
        let name = if name.starts_with("RABBITMQ_") { name.into() } else { format!("RABBITMQ_{name}") };
        variables.insert(name, value);
    }
    Ok(variables)
}
