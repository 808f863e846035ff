//! A number for any bytes: the same in every run, on every machine and in every version, so that
//! messages keep to their queues when the broker is restarted.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::value::Value;

/// Bytes on their way to becoming a number: SipHash-1-3 with a key of zeros.
#[derive(Default)]
pub(crate) struct Digest(SipHasher13);

impl Digest {
    /// The number of some bytes.
    pub(crate) fn of(bytes: &[u8]) -> u64 {
        Self::default().with(bytes).number()
    }

    /// The number of a header or property: that of its bytes, or of what it reads as.
    pub(crate) fn of_value(value: &Value<'_>) -> u64 {
        if let Some(bytes) = value.as_bytes() {
            return Self::of(bytes);
        }
        let mut digest = Self::default();
        fmt::write(&mut digest, format_args!("{value}")).expect("a digest takes everything");
        digest.number()
    }

    /// The same with further bytes.
    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        self.0.write(bytes);
        self
    }

    pub(crate) fn number(&self) -> u64 {
        self.0.finish()
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Another number, as if drawn by lot: two that differ in one bit have nothing in common afterwards, and
/// no two become one (the last step of SplitMix64).
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_change() {
        assert_eq!(Digest::of(b""), 0xd1fb_a762_150c_532c);
        assert_eq!(Digest::of(b"jobs.urgent"), 0xe0505583d28178e4);
        assert_eq!(mix(1), 0x5692161d100b05e5);
    }

    #[test]
    fn bytes_count_the_same_in_one_piece_and_in_several() {
        assert_eq!(
            Digest::default().with(b"jobs").with(b"").with(b".urgent").number(),
            Digest::of(b"jobs.urgent")
        );
    }

    #[test]
    fn what_is_no_text_counts_as_it_reads() {
        assert_eq!(Digest::of_value(&Value::text("a")), Digest::of(b"a"));
        assert_eq!(Digest::of_value(&Value::Int(-5)), Digest::of(b"-5"));
        assert_eq!(Digest::of_value(&Value::Uint(5)), Digest::of_value(&Value::Int(5)));
        assert_eq!(Digest::of_value(&Value::Timestamp(1_700_000_000)), Digest::of(b"1700000000"));
        assert_ne!(Digest::of_value(&Value::Bool(true)), Digest::of_value(&Value::Bool(false)));
    }
}
