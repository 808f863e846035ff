//! The log: text or JSON, to the standard output or a file, at a level that can be changed while the
//! broker runs.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Config, LogFormat};

/// There is one log in a process.
static LEVEL: OnceLock<Level> = OnceLock::new();

/// What is logged, to be changed at any time.
#[derive(Clone, Debug)]
pub struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
    file: Option<Paper>,
    ear: Ear,
}

/// Hears lines as they are logged: the level, as RabbitMQ names it, and the line.
pub type Listener = Box<dyn Fn(&'static str, String) + Send + Sync>;

/// Where a listener can be put, once.
#[derive(Clone, Default)]
struct Ear(Arc<OnceLock<Listener>>);

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ear")
    }
}

thread_local! {
    static IS_UNHEARD: Cell<bool> = const { Cell::new(false) };
}

/// Does something of which no listener hears, though it is logged.
pub fn unheard<T>(what: impl FnOnce() -> T) -> T {
    IS_UNHEARD.set(true);
    let done = what();
    IS_UNHEARD.set(false);
    done
}

/// Opens the log.
///
/// # Errors
/// What is wrong with its filter or its file; or that it is open already.
pub fn init(config: &Config) -> Result<Level, String> {
    let (filter, handle) = reload::Layer::new(parse(&config.log)?);
    let file = config.log_file.clone().map(Paper::open).transpose()?;
    let registry = tracing_subscriber::registry().with(filter);
    let writer = file.clone().map_or(Sink::Output, Sink::Paper);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match config.log_format {
        LogFormat::Text if file.is_some() => layer.with_ansi(false).boxed(),
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let ear = Ear::default();
    let heard = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(ear.clone());
    registry.with(layer).with(heard).try_init().map_err(|e| e.to_string())?;
    let level = Level { filter: handle, file, ear };
    Ok(LEVEL.get_or_init(|| level).clone())
}

/// The log of this process, if [`init`] has opened it.
pub fn level() -> Option<&'static Level> {
    LEVEL.get()
}

impl Level {
    /// Has somebody hear every line from now on; the first one who asks.
    pub fn listen(&self, listener: Listener) {
        // There is one broker in a process that has a log.
        let _ = self.ear.0.set(listener);
    }

    /// Logs what this filter lets through from now on: `debug`, or `info,garenne=debug`.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        self.filter.reload(parse(filter)?).map_err(|e| e.to_string())
    }

    /// What is logged.
    pub fn get(&self) -> String {
        self.filter.with_current(EnvFilter::to_string).unwrap_or_default()
    }

    /// Opens the file anew: somebody has moved it away.
    ///
    /// # Errors
    /// Why it cannot be opened; then the old one is written on.
    pub fn reopen(&self) -> Result<(), String> {
        self.file.as_ref().map_or(Ok(()), Paper::reopen)
    }
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter)
        .map_err(|e| format!("log '{filter}' is no filter: {e}; try info or garenne=debug"))
}

/// A file that is appended to.
#[derive(Clone, Debug)]
struct Paper {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl Paper {
    fn open(path: PathBuf) -> Result<Paper, String> {
        let file = open(&path)?;
        Ok(Paper { path, file: Arc::new(Mutex::new(file)) })
    }

    fn reopen(&self) -> Result<(), String> {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = open(&self.path)?;
        Ok(())
    }
}

fn open(path: &PathBuf) -> Result<File, String> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| format!("log_file: {}: {e}", dir.display()))?;
    }
    let file = File::options().create(true).append(true).open(path);
    file.map_err(|e| format!("log_file: {}: {e}", path.display()))
}

impl<'a> MakeWriter<'a> for Ear {
    type Writer = Heard<'a>;

    fn make_writer(&'a self) -> Heard<'a> {
        Heard { listener: None, level: "info", line: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Heard<'a> {
        let level = match *meta.level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warning",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
        };
        let listener = self.0.get().filter(|_| !IS_UNHEARD.get());
        Heard { listener, level, line: Vec::new() }
    }
}

/// A line while it is put together; whoever listens hears it when it is whole.
struct Heard<'a> {
    listener: Option<&'a Listener>,
    level: &'static str,
    line: Vec<u8>,
}

impl Write for Heard<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.listener.is_some() {
            self.line.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        if let Some(listener) = self.listener {
            listener(self.level, String::from_utf8_lossy(&self.line).into_owned());
        }
    }
}

/// Where lines go.
enum Sink {
    Output,
    Paper(Paper),
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Box<dyn Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match self {
            Sink::Output => Box::new(io::stdout()),
            // A line is one write, so that lines of two threads do not mix.
            Sink::Paper(paper) => Box::new(Line(paper.file.lock().unwrap_or_else(PoisonError::into_inner))),
        }
    }
}

/// The file while a line is written.
struct Line<'a>(MutexGuard<'a, File>);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs").join("garenne.log");
        let paper = Paper::open(path.clone()).unwrap();
        let sink = Sink::Paper(paper.clone());
        sink.make_writer().write_all(b"one\n").unwrap();

        std::fs::rename(&path, dir.path().join("old")).unwrap();
        paper.reopen().unwrap();
        sink.make_writer().write_all(b"two\n").unwrap();

        assert_eq!(std::fs::read_to_string(dir.path().join("old")).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }

    #[test]
    fn a_bad_filter_is_told() {
        assert!(parse("info,garenne=loud").unwrap_err().contains("is no filter"));
    }
}
