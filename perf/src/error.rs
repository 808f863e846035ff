//! What can go wrong between us and a broker, with the words that tell which one and why.

use std::{fmt, io};

/// An ending that is not the planned one.
#[derive(Debug)]
pub enum Error {
    /// What was asked for cannot be done.
    Usage(String),
    /// The socket failed.
    Io {
        /// Host and port.
        address: String,
        /// What was being done: `connecting`, `reading` …
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The broker closed the connection or the channel.
    Closed {
        /// Host and port.
        address: String,
        /// The broker's code.
        code: u16,
        /// The broker's text.
        text: String,
    },
    /// The broker said something that has no place here.
    Unexpected {
        /// Host and port.
        address: String,
        /// What it was.
        what: String,
    },
    /// Nothing moved any more.
    Stalled(String),
    /// A file or /proc could not be read or written.
    File {
        /// Which one.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A result that names the broker if it is none.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) | Error::Stalled(text) => f.write_str(text),
            Error::Io { address, doing, source } => write!(f, "{address}: {doing}: {source}"),
            Error::Closed { address, code, text } => write!(f, "{address} closed: {code} {text}"),
            Error::Unexpected { address, what } => write!(f, "{address}: unexpected {what}"),
            Error::File { path, source } => write!(f, "{path}: {source}"),
        }
    }
}

impl std::error::Error for Error {}
