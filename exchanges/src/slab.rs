//! A vector whose places are used again, so that small numbers can stand for things.

use std::ops::{Index, IndexMut};

/// Things, each at a number that stays its own until it is removed.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// Keeps `value` and returns its number.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.entries[place as usize] = Some(value);
            return place;
        }
        let place = u32::try_from(self.entries.len()).expect("memory ends long before 2^32 entries");
        self.entries.push(Some(value));
        place
    }

    /// Takes out what is kept at `place`, whose number may then be given to another.
    pub(crate) fn remove(&mut self, place: u32) -> T {
        let value = self.entries[place as usize].take().expect("a number is removed once");
        self.free.push(place);
        value
    }

    /// What is kept at `place`, if anything.
    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        self.entries.get(place as usize)?.as_ref()
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        self.entries[place as usize].as_ref().expect("a number stands for something until removed")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        self.entries[place as usize].as_mut().expect("a number stands for something until removed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_place_is_used_again() {
        let mut slab = Slab::default();
        let first = slab.insert("a");
        let second = slab.insert("b");

        assert_eq!(slab.remove(first), "a");

        assert_eq!(slab.get(first), None);
        assert_eq!(slab.insert("c"), first);
        assert_eq!((slab[first], slab[second]), ("c", "b"));
    }
}
