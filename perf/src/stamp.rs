//! What a message carries in its body: which stream it belongs to, its number there, when it was sent.
//!
//! ```text
//! 0        2            8                  16
//! +--------+------------+------------------+----- - -
//! | stream |   number   |  sent at, in ns  |  filling
//! |  u16   |    u48     |       u64        |
//! +--------+------------+------------------+----- - -
//! ```
//!
//! A body of less than 16 octets has no time, one of less than 8 nothing at all: its messages are only
//! counted. Nanoseconds count from the start of the process, so latencies are known only to the process
//! that publishes.

/// Octets that a whole stamp takes.
pub const BYTES: usize = 16;

/// Octets of stream and number alone.
const BYTES_WITHOUT_TIME: usize = 8;

/// The number of a message within its stream has 48 bits.
const NUMBER_BITS: u32 = 48;

/// One message among all of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The stream (topology.rs).
    pub stream: u16,
    /// Its number there, from 0.
    pub number: u64,
}

/// Writes as much of a stamp as fits at the front of `body`.
#[inline]
pub fn write(body: &mut [u8], stamp: Stamp, sent_at_ns: u64) {
    if let Some(place) = body.first_chunk_mut::<BYTES_WITHOUT_TIME>() {
        *place = (u64::from(stamp.stream) << NUMBER_BITS | stamp.number).to_be_bytes();
    }
    if let Some(place) = body.get_mut(BYTES_WITHOUT_TIME..BYTES) {
        place.copy_from_slice(&sent_at_ns.to_be_bytes());
    }
}

/// Reads a stamp and the time of sending, so far as they are there.
#[inline]
pub fn read(body: &[u8]) -> Option<(Stamp, Option<u64>)> {
    let (word, rest) = body.split_first_chunk()?;
    let word = u64::from_be_bytes(*word);
    let stamp = Stamp { stream: (word >> NUMBER_BITS) as u16, number: word & ((1 << NUMBER_BITS) - 1) };
    Some((stamp, rest.first_chunk().map(|time| u64::from_be_bytes(*time))))
}

/// Whether messages of this size can be told apart.
pub fn fits(body_bytes: usize) -> bool {
    body_bytes >= BYTES_WITHOUT_TIME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written_so_far_as_it_fits() {
        let stamp = Stamp { stream: 65_535, number: (1 << 48) - 1 };

        for size in 0..40 {
            let mut body = vec![0; size];
            write(&mut body, stamp, 77);
            let expected = match size {
                0..8 => None,
                8..16 => Some((stamp, None)),
                _ => Some((stamp, Some(77))),
            };
            assert_eq!(read(&body), expected, "{size} octets");
        }
    }
}
