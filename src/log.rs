//! The log: text or JSON, to the standard output or a file, at a level that can be changed while the
//! broker runs.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

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
    registry.with(layer).try_init().map_err(|e| e.to_string())?;
    let level = Level { filter: handle, file };
    Ok(LEVEL.get_or_init(|| level).clone())
}

/// The log of this process, if [`init`] has opened it.
pub fn level() -> Option<&'static Level> {
    LEVEL.get()
}

impl Level {
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
