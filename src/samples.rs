//! How much there was of things at moments of the last minute, for who asks how it came about.

use std::collections::VecDeque;

/// What is kept reaches back so far, in milliseconds: the pages of RabbitMQ show a minute.
const KEPT_MS: u64 = 60_000;

/// So many moments are told at most.
const MOMENTS_MAX: u64 = 1_000;

/// Which moments are asked for: RabbitMQ's `…_age` and `…_incr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How far back.
    pub age_ms: u64,
    /// How far apart; not 0.
    pub step_ms: u64,
}

impl Span {
    /// The moments, the newest first: whole multiples of the step.
    fn moments(self, now_ms: u64) -> impl Iterator<Item = u64> {
        let newest_ms = now_ms - now_ms % self.step_ms;
        let count = (self.age_ms / self.step_ms).min(MOMENTS_MAX - 1);
        (0..=count).map_while(move |n| newest_ms.checked_sub(n * self.step_ms))
    }
}

/// How much there was of things at moments, in milliseconds since 1970, the newest first.
pub type Samples<const N: usize> = Vec<(u64, [u64; N])>;

/// Adds other things to things, where both are known.
pub fn add<const N: usize>(sum: &mut Option<Samples<N>>, other: &Samples<N>) {
    let Some(sum) = sum else {
        *sum = Some(other.clone());
        return;
    };
    let find = |at_ms: u64| other.iter().find(|(other_ms, _)| *other_ms == at_ms);
    sum.retain_mut(|(at_ms, levels)| {
        let Some((_, others)) = find(*at_ms) else { return false };
        levels.iter_mut().zip(others).for_each(|(level, other)| *level += other);
        true
    });
}

/// How much there was at a moment, by the numbers of things; those of which there was nothing are left out.
#[derive(Clone, Debug)]
struct Point {
    at_ms: u64,
    levels: Box<[(u8, u64)]>,
}

/// How much there was over the last minute. Between two points it has changed evenly; before the first one there
/// was nothing, unless some have been forgotten.
#[derive(Clone, Debug, Default)]
pub struct Course {
    points: VecDeque<Point>,
    is_cut: bool,
}

impl Course {
    /// Notes how much there is. Moments do not go back.
    pub fn note(&mut self, at_ms: u64, levels: &[u64]) {
        let numbered = levels.iter().enumerate().filter(|(_, level)| **level > 0);
        let levels = numbered.map(|(number, level)| (number as u8, *level)).collect();
        self.points.push_back(Point { at_ms, levels });
        // One that is older stays, for what lies between it and the next.
        while self.points.get(1).is_some_and(|point| point.at_ms + KEPT_MS <= at_ms) {
            self.points.pop_front();
            self.is_cut = true;
        }
    }

    /// How much there was at the moments asked for, so far as that is known, if it is now as `levels` says and has
    /// been so since a moment behind all points.
    pub fn samples<const N: usize>(
        &self,
        span: Span,
        now_ms: u64,
        since_ms: u64,
        levels: [u64; N],
    ) -> Samples<N> {
        let at = |at_ms: u64| {
            if at_ms >= since_ms {
                return Some(levels);
            }
            let next = self.points.partition_point(|point| point.at_ms <= at_ms);
            let Some(before) = next.checked_sub(1).map(|before| &self.points[before]) else {
                return (!self.is_cut).then_some([0; N]);
            };
            let (after_ms, after) = match self.points.get(next) {
                Some(after) => (after.at_ms, spread(after)),
                None => (since_ms, levels),
            };
            let (elapsed, whole) = (at_ms - before.at_ms, after_ms - before.at_ms);
            let before: [u64; N] = spread(before);
            Some(std::array::from_fn(|n| between(before[n], after[n], elapsed, whole)))
        };
        span.moments(now_ms).map_while(|at_ms| Some((at_ms, at(at_ms)?))).collect()
    }
}

fn spread<const N: usize>(point: &Point) -> [u64; N] {
    let mut levels = [0; N];
    for (number, level) in &point.levels {
        levels[usize::from(*number)] = *level;
    }
    levels
}

/// The level at a part of the way from one to another.
fn between(from: u64, to: u64, part: u64, whole: u64) -> u64 {
    let way = (i128::from(to) - i128::from(from)) * i128::from(part) / i128::from(whole.max(1));
    u64::try_from(i128::from(from) + way).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { age_ms: 20_000, step_ms: 5_000 };

    fn told(course: &Course, span: Span, now_ms: u64, level: u64) -> Vec<(u64, u64)> {
        let samples = course.samples(span, now_ms, now_ms, [level]);
        samples.into_iter().map(|(at_ms, [level])| (at_ms, level)).collect()
    }

    #[test]
    fn moments_are_whole_multiples_and_lie_evenly_between_points() {
        let mut course = Course::default();
        course.note(102_000, &[0]);
        course.note(112_000, &[100]);

        let expected = [(115_000, 160), (110_000, 80), (105_000, 30), (100_000, 0), (95_000, 0)];
        assert_eq!(told(&course, SPAN, 117_000, 200), expected);
    }

    #[test]
    fn what_has_been_forgotten_is_not_told() {
        let mut course = Course::default();
        for n in 0..30 {
            course.note(100_000 + n * 5_000, &[n]);
        }

        let told = told(&course, Span { age_ms: 600_000, step_ms: 5_000 }, 246_000, 30);

        assert_eq!((told.first(), told.last()), (Some(&(245_000, 29)), Some(&(185_000, 17))));
    }

    #[test]
    fn an_endless_age_has_an_end() {
        let told = told(&Course::default(), Span { age_ms: u64::MAX, step_ms: 1 }, 1_795_325_955_784, 1);

        assert_eq!((told.len(), told[1]), (1_000, (1_795_325_955_783, 0)));
    }

    #[test]
    fn sums_have_the_moments_that_both_have() {
        let mut sum = None;

        add(&mut sum, &vec![(10, [1]), (5, [1])]);
        add(&mut sum, &vec![(15, [7]), (10, [2])]);

        assert_eq!(sum, Some(vec![(10, [3])]));
    }
}
