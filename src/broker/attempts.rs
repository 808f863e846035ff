//! Who tried to log in, from where, and how it went. Whoever fails again and again waits longer for the answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What somebody tries to log in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// A client.
    Amqp,
    /// The HTTP API.
    Http,
}

impl Protocol {
    /// Its name in RabbitMQ's API.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Amqp => "amqp091",
            Protocol::Http => "http",
        }
    }
}

/// How often it was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// With a user and password that we know.
    pub succeeded: u64,
    /// With others.
    pub failed: u64,
}

/// From where somebody tries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// The user, as it was given.
    pub user: String,
    /// With what.
    pub protocol: Protocol,
}

/// So many sources are remembered. When there are more, those that never failed are forgotten, and if that is
/// not enough, all.
const SOURCES_MAX: usize = 10_000;

/// A name that is longer is cut: it comes from anybody.
const USER_BYTES_MAX: usize = 255;

/// So many failures of an address within a time are answered at once.
const FREE_FAILURES: u32 = 3;
/// The wait after the first that is not; each further one doubles it.
const WAIT: Duration = Duration::from_millis(250);
/// Nobody waits longer: it would cost us more than the other.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Without a failure for so long an address is like any other.
const FORGIVEN_MS: u64 = 60_000;

/// All attempts since the start.
#[derive(Debug, Default)]
pub struct Attempts {
    // Short sections: once a login.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    protocols: HashMap<Protocol, Tries>,
    sources: HashMap<Source, Tries>,
    /// The failures of an address in a row, and when the last one was.
    failures: HashMap<IpAddr, (u32, u64)>,
}

impl Attempts {
    /// Counts a login that succeeded.
    pub fn succeeded(&self, address: IpAddr, user: &str, protocol: Protocol) {
        self.lock().count(address, user, protocol, |tries| tries.succeeded += 1);
    }

    /// Counts a login that failed. The answer is to wait so long.
    pub fn failed(&self, address: IpAddr, user: &str, protocol: Protocol, now_ms: u64) -> Duration {
        let mut inner = self.lock();
        inner.count(address, user, protocol, |tries| tries.failed += 1);
        if inner.failures.len() >= SOURCES_MAX {
            inner.failures.retain(|_, (_, at_ms)| now_ms.saturating_sub(*at_ms) < FORGIVEN_MS);
        }
        if inner.failures.len() >= SOURCES_MAX {
            inner.failures.clear();
        }
        let (failures, at_ms) = inner.failures.entry(address.to_canonical()).or_default();
        if now_ms.saturating_sub(*at_ms) >= FORGIVEN_MS {
            *failures = 0;
        }
        (*failures, *at_ms) = (failures.saturating_add(1), now_ms);
        match failures.checked_sub(FREE_FAILURES + 1) {
            None => Duration::ZERO,
            Some(beyond) => WAIT.saturating_mul(1 << beyond.min(16)).min(WAIT_MAX),
        }
    }

    /// How often it was tried, by protocol.
    pub fn by_protocol(&self) -> Vec<(Protocol, Tries)> {
        let mut all: Vec<_> = self.lock().protocols.iter().map(|(key, tries)| (*key, *tries)).collect();
        all.sort_by_key(|(protocol, _)| *protocol);
        all
    }

    /// How often it was tried, by source.
    pub fn by_source(&self) -> Vec<(Source, Tries)> {
        let mut all: Vec<_> = self.lock().sources.iter().map(|(key, tries)| (key.clone(), *tries)).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Begins to count by protocol anew.
    pub fn forget(&self) {
        self.lock().protocols.clear();
    }

    /// Begins to count by source anew.
    pub fn forget_sources(&self) {
        self.lock().sources.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count(&mut self, address: IpAddr, user: &str, protocol: Protocol, count: impl Fn(&mut Tries)) {
        count(self.protocols.entry(protocol).or_default());
        let end = (0..=user.len().min(USER_BYTES_MAX)).rfind(|&at| user.is_char_boundary(at)).unwrap_or(0);
        let source = Source { address: address.to_canonical(), user: user[..end].into(), protocol };
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            self.sources.retain(|_, tries| tries.failed > 0);
            if self.sources.len() >= SOURCES_MAX {
                self.sources.clear();
            }
        }
        count(self.sources.entry(source).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn attempts_are_counted_by_protocol_and_by_source() {
        let attempts = Attempts::default();
        attempts.succeeded(HERE, "anna", Protocol::Amqp);
        attempts.failed(HERE, "anna", Protocol::Amqp, 0);
        attempts.failed("::ffff:127.0.0.1".parse().unwrap(), "bert", Protocol::Http, 0);

        let by_protocol = attempts.by_protocol();
        assert_eq!(by_protocol[0], (Protocol::Amqp, Tries { succeeded: 1, failed: 1 }));
        let by_source = attempts.by_source();
        assert_eq!(by_source.len(), 2);
        assert_eq!((&*by_source[1].0.user, by_source[1].0.address), ("bert", HERE));
        attempts.forget();
        assert!(attempts.by_protocol().is_empty() && attempts.by_source().len() == 2);
    }

    #[test]
    fn who_fails_again_and_again_waits_longer_and_is_forgiven() {
        let attempts = Attempts::default();
        let mut fail = |now_ms| attempts.failed(HERE, "anna", Protocol::Amqp, now_ms);

        assert_eq!([fail(0), fail(1), fail(2)], [Duration::ZERO; 3]);
        assert_eq!((fail(3), fail(4)), (WAIT, 2 * WAIT));
        assert_eq!((5..100).map(&mut fail).max(), Some(WAIT_MAX));
        assert_eq!(fail(100 + FORGIVEN_MS), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let attempts = Attempts::default();
        for n in 0..2 * SOURCES_MAX as u32 {
            attempts.failed(IpAddr::from(n.to_be_bytes()), &"n".repeat(1000), Protocol::Http, 0);
        }

        let inner = attempts.lock();
        assert!(inner.sources.len() <= SOURCES_MAX && inner.failures.len() <= SOURCES_MAX);
        assert!(inner.sources.keys().all(|source| source.user.len() <= USER_BYTES_MAX));
    }
}
