//! What has come from a socket and has not been taken yet: much room while much comes, none while nothing
//! does.

use std::io;

use bytes::BytesMut;

/// Room made for a read of a busy connection, and of one that says little.
pub const ROOM_BYTES_MAX: usize = 128 * 1024;
const ROOM_BYTES_MIN: usize = 4 * 1024;

/// A buffer that is let go while the connection is idle.
pub struct Inlet {
    pub bytes: BytesMut,
    /// Room made for the next read.
    room_bytes: usize,
}

impl Inlet {
    /// Goes on with what was read and not taken during the handshake.
    pub fn new(bytes: BytesMut) -> Inlet {
        Inlet { bytes, room_bytes: ROOM_BYTES_MIN }
    }

    /// Makes room and lets `read` fill it. A buffer that nothing has come into is let go.
    pub fn fill(&mut self, read: impl FnOnce(&mut BytesMut) -> io::Result<usize>) -> io::Result<usize> {
        if self.bytes.capacity() - self.bytes.len() < self.room_bytes / 8 {
            self.bytes.reserve(self.room_bytes);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let read = read(&mut self.bytes);
        match &read {
            Ok(n) => self.learn(*n, room),
            Err(_) if self.bytes.is_empty() => self.bytes = BytesMut::new(),
            Err(_) => {}
        }
        read
    }

    fn learn(&mut self, read: usize, room: usize) {
        if read == room {
            self.room_bytes = ROOM_BYTES_MAX;
        } else if read < ROOM_BYTES_MIN / 4 {
            self.room_bytes = ROOM_BYTES_MIN;
        }
    }
}
