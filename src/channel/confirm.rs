//! Publisher confirms: which tags wait for which write to the store, and the acks in order.

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
}

impl Confirms {
    /// A message has been published.
    pub fn published(&mut self) {
        self.last_tag += 1;
    }

    /// The publishes since the last call are as safe as they can be once `ticket` is durable;
    /// `Ticket(0)` for those that the store never sees. They never overtake earlier ones.
    pub fn sent(&mut self, ticket: Ticket) {
        match self.waiting.back_mut() {
            Some((last, tag)) if ticket <= *last => *tag = self.last_tag,
            _ => self.waiting.push_back((ticket, self.last_tag)),
        }
    }

    /// What may be confirmed by now: one ack for all of it.
    pub fn take(&mut self, durable: Ticket) -> Option<Ack> {
        let before = self.confirmed;
        while self.waiting.front().is_some_and(|&(ticket, _)| ticket <= durable) {
            self.confirmed = self.waiting.pop_front().map_or(before, |(_, tag)| tag);
        }
        let confirmed = self.confirmed - before;
        (confirmed > 0).then_some(Ack { delivery_tag: self.confirmed, multiple: confirmed > 1 })
    }

    /// Whether something waits for the store.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(delivery_tag: u64, multiple: bool) -> Option<Ack> {
        Some(Ack { delivery_tag, multiple })
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
