//! Where the configuration comes from: a TOML file of ours or RabbitMQ's files, then the environment. What
//! is known and has no effect is explained, and what is not known is told.

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::draft::Draft;
use super::environment::{self, Variables};
use super::{Config, conf, keys};

/// Where RabbitMQ's packages and images have its files.
const RABBITMQ_DIR: &str = "/etc/rabbitmq";

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file: TOML, or `rabbitmq.conf` if it ends so.
    pub file: Option<PathBuf>,
    /// We are called as `rabbitmq-server`: its files and its defaults count.
    pub is_rabbitmq_server: bool,
    /// The environment.
    pub environment: Variables,
}

/// What is to be said of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// What has had its effect.
    pub honoured: Vec<String>,
    /// What is known and has no effect, and why.
    pub explained: Vec<String>,
    /// What is not known, and the nearest that is.
    pub unknown: Vec<String>,
}

impl Notes {
    pub(super) fn explain(&mut self, name: &str, why: &str) {
        self.explained.push(format!("{name} has no effect: {why}"));
    }

    /// A plugin that somebody wants.
    pub(super) fn plugin(&mut self, at: &str, name: &str) {
        let name = name.trim();
        if PLUGINS.contains(&name) {
            self.honoured.push(format!("{at}: {name} is built in"));
        } else if !name.is_empty() {
            self.explain(&format!("{at}: {name}"), "there is no such plugin here");
        }
    }

    /// Writes them to the log, once it is open.
    pub fn log(&self) {
        self.explained.iter().for_each(|note| info!("configuration: {note}"));
        self.unknown.iter().for_each(|note| warn!("configuration: {note}"));
    }
}

/// What RabbitMQ has as plugins and everybody has here. `garennectl` has the same list, for those who ask it without a
/// broker.
pub const PLUGINS: &[&str] = &[
    "rabbitmq_auth_mechanism_ssl",
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_delayed_message_exchange",
    "rabbitmq_event_exchange",
    "rabbitmq_management",
    "rabbitmq_management_agent",
    "rabbitmq_message_deduplication",
    "rabbitmq_prometheus",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_web_dispatch",
];

/// Reads everything.
///
/// # Errors
/// All that is wrong, a line each, with file, line, key, value and what it may be.
pub fn load(sources: Sources) -> Result<(Config, Notes), String> {
    let mut notes = Notes::default();
    let mut variables = sources.environment;
    variables.retain(|name, _| name.starts_with("RABBITMQ_"));
    let default = |name: &str| Path::new(RABBITMQ_DIR).join(name);
    let of_variable = |variables: &Variables, name: &str, usual: &str| {
        let named = variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        named.or_else(|| sources.is_rabbitmq_server.then(|| default(usual)).filter(|file| file.exists()))
    };
    if let Some(file) = of_variable(&variables, "RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf") {
        let mut from_file = environment::read(&file)?;
        from_file.append(&mut variables);
        variables = from_file;
    }
    let file = match sources.file {
        Some(file) => Some(file),
        None => of_variable(&variables, "RABBITMQ_CONFIG_FILE", "rabbitmq.conf").map(with_extension),
    };
    let more = match of_variable(&variables, "RABBITMQ_CONFIG_FILES", "conf.d") {
        Some(dir) if dir.is_dir() => conf::files_in(&dir),
        Some(pattern) => conf::files_in(pattern.parent().unwrap_or(Path::new("."))),
        None => Vec::new(),
    };
    let mut config = match &file {
        Some(file) if file.extension().is_some_and(|extension| extension == "config") => {
            return Err(format!("{}: Erlang terms are not read; write it as rabbitmq.conf", file.display()));
        }
        Some(file) if file.extension().is_none_or(|extension| extension != "conf") => Config::read(file)?,
        _ if file.is_some() || !more.is_empty() || sources.is_rabbitmq_server => {
            let files: Vec<PathBuf> = file.iter().cloned().chain(more).collect();
            read_conf(&files, &mut notes)?
        }
        _ => Config::default(),
    };
    if sources.is_rabbitmq_server && config.data_dir == Config::default().data_dir {
        config.data_dir = "/var/lib/rabbitmq/garenne".into();
    }
    if let Some(file) = of_variable(&variables, "RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins") {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.for_each(|name| notes.plugin(&file.display().to_string(), name));
    }
    environment::apply(&variables, &mut config, &mut notes)?;
    Ok((config.check()?, notes))
}

/// RABBITMQ_CONFIG_FILE may leave out what the file ends with.
fn with_extension(file: PathBuf) -> PathBuf {
    let mut longer = file.clone().into_os_string();
    longer.push(".conf");
    if !file.exists() && Path::new(&longer).exists() { longer.into() } else { file }
}

/// Reads RabbitMQ's files, the later ones over the earlier.
pub(super) fn read_conf(files: &[PathBuf], notes: &mut Notes) -> Result<Config, String> {
    let mut errors = Vec::new();
    let entries: Vec<_> = files.iter().flat_map(|file| conf::read(file, &mut errors)).collect();
    let mut draft = Draft::like_rabbitmq();
    for entry in conf::settle(entries) {
        let (name, at) = (entry.name(), &entry.at);
        match keys::find(&entry) {
            None => {
                let nearest = keys::nearest(&name).map(|nearest| format!("; the nearest is {nearest}"));
                notes.unknown.push(format!("{at}: {name} is not known{}", nearest.unwrap_or_default()));
            }
            Some(keys::Key { effect: keys::Effect::Has(why), .. }) => {
                notes.explain(&format!("{at}: {name}"), why);
            }
            Some(keys::Key { effect: keys::Effect::Sets(set), .. }) => match set(&mut draft, &entry) {
                Ok(()) => notes.honoured.push(format!("{at}: {name}")),
                Err(may_be) => {
                    errors.push(format!("{at}: {name} is '{}', and must be {may_be}", entry.value));
                }
            },
        }
    }
    let (config, without_effect) = match draft.finish() {
        Ok(done) => done,
        Err(error) => {
            errors.push(error);
            return Err(errors.join("\n"));
        }
    };
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    for name in without_effect {
        notes.honoured.retain(|note| !note.ends_with(&format!(": {name}")));
        notes
            .explain(&name, "TLS here has no such choice: only safe versions, ciphers and curves are spoken");
    }
    Ok(config)
}
