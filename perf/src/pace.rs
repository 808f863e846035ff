//! A fixed rate: when each message of a producer is due.

/// Even steps in time from a start, in nanoseconds since the board's own.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start_ns: u64,
    step_ns: f64,
}

impl Pace {
    /// The pace of one of `producers` that publish `per_second` messages together, a step after another.
    pub fn share(per_second: f64, producer: usize, producers: usize, now_ns: u64) -> Pace {
        let step_ns = 1e9 * producers as f64 / per_second;
        Pace { start_ns: now_ns + (step_ns * producer as f64 / producers as f64) as u64, step_ns }
    }

    /// When message `number` is due.
    pub fn due_ns(&self, number: u64) -> u64 {
        self.start_ns + (self.step_ns * number as f64) as u64
    }

    /// How many messages are due by now, given that `sent` are gone.
    pub fn due(&self, now_ns: u64, sent: u64) -> u64 {
        if now_ns < self.start_ns {
            return 0;
        }
        let whole_steps = ((now_ns - self.start_ns) as f64 / self.step_ns) as u64;
        (whole_steps + 1).saturating_sub(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn producers_take_turns_within_a_step() {
        let paces: Vec<Pace> = (0..4).map(|p| Pace::share(1000.0, p, 4, 500)).collect();

        let first: Vec<u64> = paces.iter().map(|pace| pace.due_ns(0)).collect();
        assert_eq!(first, [500, 1_000_500, 2_000_500, 3_000_500]);
        assert_eq!(paces[0].due_ns(1), 4_000_500);
    }

    #[test]
    fn what_was_held_back_is_all_due_at_once() {
        let pace = Pace::share(1000.0, 0, 1, 0);

        assert_eq!(pace.due(0, 0), 1);
        assert_eq!(pace.due(999_999, 1), 0);
        assert_eq!(pace.due(1_000_000, 1), 1);
        assert_eq!(pace.due(1_000_000_000, 1), 1000);
    }

    proptest! {
        #[test]
        fn a_second_has_the_asked_number_of_messages(
            per_second in 1.0f64..3e6, producers in 1usize..70, now_ns in 0u64..1 << 50
        ) {
            let second_ns = now_ns + 999_999_999;
            let due = |p| Pace::share(per_second, p, producers, now_ns).due(second_ns, 0);
            let total: u64 = (0..producers).map(due).sum();

            prop_assert!((total as f64 - per_second).abs() <= producers as f64 + 1.0, "{}", total);
        }

        #[test]
        fn nobody_wakes_before_a_message_is_due(per_second in 1.0f64..1e6, sent in 0u64..1 << 30) {
            let pace = Pace::share(per_second, 0, 1, 77);

            // One nanosecond of rounding is allowed: the next look comes as much later.
            prop_assert!(pace.due(pace.due_ns(sent) + 1, sent) >= 1);
        }
    }
}
