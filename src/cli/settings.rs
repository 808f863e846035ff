//! Where the broker is and who asks: flags win over the environment, the environment over a file's section.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::failure::{Failure, Result};

pub struct Settings {
    /// `http://localhost:15672/api`, without a slash at its end.
    pub base: String,
    pub user: String,
    pub password: String,
    /// None: it was not said.
    pub vhost: Option<String>,
    pub timeout: Option<Duration>,
    pub insecure: bool,
    pub tls_ca: Option<PathBuf>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

/// What the command line said; all of it optional.
#[derive(Default)]
pub struct Flags {
    pub config: Option<String>,
    pub node: Option<String>,
    pub host: Option<String>,
    pub port: Option<String>,
    pub base_uri: Option<String>,
    pub path_prefix: Option<String>,
    pub vhost: Option<String>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub timeout: Option<String>,
    pub use_tls: bool,
    pub insecure: bool,
    pub tls_ca: Option<String>,
    pub tls_certificate: Option<String>,
    pub tls_key: Option<String>,
}

const TIMEOUT_SECS: u64 = 60;
const HTTP_PORT: &str = "15672";
const HTTPS_PORT: &str = "15671";

/// Looked for in this order, below the home directory.
const FILES: &[&str] = &[".config/garennectl.toml", ".rabbitmqadmin.conf"];

/// The environment: ours first, then what rabbitmqadmin reads, then what the server's image is given.
const ENVIRONMENT: &[(&str, &[&str])] = &[
    ("config", &["GARENNECTL_CONFIG", "RABBITMQADMIN_CONFIG_FILE_PATH"]),
    ("node", &["RABBITMQADMIN_NODE_ALIAS"]),
    ("base_uri", &["GARENNE_URL", "RABBITMQADMIN_BASE_URI"]),
    ("hostname", &["RABBITMQADMIN_TARGET_HOST"]),
    ("port", &["RABBITMQADMIN_TARGET_PORT"]),
    ("path_prefix", &["RABBITMQADMIN_API_PATH_PREFIX"]),
    ("vhost", &["GARENNE_VHOST", "RABBITMQADMIN_TARGET_VHOST"]),
    ("username", &["GARENNE_USER", "RABBITMQADMIN_USERNAME", "RABBITMQ_DEFAULT_USER"]),
    ("password", &["GARENNE_PASSWORD", "RABBITMQADMIN_PASSWORD", "RABBITMQ_DEFAULT_PASS"]),
    ("timeout", &["RABBITMQADMIN_TIMEOUT"]),
    ("tls", &["RABBITMQADMIN_USE_TLS"]),
    ("tls_ca", &["GARENNE_TLS_CA"]),
];

/// The names that files of garennectl and of both generations of rabbitmqadmin use for one thing.
const KEYS: &[(&str, &[&str])] = &[
    ("base_uri", &["base_uri", "url"]),
    ("hostname", &["hostname", "host"]),
    ("port", &["port"]),
    ("path_prefix", &["path_prefix"]),
    ("scheme", &["scheme"]),
    ("username", &["username", "user"]),
    ("password", &["password"]),
    ("vhost", &["vhost", "virtual_host", "declare_vhost"]),
    ("timeout", &["timeout", "request_timeout"]),
    ("tls", &["tls", "ssl"]),
    ("insecure", &["insecure", "ssl_insecure"]),
    ("tls_ca", &["tls_ca_cert_file", "ca_certificate_bundle_path", "ssl_ca_cert_file"]),
    ("tls_certificate", &["tls_cert_file", "client_certificate_file_path", "ssl_cert_file"]),
    ("tls_key", &["tls_key_file", "client_private_key_file_path", "ssl_key_file"]),
    // How rabbitmqadmin prints; garennectl is told by flags.
    (
        "",
        &[
            "quiet",
            "verbose",
            "non_interactive",
            "table_style",
            "format",
            "depth",
            "sort",
            "sort_reverse",
            "columns",
        ],
    ),
];

impl Settings {
    pub fn resolve(flags: Flags, variable: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
        let from_environment = |key: &str| {
            let names = ENVIRONMENT.iter().find(|(name, _)| *name == key).map_or(&[][..], |(_, names)| names);
            names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()))
        };
        let named = flags.config.clone().or_else(|| from_environment("config"));
        let file = find_file(named.as_deref(), variable("HOME").as_deref())?;
        let node = flags.node.clone().or_else(|| from_environment("node"));
        let section = match &file {
            Some(path) => read_section(path, node.as_deref())?,
            None if node.is_some() => {
                let text =
                    "--node names a section of the configuration file, and there is no file; try --host";
                return Err(Failure::Usage(text.into()));
            }
            None => BTreeMap::new(),
        };
        let pick = |flag: &Option<String>, key: &str| {
            flag.clone().or_else(|| from_environment(key)).or_else(|| section.get(key).cloned())
        };
        let is_set = |flag: bool, key: &str| {
            flag || pick(&None, key)
                .is_some_and(|value| matches!(value.to_lowercase().as_str(), "true" | "1"))
        };

        let is_tls =
            is_set(flags.use_tls, "tls") || section.get("scheme").is_some_and(|scheme| scheme == "https");
        // A host or port on the command line is not overruled by an address of the environment or the file.
        let is_named = flags.host.is_some() || flags.port.is_some();
        let uri = if is_named { flags.base_uri.clone() } else { pick(&flags.base_uri, "base_uri") };
        let prefix = pick(&flags.path_prefix, "path_prefix").unwrap_or_else(|| "/api".into());
        let base = match uri {
            Some(uri) => base_of(&uri, &prefix)?,
            None => {
                let host = pick(&flags.host, "hostname").unwrap_or_else(|| "localhost".into());
                let default = if is_tls { HTTPS_PORT } else { HTTP_PORT };
                let port = pick(&flags.port, "port").unwrap_or_else(|| default.into());
                let port: u16 = port
                    .parse()
                    .map_err(|_| Failure::Usage(format!("port '{port}' is no number up to 65535")))?;
                let host =
                    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
                let scheme = if is_tls { "https" } else { "http" };
                base_of(&format!("{scheme}://{host}:{port}"), &prefix)?
            }
        };
        let timeout = match pick(&flags.timeout, "timeout") {
            None => TIMEOUT_SECS,
            Some(text) => text
                .parse()
                .map_err(|_| Failure::Usage(format!("timeout '{text}' is no whole number of seconds")))?,
        };
        let as_path = |flag: &Option<String>, key: &str| pick(flag, key).map(PathBuf::from);
        Ok(Settings {
            base,
            user: pick(&flags.username, "username").unwrap_or_else(|| "guest".into()),
            password: pick(&flags.password, "password").unwrap_or_else(|| "guest".into()),
            vhost: pick(&flags.vhost, "vhost"),
            timeout: Some(Duration::from_secs(timeout)),
            insecure: is_set(flags.insecure, "insecure"),
            tls_ca: as_path(&flags.tls_ca, "tls_ca"),
            tls_certificate: as_path(&flags.tls_certificate, "tls_certificate"),
            tls_key: as_path(&flags.tls_key, "tls_key"),
            file,
        })
    }

    /// With the environment of this process.
    pub fn of_process(flags: Flags) -> Result<Settings> {
        Settings::resolve(flags, &|name| env::var(name).ok())
    }
}

/// An address with the prefix at its end, once: GARENNE_URL may or may not name /api.
fn base_of(uri: &str, prefix: &str) -> Result<String> {
    let is_http = uri.starts_with("http://") || uri.starts_with("https://");
    let host = uri.split("://").nth(1).unwrap_or_default();
    if !is_http || host.is_empty() || host.starts_with('/') {
        return Err(Failure::Usage(format!("'{uri}' is no address; try http://localhost:15672")));
    }
    let uri = uri.trim_end_matches('/');
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() || uri.ends_with(&format!("/{prefix}")) {
        return Ok(uri.to_string());
    }
    Ok(format!("{uri}/{prefix}"))
}

fn find_file(named: Option<&str>, home: Option<&str>) -> Result<Option<PathBuf>> {
    if let Some(named) = named {
        let path = match (named.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => Path::new(home).join(rest),
            _ => PathBuf::from(named),
        };
        if !path.is_file() {
            return Err(Failure::Input(format!("the configuration file {} is not there", path.display())));
        }
        return Ok(Some(path));
    }
    let Some(home) = home else { return Ok(None) };
    Ok(FILES.iter().map(|name| Path::new(home).join(name)).find(|path| path.is_file()))
}

fn read_section(path: &Path, node: Option<&str>) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Input(format!("{} cannot be read: {error}", path.display())))?;
    let sections = parse(&text).map_err(|reason| Failure::Input(format!("{}: {reason}", path.display())))?;
    let name = node.unwrap_or("default");
    let Some(section) = sections.get(name) else {
        if node.is_none() {
            return Ok(BTreeMap::new());
        }
        let known: Vec<&str> = sections.keys().map(String::as_str).collect();
        return Err(Failure::Input(format!(
            "{} has no section [{name}]; it has: {}",
            path.display(),
            known.join(", ")
        )));
    };
    let mut found = BTreeMap::new();
    for (key, value) in section {
        match KEYS.iter().find(|(_, names)| names.contains(&key.as_str())) {
            Some(("", _)) => {}
            Some((name, _)) => {
                found.insert(name.to_string(), value.clone());
            }
            None => {
                let text = format!("{}: section [{name}] has the unknown key '{key}'", path.display());
                return Err(Failure::Input(text));
            }
        }
    }
    Ok(found)
}

type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// TOML, as garennectl and rabbitmqadmin v2 have it; or the INI of rabbitmqadmin v1, whose values have no quotes.
fn parse(text: &str) -> std::result::Result<Sections, String> {
    match toml::from_str::<toml::Table>(text) {
        Ok(table) => Ok(table
            .iter()
            .filter_map(|(name, section)| Some((name.clone(), section.as_table()?)))
            .map(|(name, section)| {
                let plain = |value: &toml::Value| match value {
                    toml::Value::Integer(number) => number.to_string(),
                    toml::Value::Boolean(is_so) => is_so.to_string(),
                    // Anything else is no value of these keys, and is refused where it is parsed.
                    other => other.as_str().unwrap_or_default().to_string(),
                };
                (name, section.iter().map(|(key, value)| (key.clone(), plain(value))).collect())
            })
            .collect()),
        Err(error) => parse_ini(text).ok_or_else(|| error.to_string()),
    }
}

fn parse_ini(text: &str) -> Option<Sections> {
    let mut sections = Sections::new();
    let mut current = "default".to_string();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            current = name.strip_suffix(']')?.trim().to_string();
            sections.entry(current.clone()).or_default();
            continue;
        }
        let (key, value) = line.split_once(['=', ':'])?;
        let section = sections.entry(current.clone()).or_default();
        section.insert(key.trim().to_string(), value.trim().trim_matches(['"', '\'']).to_string());
    }
    Some(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn without_a_word_it_is_guest_on_this_machine() {
        let settings = Settings::resolve(Flags::default(), &nothing).expect("settings");

        assert_eq!(settings.base, "http://localhost:15672/api");
        assert_eq!((settings.user.as_str(), settings.password.as_str()), ("guest", "guest"));
        assert_eq!(settings.vhost, None);
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("c.toml");
        fs::write(&file, "[default]\nhostname = \"f\"\nport = 1\nusername = \"f\"\npassword = \"f\"\n")
            .expect("written");
        let file = file.display().to_string();
        let variable = |name: &str| match name {
            "GARENNECTL_CONFIG" => Some(file.clone()),
            "GARENNE_USER" => Some("e".to_string()),
            "GARENNE_PASSWORD" => Some("e".to_string()),
            _ => None,
        };
        let flags = Flags { username: Some("flag".into()), ..Flags::default() };

        let settings = Settings::resolve(flags, &variable).expect("settings");

        assert_eq!(settings.base, "http://f:1/api");
        assert_eq!((settings.user.as_str(), settings.password.as_str()), ("flag", "e"));
    }

    #[test]
    fn an_address_may_name_the_prefix_or_not() {
        let check = |url: &str, expected: &str| {
            assert_eq!(base_of(url, "/api").expect("an address"), expected);
        };

        check("http://b:1", "http://b:1/api");
        check("http://b:1/", "http://b:1/api");
        check("https://b/api/", "https://b/api");
        assert!(base_of("b:1", "/api").is_err());
        assert!(base_of("http://", "/api").is_err());
    }

    #[test]
    fn files_of_all_generations_are_read() {
        let toml = parse("[one]\nhostname = \"h\"\nport = 15672\ntls = true\n").expect("toml");
        let ini = parse("[one]\nhostname = h\nport = 15672\n; a comment\nssl = True\n").expect("ini");

        assert_eq!(toml["one"]["port"], "15672");
        assert_eq!(ini["one"]["hostname"], "h");
        assert_eq!(ini["one"]["ssl"], "True");
        assert!(parse("[one\n").is_err());
    }

    #[test]
    fn an_unknown_section_or_key_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.toml");
        fs::write(&path, "[one]\nhostnam = \"h\"\n").expect("written");

        let section = read_section(&path, Some("two")).expect_err("no such section");
        let key = read_section(&path, Some("one")).expect_err("no such key");

        assert!(section.to_string().contains("[two]") && section.to_string().contains("one"), "{section}");
        assert!(key.to_string().contains("'hostnam'"), "{key}");
    }
}
