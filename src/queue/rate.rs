//! How fast messages may leave: so many a second, with a little room for those who come late.

/// Who has not been given anything for a while may catch up on so much, in nanoseconds.
const CATCH_UP_NS: u64 = 10_000_000;

/// A limit to a number of messages a second.
#[derive(Debug, Default)]
pub struct Rate {
    /// When the next one may leave, in nanoseconds since 1970.
    next_ns: u64,
}

impl Rate {
    /// Whether one may leave now; if not, when to ask again, in milliseconds since 1970.
    pub fn check(&self, now_ms: u64) -> Result<(), u64> {
        if self.next_ns > now_ms * 1_000_000 {
            return Err(self.next_ns.div_ceil(1_000_000));
        }
        Ok(())
    }

    /// One leaves, of so many a second.
    pub fn take(&mut self, per_second: u64, now_ms: u64) {
        let earliest_ns = (now_ms * 1_000_000).saturating_sub(CATCH_UP_NS);
        self.next_ns = self.next_ns.max(earliest_ns) + 1_000_000_000 / per_second.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leave_in_a_second(per_second: u64, step_ms: u64) -> usize {
        let mut rate = Rate::default();
        let times = (1_000_000..1_001_000).step_by(step_ms as usize);
        let mut leave = |now_ms| {
            rate.check(now_ms).ok()?;
            rate.take(per_second, now_ms);
            Some(())
        };
        times.map(|now_ms| std::iter::from_fn(|| leave(now_ms)).count()).sum()
    }

    #[test]
    fn so_many_leave_in_a_second_however_often_is_asked() {
        for per_second in [1, 10, 999, 5000, 100_000] {
            for step_ms in [1, 7] {
                let (left, most) = (leave_in_a_second(per_second, step_ms), per_second as usize);
                let catch_up = most / 100 + 1;
                assert!((most * 99 / 100..=most + catch_up).contains(&left), "{left} of {per_second}");
            }
        }
    }

    #[test]
    fn who_has_to_wait_is_told_until_when() {
        let mut rate = Rate::default();
        assert_eq!(rate.check(1000), Ok(()));
        rate.take(10, 1000);

        assert_eq!(rate.check(1000), Err(1090));
        assert_eq!(rate.check(1089), Err(1090));
        assert_eq!(rate.check(1090), Ok(()));
    }
}
