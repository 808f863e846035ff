//! What can be done with a data directory that no broker uses: `verify` looks whether it is whole, `dump` prints what
//! is in it. Neither changes anything. Both `garenne` and `garennectl` have them.

mod contents;
mod dump;
mod export;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// There is damage, or something could not be read.
const DAMAGED: u8 = 1;
/// It could not be looked at.
const FAILED: u8 = 2;

/// A look into a data directory.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Looks whether a data directory, or a backup, is whole: every record, every message, every definition.
    ///
    /// It changes nothing. No broker may use the directory meanwhile: look at a backup of it instead. The exit
    /// code is 0 when it is whole, 1 when it is damaged, 2 when it cannot be looked at.
    ///
    /// Example: garenne verify /srv/backup/monday
    Verify(Verify),
    /// Prints what is in a data directory, or a backup: a line of JSON for each queue and each message.
    ///
    /// It changes nothing. No broker may use the directory meanwhile: look at a backup of it instead.
    ///
    /// Example: garenne dump /srv/backup/monday --queue orders --bodies
    Dump(Dump),
}

/// What is to be verified.
#[derive(Debug, Args)]
pub struct Verify {
    /// The data directory.
    dir: PathBuf,
}

/// What is to be printed.
#[derive(Debug, Args)]
pub struct Dump {
    /// The data directory.
    dir: PathBuf,
    /// Only this queue.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// The vhost: of the queue, or all of it.
    #[arg(long, short = 'V', value_name = "VHOST")]
    vhost: Option<String>,
    /// Bodies as well: as text where they are text, else in base64.
    #[arg(long)]
    bodies: bool,
    /// Only the definitions, as `GET /api/definitions` and `garennectl definitions export` give them.
    #[arg(long, conflicts_with_all = ["queue", "vhost", "bodies"])]
    definitions: bool,
}

/// Why a directory cannot be looked at, or what was found cannot be told.
#[derive(Debug)]
enum Error {
    /// A queue that is not there, or what else is wrong with the question.
    Asked(String),
    Store(store::Error),
    /// Whoever reads has seen enough.
    Read,
    Output(std::io::Error),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        Error::Store(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Error::Read,
            _ => Error::Output(error),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Asked(reason) => f.write_str(reason),
            Error::Store(store::Error::Locked { dir }) => write!(
                f,
                "a broker uses {}; make a backup (garennectl backup --path DIR) and look at that, or stop the broker",
                dir.display()
            ),
            Error::Store(error) => error.fmt(f),
            Error::Read => f.write_str("nobody reads any more"),
            Error::Output(error) => write!(f, "it cannot be printed: {error}"),
        }
    }
}

/// Does it, prints it, and says how it ended.
pub fn run(tool: &Tool) -> ExitCode {
    let done = match tool {
        Tool::Verify(asked) => verify::run(asked),
        Tool::Dump(asked) => dump::run(asked),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Err(Error::Read) if matches!(tool, Tool::Dump(_)) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DAMAGED),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(FAILED)
        }
    }
}
