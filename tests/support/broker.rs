//! A broker in this process: a port of its own, a directory of its own, a clock that tests move.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use garenne::clock::Clock;
use garenne::config::{Config, PermissionSeed, UserSeed, VhostSeed};
use garenne::server::Server;
use garenne::shutdown::{self, Trigger};
use garenne::vhost::Vhost;
use tempfile::TempDir;

use super::{Client, Login};

/// A running broker. It stops when it is dropped.
pub struct Broker {
    _dir: TempDir,
    config: Config,
    options: store::Options,
    /// The broker's clock: it goes on by itself, and tests move it forward.
    pub clock: Clock,
    running: Option<Running>,
}

struct Running {
    broker: Arc<garenne::broker::Broker>,
    address: SocketAddr,
    http: SocketAddr,
    tls_address: Option<SocketAddr>,
    https_address: Option<SocketAddr>,
    trigger: Trigger,
    thread: JoinHandle<Result<(), String>>,
}

impl Broker {
    /// A broker with nothing in it.
    pub fn start() -> Broker {
        Broker::with(|_| {})
    }

    /// A broker on a store that is opened in another way.
    pub fn on(options: store::Options) -> Broker {
        Broker::with_both(|_| {}, options)
    }

    /// A broker with another configuration.
    pub fn with(change: impl FnOnce(&mut Config)) -> Broker {
        Broker::with_both(change, store::Options::default())
    }

    fn with_both(change: impl FnOnce(&mut Config), options: store::Options) -> Broker {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            http: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            metrics: None,
            data_dir: dir.path().join("data"),
            disk_free_bytes_min: 0,
            ..Config::default()
        };
        // With 0 nothing stays in memory that the store can bring back: a hard life for every test.
        if let Ok(bytes) = std::env::var("GARENNE_TEST_MEMORY") {
            config.message_memory_bytes_max = bytes.parse().expect("a number of bytes");
            config.transient_memory_bytes_max = Some(10 * config.message_memory_bytes_max);
        }
        change(&mut config);
        let clock = Clock::system();
        let running = Some(run(&config, &options, &clock).expect("a broker that starts"));
        Broker { _dir: dir, config, options, clock, running }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a broker that runs")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running().address
    }

    /// Where its HTTP API is.
    pub fn http(&self) -> SocketAddr {
        self.running().http
    }

    /// Where it listens with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.running().tls_address.expect("a broker that speaks TLS")
    }

    /// Where the HTTP API is in TLS.
    pub fn https_address(&self) -> SocketAddr {
        self.running().https_address.expect("a broker that speaks HTTPS")
    }

    /// For programs that are given a URL.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/", self.address())
    }

    /// Where it keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.config.data_dir.clone()
    }

    /// A client with channel 1 open.
    pub fn client(&self) -> Client {
        Client::open(self.address(), &Login::default())
    }

    /// A client of another kind, with channel 1 open.
    pub fn client_as(&self, login: &Login) -> Client {
        Client::open(self.address(), login)
    }

    /// A client, with channel 1 open, whose system takes little for it while it does not read.
    pub fn client_with_small_buffer(&self) -> Client {
        Client::open_with_small_buffer(self.address())
    }

    /// A client that has said nothing yet.
    pub fn stranger(&self) -> Client {
        Client::connect(self.address())
    }

    /// The broker itself, for what administrators do.
    pub fn inner(&self) -> &Arc<garenne::broker::Broker> {
        &self.running().broker
    }

    /// A vhost, for what no client can ask for.
    pub fn vhost(&self, name: &str) -> Arc<Vhost> {
        self.running().broker.vhost(name).expect("a vhost")
    }

    /// Who is connected.
    pub fn roster(&self) -> Vec<Arc<garenne::roster::Guest>> {
        self.running().broker.roster.guests()
    }

    /// Moves the clock.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Asks it to stop and does not wait.
    pub fn ask_to_stop(&self) {
        self.running().trigger.pull();
    }

    /// Stops it as an operator does.
    pub fn stop(&mut self) {
        let Some(Running { broker, trigger, thread, .. }) = self.running.take() else { return };
        drop(broker);
        trigger.pull();
        let ended = thread.join();
        if !std::thread::panicking() {
            ended.expect("a broker that does not panic").expect("a broker that stops in order");
        }
    }

    /// Stops it as an operator does, and starts it again on what it has kept.
    pub fn restart(&mut self) {
        self.stop();
        self.running =
            Some(run(&self.config, &self.options, &self.clock).expect("a broker that starts again"));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(config: &Config, options: &store::Options, clock: &Clock) -> Result<Running, String> {
    let (config, clock) = (config.clone(), clock.clone());
    let options = store::Options { segment_bytes: 1 << 20, ..options.clone() };
    let (trigger, shutdown) = shutdown::channel();
    let (told, hears) = mpsc::channel();
    let serve = move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        // Code that is not optimised takes more of the stack, above all where tables are nested.
        let runtime = runtime.worker_threads(2).thread_stack_size(16 << 20);
        let runtime = runtime.enable_all().build().map_err(|e| e.to_string())?;
        runtime.block_on(async {
            let server = match Server::start(config, options, clock).await {
                Ok(server) => server,
                Err(error) => {
                    let _ = told.send(Err(error.to_string()));
                    return Ok(());
                }
            };
            let address = server.address().map_err(|e| e.to_string());
            let http = server.http_address().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
            let tls_address = server.tls_address();
            let https = server.web_address("https");
            let all = |address| (address, http, tls_address, https, server.broker().clone());
            let _ = told.send(address.map(all));
            server.run(shutdown).await.map_err(|e| e.to_string())
        })
    };
    let thread = std::thread::spawn(serve);
    let (address, http, tls_address, https_address, broker) =
        hears.recv().map_err(|_| "the broker's thread has ended".to_string())??;
    Ok(Running { broker, address, http, tls_address, https_address, trigger, thread })
}

/// A user to be there.
pub fn user(name: &str, password: &str, tags: &[&str]) -> UserSeed {
    let tags = tags.iter().map(|tag| tag.to_string()).collect();
    UserSeed { name: name.into(), password: password.into(), tags }
}

/// A vhost to be there.
pub fn vhost(name: &str) -> VhostSeed {
    VhostSeed { name: name.into() }
}

/// Permissions to be there: configure, write, read.
pub fn permission(user: &str, vhost: &str, [configure, write, read]: [&str; 3]) -> PermissionSeed {
    PermissionSeed {
        user: user.into(),
        vhost: vhost.into(),
        configure: configure.into(),
        write: write.into(),
        read: read.into(),
    }
}
