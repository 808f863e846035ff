//! Publisher confirms: which tags wait for which write to the store, and the acks and nacks in order.

use std::collections::VecDeque;

use amqp::method::Ack;
use store::Ticket;

/// The publishes of a channel in confirm mode.
#[derive(Debug, Default)]
pub struct Confirms {
    /// The last publish's number; the first one is 1.
    last_tag: u64,
    /// All up to here are confirmed.
    confirmed: u64,
    /// Tags up to the second are confirmed once the first is durable. Both only grow.
    waiting: VecDeque<(Ticket, u64)>,
    /// Tags of messages that a queue had no room for, in order.
    refused: VecDeque<u64>,
}

/// What a publisher hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These messages are safe.
    Ack(Ack),
    /// A queue has refused this one.
    Nack(u64),
}

impl Confirms {
    /// A message has been published; its tag.
    pub fn published(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// The number of the last publish.
    pub fn last_tag(&self) -> u64 {
        self.last_tag
    }

    /// A queue has no room for this message. Tags come in order.
    pub fn refused(&mut self, tag: u64) {
        self.refused.push_back(tag);
    }

    /// The publishes since the last call are as safe as they can be once `ticket` is durable;
    /// `Ticket(0)` for those that the store never sees. They never overtake earlier ones.
    pub fn sent(&mut self, ticket: Ticket) {
        match self.waiting.back_mut() {
            Some((last, tag)) if ticket <= *last => *tag = self.last_tag,
            _ => self.waiting.push_back((ticket, self.last_tag)),
        }
    }

    /// What may be told by now, next part of it: one ack for all of it, unless something was refused.
    pub fn take(&mut self, durable: Ticket) -> Option<Verdict> {
        let before = self.confirmed;
        while let Some(&(_, tag)) = self.waiting.front().filter(|(ticket, _)| *ticket <= durable) {
            match self.refused.front() {
                Some(&refused) if refused == self.confirmed + 1 && self.confirmed == before => {
                    self.refused.pop_front();
                    self.reach(refused, tag);
                    return Some(Verdict::Nack(refused));
                }
                Some(&refused) if refused <= tag => {
                    self.confirmed = refused - 1;
                    break;
                }
                _ => self.reach(tag, tag),
            }
        }
        let confirmed = self.confirmed - before;
        let ack = Ack { delivery_tag: self.confirmed, multiple: confirmed > 1 };
        (confirmed > 0).then_some(Verdict::Ack(ack))
    }

    /// All up to `tag` are told, of a group that ends at `last`.
    fn reach(&mut self, tag: u64, last: u64) {
        self.confirmed = tag;
        if tag == last {
            self.waiting.pop_front();
        }
    }

    /// Whether something waits for the store.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(delivery_tag: u64, multiple: bool) -> Option<Verdict> {
        Some(Verdict::Ack(Ack { delivery_tag, multiple }))
    }

    #[test]
    fn a_refused_message_is_nacked_between_the_acks_of_the_others() {
        let mut confirms = Confirms::default();
        let last = (0..6).map(|_| confirms.published()).last();
        assert_eq!(last, Some(6));
        [1, 4, 5].into_iter().for_each(|tag| confirms.refused(tag));
        confirms.sent(Ticket(1));
        confirms.published();
        confirms.refused(7);
        confirms.sent(Ticket(2));

        assert_eq!(confirms.take(Ticket(0)), None);
        let told: Vec<Verdict> = std::iter::from_fn(|| confirms.take(Ticket(1))).collect();
        let nack = |tag| Some(Verdict::Nack(tag));
        let expected = [nack(1), ack(3, true), nack(4), nack(5), ack(6, false)];
        assert_eq!(told, expected.map(Option::unwrap));
        assert!(confirms.is_waiting());
        assert_eq!((confirms.take(Ticket(2)), confirms.take(Ticket(2))), (nack(7), None));
        assert!(!confirms.is_waiting());
    }

    #[test]
    fn what_is_durable_is_confirmed_at_once_and_in_order() {
        let mut confirms = Confirms::default();
        confirms.published();
        confirms.sent(Ticket(1));
        confirms.published();
        confirms.published();
        confirms.sent(Ticket(2));

        assert_eq!(confirms.take(Ticket(0)), None);
        assert_eq!(confirms.take(Ticket(1)), ack(1, false));
        assert_eq!(confirms.take(Ticket(2)), ack(3, true));
        assert!(!confirms.is_waiting());
    }

    #[test]
    fn a_transient_message_does_not_overtake_a_persistent_one() {
        let mut confirms = Confirms::default();
        confirms.published();
        confirms.sent(Ticket(5));
        confirms.published();
        confirms.sent(Ticket(0));

        assert_eq!(confirms.take(Ticket(4)), None);
        assert_eq!(confirms.take(Ticket(5)), ack(2, true));
    }
}
