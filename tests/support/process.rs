//! The real binary as a child: for what only a process can do, such as dying without a word.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Client, Login, PATIENCE, eventually};

const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The binary in a process of its own, with a data directory that outlives it.
pub struct Process {
    dir: TempDir,
    child: Option<Child>,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
}

impl Process {
    /// Starts the binary on an empty directory.
    pub fn start() -> Process {
        Process::with_config("")
    }

    /// Starts the binary with a configuration file of this text.
    pub fn with_config(text: &str) -> Process {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("garenne.toml"), text).expect("a configuration file");
        let mut process = Process { dir, child: None, address: NO_ADDRESS, tls_address: None };
        process.spawn();
        process
    }

    /// Starts the binary with a configuration file of this text, which says what TLS needs.
    pub fn with_tls(text: &str) -> Process {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("garenne.toml"), text).expect("a configuration file");
        let mut process = Process { dir, child: None, address: NO_ADDRESS, tls_address: Some(NO_ADDRESS) };
        process.spawn();
        process
    }

    /// Where it keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The next start has an empty configuration file.
    pub fn forget_config(&self) {
        std::fs::write(self.dir.path().join("garenne.toml"), "").expect("a configuration file");
    }

    /// What it has written to its log since the last start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.tls_address.expect("a broker that speaks TLS")
    }

    fn spawn(&mut self) {
        // Another test may take the port before the broker does.
        for _ in 0..10 {
            self.address = free_address();
            self.tls_address = self.tls_address.map(|_| free_address());
            if self.try_spawn() {
                return;
            }
        }
        panic!("no port is free for the broker: {}", self.log());
    }

    /// True when it serves, false when its port is taken.
    fn try_spawn(&mut self) -> bool {
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log file");
        let child = command(&self.data_dir(), self.address)
            .arg("--config")
            .arg(self.dir.path().join("garenne.toml"))
            .args(self.tls_address.iter().flat_map(|at| ["--listen-tls".into(), at.to_string()]))
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn();
        let child = self.child.insert(child.expect("the binary"));
        let start = Instant::now();
        loop {
            let said = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            if said.contains("Server startup complete") {
                return true;
            }
            if child.try_wait().expect("a child to ask").is_some() {
                assert!(said.contains("cannot listen"), "it does not start: {said}");
                return false;
            }
            assert!(start.elapsed() < PATIENCE, "it does not start: {said}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A client with channel 1 open.
    pub fn client(&self) -> Client {
        Client::open(self.address, &Login::default())
    }

    /// A client, with channel 1 open, whose system takes little for it while it does not read.
    pub fn client_with_small_buffer(&self) -> Client {
        Client::open_with_small_buffer(self.address)
    }

    /// SIGKILL: it does not get to say or write anything.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a broker that runs");
        child.kill().expect("a process to kill");
        child.wait().expect("a process that ends");
    }

    /// SIGKILL, and a new start on what is left.
    pub fn crash(&mut self) {
        self.kill();
        self.spawn();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("a broker that runs").id();
        let sent = Command::new("kill").args([signal, &id.to_string()]).status();
        assert!(sent.expect("the kill command").success());
    }

    /// Waits for its end; whether it was a success.
    pub fn wait(&mut self) -> bool {
        let mut child = self.child.take().expect("a broker that runs");
        let mut success = None;
        eventually("the broker ends", || {
            success = child.try_wait().expect("a child to ask").map(|status| status.success());
            success.is_some()
        });
        success == Some(true)
    }

    /// SIGTERM, and a new start.
    pub fn restart(&mut self) {
        self.terminate();
        assert!(self.wait(), "it did not stop in order: {}", self.log());
        self.spawn();
    }

    /// Octets of memory it has resident.
    pub fn resident_bytes(&self) -> usize {
        let id = self.child.as_ref().expect("a broker that runs").id();
        let mut status = String::new();
        let file = std::fs::File::open(format!("/proc/{id}/status"));
        file.and_then(|mut f| f.read_to_string(&mut status)).expect("/proc");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<usize>().ok());
        kib.expect("a number of kB") * 1024
    }

    /// Tries a second broker on the same directory, and waits for its end.
    pub fn start_another(&self) -> Output {
        let mut second = command(&self.data_dir(), free_address());
        let mut child = second.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
        let start = Instant::now();
        while child.try_wait().expect("a child to ask").is_none() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        child.wait_with_output().expect("its output")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn command(data_dir: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_garenne"));
    command.arg("--data-dir").arg(data_dir).arg("--listen").arg(address.to_string());
    command.args(["--http", "none", "--metrics", "none"]);
    for name in ["GARENNE_CONFIG", "GARENNE_LOG", "GARENNE_DATA_DIR", "GARENNE_LISTEN"] {
        command.env_remove(name);
    }
    command
}

/// A port that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address")
}
