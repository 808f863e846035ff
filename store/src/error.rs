//! What can go wrong in the store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why the store could not do what was asked. Its text names the thing and the next step.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// Another process holds this data directory.
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data was written by a version this one does not know.
    Version {
        /// The file that says so.
        path: PathBuf,
        /// The format number found there.
        found: u32,
        /// The format number this version reads and writes.
        supported: u32,
    },
    /// A file that cannot be rebuilt from others makes no sense.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The state database (sled) failed.
    State {
        /// Its directory.
        path: PathBuf,
        /// Its reason.
        reason: String,
    },
    /// There is no store in this directory.
    NoData {
        /// The directory.
        dir: PathBuf,
    },
    /// A backup cannot be written there.
    Backup {
        /// The directory it was to be in.
        dir: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A write or a sync failed earlier; nothing after it is safe.
    Poisoned,
    /// The store was closed before this could be written.
    Closed,
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_owned(), source }
    }

    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Error::Io { source, .. } => source,
            other => io::Error::other(other),
        }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Error {
        Error::Corrupt { path: path.to_owned(), reason: reason.into() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Io { path, source } => write!(
                f,
                "{}: {source}; check that the disk is healthy, has space, and that the broker may write there",
                path.display()
            ),
            Error::Locked { dir } => write!(
                f,
                "data directory {} is in use by another process; stop that one, or give this one another directory",
                dir.display()
            ),
            Error::Version { path, found, supported } => write!(
                f,
                "{} has format {found}, this version knows format {supported}; start the version that wrote it",
                path.display()
            ),
            Error::Corrupt { path, reason } => write!(
                f,
                "{} cannot be read: {reason}; restore it from a backup, or move it aside",
                path.display()
            ),
            Error::State { path, reason } => write!(
                f,
                "state database {}: {reason}; restart to have it rebuilt from the log",
                path.display()
            ),
            Error::NoData { dir } => {
                write!(f, "{} is no data directory: it has no file VERSION; look at the path", dir.display())
            }
            Error::Backup { dir, reason } => write!(f, "no backup in {}: {reason}", dir.display()),
            Error::Poisoned => write!(
                f,
                "an earlier write or sync failed, so nothing can be made durable; restart the broker"
            ),
            Error::Closed => write!(f, "the store is closed; open it again"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
