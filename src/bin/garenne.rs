//! The broker: arguments, configuration, run. And beside it `garenne perf`, which loads brokers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use garenne::clock::Clock;
use garenne::config::{Config, parse_address_or_none};
use garenne::server::Server;
use garenne::shutdown;
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

    /// A configuration file (TOML; docs/configuration.md).
    #[arg(long, value_name = "FILE", env = "GARENNE_CONFIG")]
    config: Option<PathBuf>,

    /// What is logged: error, warn, info, debug, or a filter such as info,garenne=debug.
    #[arg(long, value_name = "FILTER", env = "GARENNE_LOG")]
    log: Option<String>,
}

/// What comes in the same binary.
#[derive(Subcommand)]
enum Tool {
    Perf(Box<perf::Arguments>),
}

impl Arguments {
    fn into_config(self) -> Result<Config, String> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
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
        Ok(config)
    }
}

/// Room for tables as deep as the codec allows: amq-protocol reads them by recursion, and takes some 20 KiB
/// a level without optimisation. Only what is used takes memory.
const STACK_BYTES: usize = 16 * 1024 * 1024;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Tool::Perf(arguments)) = &arguments.tool {
        return perf::run(arguments);
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("garenne: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let config = arguments.into_config()?;
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|e| format!("--log '{}' is no filter: {e}; try info or garenne=debug", config.log))?;
    tracing_subscriber::fmt().with_env_filter(filter).init();
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
        let acceptors = server.acceptors();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                tracing::info!("SIGHUP: certificates are read again");
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
        Ok(server.run(shutdown).await?)
    })
}
