//! A connection under load: a socket that never blocks, with what came and what shall go.

use std::io::{self, Write};
use std::net::TcpStream;

use bytes::BytesMut;

use crate::error::{Error, Result};
use crate::inbox::Inbox;
use crate::session::{Session, closed, hung_up, io_error};

/// See the head of the file.
pub struct Line {
    /// What came.
    pub inbox: Inbox,
    /// What shall go. Cleared once all of it is written.
    pub outbox: BytesMut,
    /// Host and port, for errors.
    pub address: String,
    stream: TcpStream,
    written: usize,
    frame_bytes_max: u32,
}

impl Line {
    /// Takes over a logged-in connection.
    pub fn new(session: Session) -> Result<Line> {
        let Session { stream, address, inbox, frame_bytes_max } = session;
        stream.set_nonblocking(true).map_err(io_error(&address, "opening"))?;
        Ok(Line { inbox, outbox: BytesMut::new(), address, stream, written: 0, frame_bytes_max })
    }

    /// The socket, to wait for.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether all that shall go is gone.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Reads once; whether anything came.
    pub fn receive(&mut self) -> Result<bool> {
        match self.inbox.read_from(&mut self.stream) {
            Ok(0) => Err(hung_up(&self.address)),
            Ok(_) => Ok(true),
            Err(error) if is_later(&error) => Ok(false),
            Err(error) => Err(io_error(&self.address, "reading")(error)),
        }
    }

    /// Writes as much as the socket takes; whether that was all.
    pub fn flush(&mut self) -> Result<bool> {
        while self.written < self.outbox.len() {
            match self.stream.write(&self.outbox[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if is_later(&error) => return Ok(false),
                Err(error) => return Err(self.last_words(error)),
            }
        }
        self.outbox.clear();
        self.written = 0;
        Ok(true)
    }

    /// Why a write failed: a broker says so before it hangs up.
    fn last_words(&mut self, error: io::Error) -> Error {
        while let Ok(true) = self.receive() {
            for frame in self.inbox.take_frames().into_iter().flatten() {
                if let Some(reason) = closed(&self.address, frame.payload) {
                    return reason;
                }
            }
        }
        io_error(&self.address, "writing")(error)
    }

    /// Says goodbye and waits until the broker has done all that was sent before.
    pub fn close(self) -> Result<()> {
        let Line { inbox, address, stream, frame_bytes_max, .. } = self;
        stream.set_nonblocking(false).map_err(io_error(&address, "closing"))?;
        Session { stream, address, inbox, frame_bytes_max }.close()
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
