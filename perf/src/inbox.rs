//! A receive buffer that gives out whole frames in place.

use std::io::{self, Read};

use amqp::frame::{self, Frame, Frames};
use amqp::limits::FRAME_BYTES_MAX;

/// Twice the largest frame we agree to, so that one always fits behind the rest of another.
const CAPACITY: usize = 2 * FRAME_BYTES_MAX as usize;

/// Bytes that came and were not yet taken.
///
/// ```text
/// 0        start            end          CAPACITY
/// |  taken   |  not yet taken  |   free    |
/// ```
pub struct Inbox {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// An empty one. Its memory is the system's until it is used.
    pub fn new() -> Self {
        Inbox { bytes: vec![0; CAPACITY].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Reads once. 0 is the end of the stream.
    pub fn read_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let n = source.read(&mut self.bytes[self.end..])?;
        self.end += n;
        Ok(n)
    }

    /// Takes all whole frames. An error is told when nothing stands before it.
    pub fn take_frames(&mut self) -> Result<Frames<'_>, frame::Error> {
        let (n, error) = frame::whole(&self.bytes[self.start..self.end], FRAME_BYTES_MAX);
        if let (0, Some(error)) = (n, error) {
            return Err(error);
        }
        let at = self.start;
        self.start += n;
        Ok(Frames::new(&self.bytes[at..at + n]))
    }

    /// Takes one whole frame and leaves the rest for later.
    pub fn take_frame(&mut self) -> Result<Option<Frame<'_>>, frame::Error> {
        let waiting = &self.bytes[self.start..self.end];
        let expected = frame::expected_bytes(waiting).unwrap_or(0);
        let first = &waiting[..expected.min(waiting.len())];
        let (n, error) = frame::whole(first, FRAME_BYTES_MAX);
        if let Some(error) = error {
            return Err(error);
        }
        let at = self.start;
        self.start += n;
        Ok(Frames::new(&self.bytes[at..at + n]).next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn three_frames() -> BytesMut {
        let mut out = BytesMut::new();
        frame::put_body(&mut out, 1, b"one");
        frame::put_heartbeat(&mut out);
        frame::put_body(&mut out, 2, b"three");
        out
    }

    #[test]
    fn frames_cut_anywhere_come_out_whole_and_in_order() {
        let stream = three_frames();

        for cut in 0..=stream.len() {
            let (mut inbox, mut got) = (Inbox::new(), Vec::new());
            for mut part in [&stream[..cut], &stream[cut..]] {
                inbox.read_from(&mut part).unwrap();
                got.extend(inbox.take_frames().unwrap().map(|f| (f.channel, f.payload.to_vec())));
            }
            let expected = [(1, b"one".to_vec()), (0, vec![]), (2, b"three".to_vec())];
            assert_eq!(got, expected, "cut at {cut}");
        }
    }

    #[test]
    fn one_frame_is_taken_and_the_others_wait() {
        let (mut inbox, stream) = (Inbox::new(), three_frames());
        inbox.read_from(&mut &stream[..]).unwrap();

        assert_eq!(inbox.take_frame().unwrap().unwrap().payload, b"one");
        assert_eq!(inbox.take_frames().unwrap().count(), 2);
        assert_eq!(inbox.take_frame().unwrap(), None);
    }

    #[test]
    fn bytes_that_are_no_frame_are_an_error_behind_the_good_ones() {
        let mut inbox = Inbox::new();
        let mut stream = three_frames();
        stream.extend_from_slice(b"AMQP\x00\x00\x09\x01");
        inbox.read_from(&mut &stream[..]).unwrap();

        assert_eq!(inbox.take_frames().unwrap().count(), 3);
        assert!(inbox.take_frames().is_err());
        assert!(inbox.take_frame().is_err());
    }
}
