//! What a run found, for people and as one line of JSON for machines.

use std::fmt;
use std::process::ExitCode;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::usage::Usage;

/// Prints a report and says whether all was well.
pub fn finish<R: Serialize + fmt::Display>(report: &R, is_clean: bool, is_json: bool) -> ExitCode {
    match serde_json::to_string(report) {
        Ok(line) if is_json => println!("{line}"),
        _ => print!("{report}"),
    }
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Percentiles of a latency in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half of all are no longer.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// How many were measured.
    pub samples: u64,
}

impl Latency {
    /// Of a histogram of nanoseconds; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        let at = |quantile| micros(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(histogram.max()),
            samples: histogram.len(),
        })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p90, p99, p999, max, samples } = self;
        write!(
            f,
            "p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0} µs ({samples} samples)"
        )
    }
}

fn micros(ns: u64) -> f64 {
    round(ns as f64 / 1000.0, 1)
}

/// What a process used during the measured time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// Of one processor.
    pub cpu_percent: f64,
    /// Processor time a message.
    pub us_per_message: f64,
}

impl Cost {
    /// The cost of `cpu_ns` within `seconds` for `messages`.
    pub fn new(cpu_ns: u64, seconds: f64, messages: u64) -> Cost {
        Cost {
            cpu_percent: round(cpu_ns as f64 / 1e7 / seconds.max(1e-9), 1),
            us_per_message: round(cpu_ns as f64 / 1000.0 / messages.max(1) as f64, 3),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} % of a processor, {:.3} µs a message", self.cpu_percent, self.us_per_message)
    }
}

/// Resident memory of the broker in KiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Before anything was asked.
    pub start_kib: u64,
    /// The most that was seen.
    pub max_kib: u64,
    /// At the end.
    pub end_kib: u64,
}

impl Memory {
    /// What was used at the start.
    pub fn starting(usage: Usage) -> Memory {
        Memory { start_kib: usage.rss_kib, max_kib: usage.rss_kib, end_kib: usage.rss_kib }
    }

    /// Takes a later look into account.
    pub fn see(&mut self, usage: Usage) {
        self.max_kib = self.max_kib.max(usage.rss_kib);
        self.end_kib = usage.rss_kib;
    }

    /// What each of `things` took of what was added.
    pub fn kib_each(&self, things: usize) -> f64 {
        let added = self.end_kib as f64 - self.start_kib as f64;
        round(added / things.max(1) as f64, 2)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| kib as f64 / 1024.0;
        let (start, max, end) = (mib(self.start_kib), mib(self.max_kib), mib(self.end_kib));
        write!(f, "{start:.1} MiB at the start, {max:.1} at most, {end:.1} at the end")
    }
}

/// Rounded, so that a line of JSON stays readable.
pub fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let all: Vec<String> = [0, 12, 999, 1000, 1_234_567].into_iter().map(grouped).collect();

        assert_eq!(all, ["0", "12", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut histogram = Histogram::new_with_max(1_000_000_000, 3).unwrap();
        (1..=1000u64).for_each(|us| histogram.record(us * 1000).unwrap());

        let latency = Latency::of(&histogram).unwrap();

        assert!((latency.p50 - 500.0).abs() < 1.0 && (latency.p99 - 990.0).abs() < 1.0, "{latency}");
        assert_eq!(latency.samples, 1000);
        histogram.clear();
        assert!(Latency::of(&histogram).is_none());
    }

    #[test]
    fn memory_each_is_what_was_added() {
        let mut memory = Memory::starting(Usage { cpu_ns: 0, rss_kib: 1000 });
        memory.see(Usage { cpu_ns: 0, rss_kib: 5000 });
        memory.see(Usage { cpu_ns: 0, rss_kib: 3000 });

        assert_eq!((memory.max_kib, memory.end_kib), (5000, 3000));
        assert_eq!(memory.kib_each(200), 10.0);
    }
}
