//! The broker of a run: in this process, with a clock that stands still unless it is moved.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use garenne::clock::Clock;
use garenne::config::Config;
use garenne::server::Server;
use garenne::shutdown::{self, Trigger};
use garenne::vhost::Vhost;
use tempfile::TempDir;

/// When a run begins, in milliseconds since 1970.
pub const START_MS: u64 = 1_800_000_000_000;

pub struct Broker {
    _dir: TempDir,
    config: Config,
    clock: Clock,
    running: Option<Running>,
}

struct Running {
    broker: Arc<garenne::broker::Broker>,
    address: SocketAddr,
    trigger: Trigger,
    thread: JoinHandle<Result<(), String>>,
}

impl Broker {
    /// A broker with nothing in it; so many octets of waiting messages stay in memory.
    pub fn start(memory_bytes: Option<usize>) -> Result<Broker, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut config = Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            http: None,
            metrics: None,
            data_dir: dir.path().join("data"),
            disk_free_bytes_min: 0,
            // Nobody pulls the plug: a confirm need not wait for the disk.
            sync: store::SyncMode::Os,
            ..Config::default()
        };
        if let Some(bytes) = memory_bytes {
            config.message_memory_bytes_max = bytes;
            // Some messages are spilled, but publishers are seldom slowed down for it.
            config.transient_memory_bytes_max = Some(bytes + 8000);
        }
        let clock = Clock::standing(START_MS);
        let running = Some(run(&config, &clock)?);
        Ok(Broker { _dir: dir, config, clock, running })
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a broker that runs")
    }

    pub fn address(&self) -> SocketAddr {
        self.running().address
    }

    pub fn vhost(&self) -> Arc<Vhost> {
        self.running().broker.vhost("/").expect("a vhost")
    }

    pub fn advance(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    pub fn stop(&mut self) -> Result<(), String> {
        let Some(Running { broker, trigger, thread, .. }) = self.running.take() else { return Ok(()) };
        drop(broker);
        trigger.pull();
        thread.join().map_err(|_| "the broker has panicked".to_string())?
    }

    pub fn start_again(&mut self) -> Result<(), String> {
        self.running = Some(run(&self.config, &self.clock)?);
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // What there was to say has been said.
        let _ = self.stop();
    }
}

fn run(config: &Config, clock: &Clock) -> Result<Running, String> {
    let (config, clock) = (config.clone(), clock.clone());
    let options = store::Options { segment_bytes: 1 << 20, ..store::Options::default() };
    let (trigger, shutdown) = shutdown::channel();
    let (told, hears) = mpsc::channel();
    let serve = move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_stack_size(16 << 20).enable_all().build();
        runtime.map_err(|e| e.to_string())?.block_on(async {
            let server = match Server::start(config, options, clock).await {
                Ok(server) => server,
                Err(error) => {
                    let _ = told.send(Err(error.to_string()));
                    return Ok(());
                }
            };
            let address = server.address().map_err(|e| e.to_string());
            let _ = told.send(address.map(|address| (address, server.broker().clone())));
            server.run(shutdown).await.map_err(|e| e.to_string())
        })
    };
    let thread = std::thread::spawn(serve);
    let (address, broker) = hears.recv().map_err(|_| "the broker's thread has ended".to_string())??;
    Ok(Running { broker, address, trigger, thread })
}
