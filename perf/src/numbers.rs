//! Which numbers of a sequence have been seen: everything below a line, and a few bits above it.

use std::collections::VecDeque;

/// How far ahead of the line a number is believed, in words of 64. What is further away was not numbered
/// by us, and may not cost memory.
const WORDS_MAX: u64 = 1 << 24;

/// What is new about a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It came for the first time.
    New,
    /// It has come before.
    Again,
    /// It is too far away to be one of ours.
    TooFar,
}

/// A set of numbers that come nearly in order.
///
/// ```text
/// seen   seen   seen | next: missing   ahead: 0 1 1 0 1 …
/// ```
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Every number below was seen, this one was not.
    next: u64,
    /// Bits of the numbers from the word of `next` on. Empty while nothing is ahead, which is nearly
    /// always; its last word is never 0.
    ahead: VecDeque<u64>,
}

impl Numbers {
    /// Notes a number.
    #[inline]
    pub fn see(&mut self, number: u64) -> Seen {
        if number == self.next && self.ahead.is_empty() {
            self.next += 1;
            return Seen::New;
        }
        self.see_out_of_line(number)
    }

    fn see_out_of_line(&mut self, number: u64) -> Seen {
        if number < self.next {
            return Seen::Again;
        }
        let (word, bit) = (number / 64 - self.next / 64, 1 << (number % 64));
        if word >= WORDS_MAX {
            return Seen::TooFar;
        }
        let word = word as usize;
        if word >= self.ahead.len() {
            self.ahead.resize(word + 1, 0);
        }
        if self.ahead[word] & bit != 0 {
            return Seen::Again;
        }
        self.ahead[word] |= bit;
        if number == self.next {
            self.advance();
        }
        Seen::New
    }

    /// Moves the line over all that was seen ahead of it.
    fn advance(&mut self) {
        while let Some(&front) = self.ahead.front() {
            let at = self.next % 64;
            let run = u64::from((front >> at).trailing_ones());
            self.next += run;
            if at + run < 64 {
                if self.ahead.len() == 1 && front >> (at + run) == 0 {
                    self.ahead.clear();
                }
                return;
            }
            self.ahead.pop_front();
        }
    }

    /// The lowest number that was not seen.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How many different numbers were seen.
    pub fn count(&self) -> u64 {
        let (at, mut words) = (self.next % 64, self.ahead.iter());
        let front = words.next().map_or(0, |front| (front >> at).count_ones());
        self.next + u64::from(front) + words.map(|word| u64::from(word.count_ones())).sum::<u64>()
    }

    /// One more than the highest number that was seen.
    pub fn end(&self) -> u64 {
        match self.ahead.back() {
            Some(last) => {
                let words_before = self.next / 64 + self.ahead.len() as u64 - 1;
                words_before * 64 + 64 - u64::from(last.leading_zeros())
            }
            None => self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_in_order_leave_nothing_behind() {
        let mut numbers = Numbers::default();

        (0..1000).for_each(|n| assert_eq!(numbers.see(n), Seen::New));

        assert_eq!((numbers.count(), numbers.end(), numbers.next()), (1000, 1000, 1000));
        assert!(numbers.ahead.is_empty());
        assert_eq!(numbers.see(999), Seen::Again);
    }

    #[test]
    fn a_filled_gap_is_forgotten() {
        let mut numbers = Numbers::default();
        (0..500).filter(|&n| n != 70).for_each(|n| assert_eq!(numbers.see(n), Seen::New));
        assert_eq!((numbers.count(), numbers.end(), numbers.next()), (499, 500, 70));

        assert_eq!(numbers.see(70), Seen::New);

        assert_eq!((numbers.count(), numbers.next()), (500, 500));
        assert!(numbers.ahead.is_empty());
    }

    #[test]
    fn a_number_of_somebody_else_costs_no_memory() {
        let mut numbers = Numbers::default();

        assert_eq!(numbers.see(1 << 47), Seen::TooFar);
        assert_eq!((numbers.count(), numbers.end()), (0, 0));
    }

    proptest! {
        #[test]
        fn any_numbers_are_kept_as_a_set_keeps_them(
            // Runs, so that in order, ahead, late and double all happen.
            runs in proptest::collection::vec((0u64..700, 1u64..200), 0..30)
        ) {
            let (mut numbers, mut model) = (Numbers::default(), BTreeSet::new());
            for number in runs.into_iter().flat_map(|(from, len)| from..from + len) {
                let expected = if model.insert(number) { Seen::New } else { Seen::Again };
                prop_assert_eq!(numbers.see(number), expected);
                prop_assert_eq!(numbers.count(), model.len() as u64);
                prop_assert_eq!(numbers.end(), model.last().map_or(0, |last| last + 1));
                let next = (0..).find(|n| !model.contains(n));
                prop_assert_eq!(Some(numbers.next()), next);
            }
        }
    }
}
