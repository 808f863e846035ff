//! A set of small numbers that is filled and emptied for every message without allocating.

/// Numbers marked so far: a bit each to ask quickly, and a list to walk them in order of arrival.
///
/// Adding is constant time whatever the size; clearing costs what was added, not what could have been.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    bits: Vec<u64>,
    list: Vec<u32>,
}

impl Marks {
    /// Marks `number`; false if it was marked already.
    #[inline]
    pub(crate) fn mark(&mut self, number: u32) -> bool {
        let word = (number / 64) as usize;
        let bit = 1 << (number % 64);
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit != 0 {
            return false;
        }
        self.bits[word] |= bit;
        self.list.push(number);
        true
    }

    /// Whether `number` is marked.
    #[inline]
    pub(crate) fn has(&self, number: u32) -> bool {
        let word = self.bits.get((number / 64) as usize);
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// The numbers in the order they were marked.
    #[inline]
    pub(crate) fn list(&self) -> &[u32] {
        &self.list
    }

    /// Forgets every mark and keeps the memory.
    #[inline]
    pub(crate) fn clear(&mut self) {
        for &number in &self.list {
            self.bits[(number / 64) as usize] = 0;
        }
        self.list.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_marked_once_until_cleared() {
        let mut marks = Marks::default();

        assert!(marks.mark(700));
        assert!(marks.mark(3));
        assert!(!marks.mark(700));
        assert_eq!(marks.list(), [700, 3]);
        assert!(marks.has(3) && !marks.has(4) && !marks.has(70_000));

        marks.clear();
        assert!(marks.list().is_empty() && !marks.has(3));
        assert!(marks.mark(3));
    }
}
