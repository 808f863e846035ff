//! Numbers that look random and come again for the same seed, whatever the version of any library.

/// Splitmix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `from..below`.
    pub fn roll(&mut self, from: u64, below: u64) -> u64 {
        from + self.next() % (below - from)
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.roll(0, n) == 0
    }

    /// Dice of its own for somebody else, so that nobody disturbs the other's numbers.
    pub fn fork(&mut self) -> Dice {
        Dice(self.next())
    }
}
