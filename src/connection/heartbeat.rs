//! Heartbeats (specification 4.2.7): when to give a sign of life, and when to give up on a silent peer.

use std::time::{Duration, Instant};

/// The two clocks of a connection.
#[derive(Debug)]
pub struct Heartbeat {
    /// Zero turns both off.
    interval: Duration,
    last_sent: Instant,
    last_heard: Instant,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing.
    Rest,
    /// Send a heartbeat.
    Send,
    /// The peer has been silent for two intervals.
    Dead,
}

impl Heartbeat {
    /// With the interval that was agreed, in seconds.
    pub fn new(interval_secs: u16, now: Instant) -> Self {
        let interval = Duration::from_secs(interval_secs.into());
        Heartbeat { interval, last_sent: now, last_heard: now }
    }

    /// How often to look; `None` if heartbeats are off.
    pub fn period(&self) -> Option<Duration> {
        (!self.interval.is_zero()).then(|| self.interval / 4)
    }

    /// Something was written to the peer.
    pub fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// The peer gave a sign of life: it sent something, or took something.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// What is to be done at `now`.
    pub fn beat(&self, now: Instant) -> Beat {
        if self.interval.is_zero() {
            Beat::Rest
        } else if now - self.last_heard > 2 * self.interval {
            Beat::Dead
        } else if now - self.last_sent >= self.interval / 2 {
            Beat::Send
        } else {
            Beat::Rest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_goes_out_each_half_interval_and_two_of_silence_are_too_many() {
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        let mut heartbeat = Heartbeat::new(10, start);

        assert_eq!(heartbeat.beat(after(4)), Beat::Rest);
        assert_eq!(heartbeat.beat(after(5)), Beat::Send);
        heartbeat.sent(after(19));
        assert_eq!(heartbeat.beat(after(20)), Beat::Rest);
        assert_eq!(heartbeat.beat(after(21)), Beat::Dead);
        heartbeat.heard(after(21));
        assert_eq!(heartbeat.beat(after(22)), Beat::Rest);
    }

    #[test]
    fn an_interval_of_zero_turns_both_off() {
        let start = Instant::now();

        assert_eq!(Heartbeat::new(0, start).beat(start + Duration::from_secs(9999)), Beat::Rest);
        assert_eq!(Heartbeat::new(0, start).period(), None);
    }
}
