//! The broker under fire: a child process, its memory, and what it says.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Lines of the log that are kept to be shown.
const KEPT_LINES: usize = 40;

/// How long the broker may take to open its data and its port.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Short, so that clients that fall silent at the door are seen to be sent away.
pub const HANDSHAKE_TIMEOUT_SECS: u64 = 3;

/// User `fuzz` may make a few names only: mutated ones would pile up, rightly, for ever.
const CONFIG: &str = r#"
handshake_timeout_secs = 3
disk_free_bytes_min = 1000000

[[users]]
name = "fuzz"
password = "fuzz"

[[permissions]]
user = "fuzz"
vhost = "/"
configure = "^(fz-q[0-7]|fz-x[0-4]|fz-v[0-9]+-[0-9]+|amq\\.gen-.*|)$"
write = "^(fz-|amq\\.|$)"
read = "^(fz-|amq\\.|$)"
"#;

pub struct Broker {
    child: Child,
    pub address: SocketAddr,
    pub said: Arc<Mutex<Said>>,
}

/// What the log had to say.
#[derive(Default)]
pub struct Said {
    pub lines: u64,
    pub last: VecDeque<String>,
    pub panics: Vec<String>,
    pub errors: Vec<String>,
}

impl Broker {
    pub fn start(dir: &Path) -> Result<Broker, String> {
        let config = dir.join("garenne.toml");
        std::fs::write(&config, CONFIG).map_err(|e| e.to_string())?;
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
        let binary =
            std::env::var("GARENNE_FUZZ_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_garenne").into());
        let log = std::env::var("GARENNE_FUZZ_LOG").unwrap_or_else(|_| "info".into());
        let mut child = Command::new(&binary)
            .args(["--listen", &port.to_string(), "--log", &log, "--http", "none", "--metrics", "none"])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .arg("--config")
            .arg(&config)
            .env("RUST_BACKTRACE", "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{binary}: {e}"))?;
        let said = Arc::new(Mutex::new(Said::default()));
        listen_to(child.stdout.take().expect("piped"), said.clone());
        listen_to(child.stderr.take().expect("piped"), said.clone());
        let mut broker = Broker { child, address: port, said };
        let until = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(port).is_err() {
            if Instant::now() > until || !broker.is_alive() {
                return Err(format!("the broker does not start: {}", broker.last_words()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(broker)
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        resident_kib(self.id())
    }

    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }

    pub fn last_words(&self) -> String {
        let said = self.said.lock().unwrap();
        said.last.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// The end that no broker can prepare for.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn resident_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn listen_to(pipe: impl Read + Send + 'static, said: Arc<Mutex<Said>>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_string();
            bytes.clear();
            let mut said = said.lock().unwrap();
            said.lines += 1;
            if line.contains("panicked") || line.contains("overflowed its stack") {
                said.panics.push(line.clone());
            } else if line.contains(" ERROR ") && said.errors.len() < KEPT_LINES {
                said.errors.push(line.clone());
            }
            said.last.push_back(line);
            if said.last.len() > KEPT_LINES {
                said.last.pop_front();
            }
        }
    });
}
