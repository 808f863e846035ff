//! Which queues must have what was sent, and what is missing there.

use crate::ledger::Ledger;
use crate::topology::Topology;

/// Which queues get what was sent.
pub struct Routes {
    /// By stream: how many messages, and which queues must have them.
    streams: Vec<(u64, Vec<usize>)>,
}

impl Routes {
    /// Follows `sent` messages of each stream through the bindings.
    pub fn new(topology: &Topology, sent: Vec<u64>) -> Routes {
        let reaches: Vec<Vec<usize>> =
            (0..topology.keys.len()).map(|key| topology.reaches(key).into_iter().collect()).collect();
        let stream = |(stream, sent): (usize, u64)| (sent, reaches[stream % reaches.len()].clone());
        Routes { streams: sent.into_iter().enumerate().map(stream).collect() }
    }

    /// How many deliveries there must be in all.
    pub fn deliveries(&self) -> u64 {
        self.streams.iter().map(|(sent, queues)| sent * queues.len() as u64).sum()
    }

    /// How many deliveries are missing, and how many came out of a queue that they should not be in.
    pub fn faults(&self, ledgers: &[Ledger]) -> (u64, u64) {
        let (mut lost, mut rightly_there) = (0, 0);
        for (stream, (sent, queues)) in self.streams.iter().enumerate() {
            for &queue in queues {
                let came = ledgers[queue].count(stream);
                lost += sent.saturating_sub(came);
                rightly_there += came.min(*sent);
            }
        }
        (lost, ledgers.iter().map(Ledger::total).sum::<u64>() - rightly_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;

    fn ledger(messages: &[(u16, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        for &(stream, number) in messages {
            ledger.see(Stamp { stream, number });
        }
        ledger
    }

    #[test]
    fn what_is_missing_is_lost_and_what_is_elsewhere_is_misrouted() {
        // Stream 0 goes to both queues, stream 1 to the second.
        let routes = Routes { streams: vec![(2, vec![0, 1]), (1, vec![1])] };
        assert_eq!(routes.deliveries(), 5);

        let good = [ledger(&[(0, 0), (0, 1)]), ledger(&[(0, 0), (1, 0), (0, 1)])];
        assert_eq!(routes.faults(&good), (0, 0));

        let bad = [ledger(&[(0, 0), (1, 0)]), ledger(&[(0, 0), (0, 1)])];
        assert_eq!(routes.faults(&bad), (2, 1));
    }
}
