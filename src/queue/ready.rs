//! The messages of a queue that wait for a consumer, in order, and which of them are due to expire.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use store::Seq;

use crate::delivery::Entry;

/// Ready messages. New ones come in at the back; returned ones go back to their old place.
///
/// Nearly all messages only ever see `line`: in at the back, out at the front. What comes out of turn
/// (a requeue, a commit that waited for its sync) stands in `returned` until the line gets there.
#[derive(Debug, Default)]
pub struct Ready {
    line: VecDeque<Slot>,
    returned: BTreeMap<Seq, Entry>,
    /// Empty slots in `line`, left by messages that expired in the middle.
    gaps: usize,
    /// When each message with a time to live is due. Messages without one are not here.
    due: BTreeSet<(u64, Seq)>,
}

/// So many empty slots are not worth tidying up.
const GAPS_MIN: usize = 1024;

#[derive(Debug)]
struct Slot {
    seq: Seq,
    entry: Option<Entry>,
}

impl Ready {
    /// How many messages are ready.
    pub fn len(&self) -> usize {
        self.line.len() - self.gaps + self.returned.len()
    }

    /// Whether none is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a new message, or puts one back at its place.
    pub fn insert(&mut self, entry: Entry) {
        if entry.expires_at_ms != u64::MAX {
            self.due.insert((entry.expires_at_ms, entry.seq));
        }
        if self.line.back().is_none_or(|last| last.seq < entry.seq) {
            self.line.push_back(Slot { seq: entry.seq, entry: Some(entry) });
        } else {
            self.returned.insert(entry.seq, entry);
        }
    }

    /// Takes the first message.
    pub fn pop(&mut self) -> Option<Entry> {
        self.drop_front_gaps();
        let line_front = self.line.front().map(|slot| slot.seq);
        let returned_front = self.returned.keys().next().copied();
        let from_line = match (line_front, returned_front) {
            (None, None) => return None,
            (Some(line), Some(returned)) => line < returned,
            (line, _) => line.is_some(),
        };
        let entry = if from_line {
            self.line.pop_front().and_then(|slot| slot.entry)
        } else {
            self.returned.pop_first().map(|(_, entry)| entry)
        }?;
        self.forget(&entry);
        Some(entry)
    }

    /// Takes everything, in order.
    pub fn drain(&mut self) -> Vec<Entry> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// When the next message is due to expire.
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|&(at_ms, _)| at_ms)
    }

    /// Takes a message that is due by `now_ms`, in the order in which they are due.
    pub fn pop_expired(&mut self, now_ms: u64) -> Option<Entry> {
        let &(at_ms, seq) = self.due.first()?;
        if at_ms > now_ms {
            return None;
        }
        let entry = match self.returned.remove(&seq) {
            Some(entry) => entry,
            None => self.take_from_line(seq),
        };
        self.forget(&entry);
        Some(entry)
    }

    fn take_from_line(&mut self, seq: Seq) -> Entry {
        let at = self.line.binary_search_by_key(&seq, |slot| slot.seq);
        let slot = &mut self.line[at.expect("a due message is ready")];
        let entry = slot.entry.take().expect("a due message is there");
        self.gaps += 1;
        self.drop_front_gaps();
        if self.gaps > GAPS_MIN && self.gaps > self.line.len() / 2 {
            // One old message at the front must not keep the places of all that expired behind it.
            self.line.retain(|slot| slot.entry.is_some());
            self.gaps = 0;
        }
        entry
    }

    fn drop_front_gaps(&mut self) {
        while self.gaps > 0 && self.line.front().is_some_and(|slot| slot.entry.is_none()) {
            self.line.pop_front();
            self.gaps -= 1;
        }
    }

    fn forget(&mut self, entry: &Entry) {
        if entry.expires_at_ms != u64::MAX {
            self.due.remove(&(entry.expires_at_ms, entry.seq));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::message::Message;
    use bytes::Bytes;
    use std::sync::Arc;

    pub(crate) fn entry(seq: u64, expires_at_ms: u64) -> Entry {
        let message = Message::from_parts(
            amqp::method::address("", "q").into(),
            Bytes::from_static(&[0x10, 0, 2]),
            Bytes::from(seq.to_string()),
            0,
        );
        Entry {
            seq: Seq(seq),
            redelivered: false,
            stored: true,
            expires_at_ms,
            message: Arc::new(message.unwrap()),
        }
    }

    fn seqs(ready: &mut Ready) -> Vec<u64> {
        ready.drain().into_iter().map(|e| e.seq.0).collect()
    }

    #[test]
    fn a_returned_message_is_first_again() {
        let mut ready = Ready::default();
        (1..=4).for_each(|seq| ready.insert(entry(seq, u64::MAX)));
        let first = ready.pop().unwrap();
        let second = ready.pop().unwrap();

        ready.insert(second);
        ready.insert(first);

        assert_eq!(ready.len(), 4);
        assert_eq!(seqs(&mut ready), [1, 2, 3, 4]);
    }

    #[test]
    fn a_message_that_comes_late_stands_where_its_number_says() {
        let mut ready = Ready::default();
        [1, 3, 4].into_iter().for_each(|seq| ready.insert(entry(seq, u64::MAX)));

        ready.insert(entry(2, u64::MAX));

        assert_eq!(seqs(&mut ready), [1, 2, 3, 4]);
    }

    #[test]
    fn messages_expire_when_due_wherever_they_stand() {
        let mut ready = Ready::default();
        let messages = [(1, u64::MAX), (2, 50), (3, 10), (4, 30)];
        messages.into_iter().for_each(|(seq, at)| ready.insert(entry(seq, at)));

        assert_eq!(ready.next_due(), Some(10));
        assert_eq!(ready.pop_expired(9).map(|e| e.seq), None);
        assert_eq!(ready.pop_expired(30).map(|e| e.seq), Some(Seq(3)));
        assert_eq!(ready.pop_expired(30).map(|e| e.seq), Some(Seq(4)));
        assert_eq!(ready.pop_expired(30).map(|e| e.seq), None);
        assert_eq!(ready.len(), 2);
        assert_eq!(seqs(&mut ready), [1, 2]);
        assert_eq!(ready.next_due(), None);
    }
}
