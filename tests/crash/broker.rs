//! The broker as a child that is killed and started again on the same directory.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lapin::{Connection, ConnectionProperties};
use tokio::time::{sleep, timeout};

use crate::Failure;

/// A start that takes longer is a failure.
const START_MAX: Duration = Duration::from_secs(60);
/// A client that has not noticed the broker's death by then hangs.
const NOTICE_MAX: Duration = Duration::from_secs(2);

/// Where clients of one life of the broker connect, and how they learn of its end.
#[derive(Clone)]
pub struct Door {
    port: u16,
    kills: Arc<AtomicU64>,
    /// How often it had been killed when this life began.
    life: u64,
    hung: Arc<Mutex<Vec<String>>>,
}

impl Door {
    /// Does a client's work until it ends, or until the broker has been dead for a while: then the
    /// client hangs although its connection is lost, which is noted and is no fault of the broker.
    pub async fn work<T>(&self, name: &str, work: impl Future<Output = T>) -> Option<T> {
        let died = async {
            while self.kills.load(Ordering::Relaxed) == self.life {
                sleep(Duration::from_millis(50)).await;
            }
            sleep(NOTICE_MAX).await;
        };
        tokio::select! {
            done = work => Some(done),
            () = died => {
                self.hung.lock().expect("nobody panics with it").push(name.to_string());
                None
            }
        }
    }

    /// A connection to the broker.
    pub async fn connect(&self, name: &str) -> lapin::Result<Connection> {
        let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port);
        Connection::connect(&url, ConnectionProperties::default().with_connection_name(name.into())).await
    }
}

/// The broker's process, its directory and its log.
pub struct Broker {
    data_dir: PathBuf,
    log: PathBuf,
    port: u16,
    child: Option<Child>,
    starts: u32,
    kills: Arc<AtomicU64>,
    hung: Arc<Mutex<Vec<String>>>,
}

impl Broker {
    /// Keeps its data and its log in `dir`; is not started yet.
    pub fn new(dir: &Path) -> Result<Broker, Failure> {
        fs::create_dir_all(dir)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Broker {
            data_dir: dir.join("data"),
            log: dir.join("broker.log"),
            port,
            child: None,
            starts: 0,
            kills: Arc::default(),
            hung: Arc::default(),
        })
    }

    /// Starts the process and does not wait.
    pub fn spawn(&mut self) -> Result<(), Failure> {
        self.starts += 1;
        let log = File::options().create(true).append(true).open(&self.log)?;
        writeln!(&log, "---- start {}", self.starts)?;
        let child = Command::new(env!("CARGO_BIN_EXE_garenne"))
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &format!("127.0.0.1:{}", self.port), "--log", "info"])
            .args(["--http", "none", "--metrics", "none"])
            .env("NO_COLOR", "1")
            .env_remove("GARENNE_CONFIG")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts the process and waits until it lets a client in. How long that took.
    pub async fn start(&mut self) -> Result<Duration, Failure> {
        self.spawn()?;
        let start = Instant::now();
        loop {
            if let Ok(Ok(connection)) = timeout(START_MAX, self.door().connect("is it ready")).await {
                let took = start.elapsed();
                let _ = connection.close(200, "it is".into()).await;
                return Ok(took);
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(
                    format!("the broker ended by itself: {status}; see {}", self.log.display()).into()
                );
            }
            if start.elapsed() > START_MAX {
                return Err(format!("the broker does not start; see {}", self.log.display()).into());
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The way in, for tasks.
    pub fn door(&self) -> Door {
        let life = self.kills.load(Ordering::Relaxed);
        Door { port: self.port, kills: self.kills.clone(), life, hung: self.hung.clone() }
    }

    /// SIGKILL; true if it was alive until then.
    pub fn kill(&mut self) -> Result<bool, Failure> {
        let Some(mut child) = self.child.take() else { return Ok(false) };
        let was_alive = child.try_wait()?.is_none();
        child.kill()?;
        child.wait()?;
        self.kills.fetch_add(1, Ordering::Relaxed);
        Ok(was_alive)
    }

    /// Clients that did not notice that their broker was dead.
    pub fn hung(&self) -> Vec<String> {
        self.hung.lock().expect("nobody panics with it").clone()
    }

    /// What its log has of warnings, errors and panics: each text once, with how often it came.
    pub fn complaints(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let mut seen: Vec<(String, u32)> = Vec::new();
        for line in text.lines() {
            let Some(at) = ["ERROR", "WARN", "panicked"].iter().find_map(|word| line.find(word)) else {
                continue;
            };
            // Numbers aside, many lines are the same.
            let shape: String = line[at..].chars().filter(|c| !c.is_ascii_digit()).collect();
            match seen
                .iter_mut()
                .find(|(other, _)| other.chars().filter(|c| !c.is_ascii_digit()).collect::<String>() == shape)
            {
                Some((_, count)) => *count += 1,
                None => seen.push((line[at..].to_string(), 1)),
            }
        }
        seen.into_iter().map(|(line, count)| format!("{line} ({count} times)")).collect()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
