//! The broker: arguments, configuration, run. And beside it `garenne perf`, which loads brokers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use garenne::clock::Clock;
use garenne::config::{Config, Notes, Sources, load, parse_address_or_none, translate};
use garenne::log;
use garenne::server::Server;
use garenne::shutdown;
use garenne::tls::Acceptor;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A durable message broker for AMQP 0-9-1 clients.
///
/// Without arguments it listens on 127.0.0.1:5672, keeps its data in ./garenne-data, and lets user guest
/// with password guest in from this machine. A flag wins over its environment variable, which wins over
/// the configuration file.
///
/// Example: garenne --data-dir /srv/garenne --listen 0.0.0.0:5672 --log info
#[derive(Parser)]
#[command(name = "garenne", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Without one the broker runs.
    #[command(subcommand)]
    tool: Option<Tool>,

    /// Where everything is kept; made if it is not there.
    #[arg(long, value_name = "DIR", env = "GARENNE_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Where clients connect; several with commas, or the flag again.
    #[arg(long, value_name = "ADDRESS:PORT", env = "GARENNE_LISTEN", value_delimiter = ',')]
    listen: Vec<SocketAddr>,

    /// Where clients connect with TLS; the certificate stands in the configuration file.
    #[arg(long, value_name = "ADDRESS:PORT", env = "GARENNE_LISTEN_TLS", value_delimiter = ',')]
    listen_tls: Vec<SocketAddr>,

    /// Where the HTTP API listens; none turns it off.
    #[arg(long, value_name = "ADDRESS:PORT|none", env = "GARENNE_HTTP")]
    http: Option<String>,

    /// Where metrics are scraped; none turns it off.
    #[arg(long, value_name = "ADDRESS:PORT|none", env = "GARENNE_METRICS")]
    metrics: Option<String>,

    /// A configuration file: TOML, or a rabbitmq.conf (docs/configuration.md).
    #[arg(long, value_name = "FILE", env = "GARENNE_CONFIG")]
    config: Option<PathBuf>,

    /// What is logged: error, warn, info, debug, or a filter such as info,garenne=debug.
    #[arg(long, value_name = "FILTER", env = "GARENNE_LOG")]
    log: Option<String>,

    /// Only see whether the configuration is right and its files and the data directory can be used.
    #[arg(long)]
    check: bool,
}

/// What comes in the same binary.
#[derive(Subcommand)]
enum Tool {
    Perf(Box<perf::Arguments>),
    /// Looks at configuration files.
    #[command(subcommand)]
    Config(ConfigTool),
}

/// What can be done with a configuration.
#[derive(Subcommand)]
enum ConfigTool {
    /// Says what has an effect, what has none and why, and what is not known.
    ///
    /// Example: garenne config check /etc/rabbitmq/rabbitmq.conf
    Check {
        /// The file; without one, what the broker would read.
        file: Option<PathBuf>,
    },
    /// Prints a rabbitmq.conf as TOML of ours.
    ///
    /// Example: garenne config translate /etc/rabbitmq/rabbitmq.conf > garenne.toml
    Translate {
        /// The file.
        file: PathBuf,
    },
}

impl Arguments {
    fn into_config(self) -> Result<(Config, Notes), String> {
        let (mut config, notes) = load(sources(self.config))?;
        config.data_dir = self.data_dir.unwrap_or(config.data_dir);
        if !self.listen.is_empty() {
            config.listen = self.listen;
        }
        if !self.listen_tls.is_empty() {
            config.listen_tls = self.listen_tls;
        }
        let address_or_none = |flag: &str, text: Option<String>, default| match text {
            Some(text) => parse_address_or_none(&text).map_err(|e| format!("{flag}: {e}")),
            None => Ok(default),
        };
        config.http = address_or_none("--http", self.http, config.http)?;
        config.metrics = address_or_none("--metrics", self.metrics, config.metrics)?;
        config.log = self.log.unwrap_or(config.log);
        Ok((config.check()?, notes))
    }
}

/// The environment counts, and RabbitMQ's files if we are called by the name of its server.
fn sources(file: Option<PathBuf>) -> Sources {
    let name = std::env::args_os().next().map(PathBuf::from);
    let is_rabbitmq_server =
        name.is_some_and(|name| name.file_name().is_some_and(|n| n == "rabbitmq-server"));
    let environment = std::env::vars_os();
    let environment =
        environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Sources { file, is_rabbitmq_server, environment: environment.collect() }
}

/// `garenne config …`
fn look_at_config(tool: ConfigTool) -> Result<(), String> {
    match tool {
        ConfigTool::Check { file } => {
            let (_, notes) = load(sources(file))?;
            for (title, lines) in [
                ("has its effect:", &notes.honoured),
                ("understood, without effect:", &notes.explained),
                ("NOT KNOWN:", &notes.unknown),
            ] {
                if !lines.is_empty() {
                    println!("{title}");
                    lines.iter().for_each(|line| println!("  {line}"));
                }
            }
            match notes.unknown.len() {
                0 => Ok(()),
                n => Err(format!("{n} of these are not known; the broker would start, and pass them over")),
            }
        }
        ConfigTool::Translate { file } => {
            let (config, notes) = load(Sources { file: Some(file), ..Sources::default() })?;
            for line in notes.explained.iter().chain(&notes.unknown) {
                println!("# {line}");
            }
            print!("{}", translate(&config)?);
            Ok(())
        }
    }
}

/// `garenne --check`: what a start needs, but the start.
fn check(config: &Config) -> Result<(), String> {
    EnvFilter::try_new(&config.log).map_err(|e| format!("log '{}' is no filter: {e}", config.log))?;
    for settings in [&config.tls, &config.https_tls, &config.metrics_tls].into_iter().flatten() {
        Acceptor::new(settings, &[])?;
    }
    for path in &config.load_definitions {
        std::fs::metadata(path).map_err(|e| format!("load_definitions: {}: {e}", path.display()))?;
    }
    let dir = &config.data_dir;
    let usable = std::fs::create_dir_all(dir).and_then(|()| {
        let trial = dir.join(format!("check-{}", std::process::id()));
        std::fs::write(&trial, b"can this be written?")?;
        std::fs::remove_file(&trial)
    });
    usable.map_err(|e| format!("data_dir: {}: {e}", dir.display()))
}

/// Room for tables as deep as the codec allows: amq-protocol reads them by recursion, and takes some 20 KiB
/// a level without optimisation. Only what is used takes memory.
const STACK_BYTES: usize = 16 * 1024 * 1024;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Tool::Perf(arguments)) = &arguments.tool {
        return perf::run(arguments);
    }
    let done = match arguments.tool {
        Some(Tool::Config(tool)) => look_at_config(tool).map_err(Into::into),
        _ => run(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("garenne: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let is_check = arguments.check;
    let (config, notes) = arguments.into_config()?;
    if is_check {
        check(&config)?;
        notes.unknown.iter().for_each(|note| eprintln!("garenne: {note}"));
        println!("the configuration can be used");
        return Ok(());
    }
    let level = log::init(&config)?;
    notes.log();
    let pid_file = config.pid_file.clone();
    let options = store::Options {
        // IMPORTANT: what failed to reach the disk cannot be known to be safe, and is never tried again.
        // The process ends at once, so that no confirm leaves after it; a restart finds all that was
        // confirmed before.
        on_poison: Some(Arc::new(|error| {
            tracing::error!(%error, "the store can no longer write; the broker ends");
            std::process::exit(1);
        })),
        ..store::Options::default()
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.thread_stack_size(STACK_BYTES).enable_all().build()?;
    runtime.block_on(async {
        let (trigger, shutdown) = shutdown::channel();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hangup = signal(SignalKind::hangup())?;
        let server = Server::start(config, options, Clock::system()).await?;
        let broker = server.broker().clone();
        level.listen(Box::new(move |level, line| broker.log_line(level, line)));
        let acceptors = server.acceptors();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                // The log first, so that the new file has what follows.
                if let Err(error) = level.reopen() {
                    tracing::error!(error, "SIGHUP: the log's file cannot be opened anew");
                }
                tracing::info!("SIGHUP: the log and the certificates are opened anew");
                acceptors.iter().for_each(|acceptor| acceptor.reload());
            }
        });
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            trigger.pull();
        });
        if let Some(file) = &pid_file {
            let id = std::process::id().to_string();
            std::fs::write(file, id).map_err(|e| format!("pid_file: {}: {e}", file.display()))?;
        }
        // systemd waits for this when the unit says Type=notify; nobody else hears it.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let ended = server.run(shutdown).await;
        if let Some(file) = &pid_file {
            let _ = std::fs::remove_file(file);
        }
        Ok(ended?)
    })
}
