//! The figures of a run under load.

use std::fmt;

use serde::Serialize;

use crate::report::{Cost, Latency, Memory, grouped};

/// What came of a run. Rates are a second.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)] // the names say it, docs/perf.md the rest
pub struct Figures {
    pub mode: &'static str,
    pub broker: String,
    pub seconds: f64,
    pub published: u64,
    pub published_per_second: f64,
    pub confirmed: u64,
    pub confirmed_per_second: f64,
    pub received: u64,
    pub received_per_second: f64,
    /// Also what came before and after the measured time, as all faults count.
    pub received_in_all: u64,
    pub returned: u64,
    pub nacked: u64,
    pub redelivered: u64,
    /// `None` if nobody consumed what was published.
    pub lost: Option<u64>,
    pub duplicated: u64,
    pub out_of_order: u64,
    pub misrouted: u64,
    pub unreadable: u64,
    pub delivery_us: Option<Latency>,
    pub confirm_us: Option<Latency>,
    pub own: Option<Cost>,
    /// What we took of the processor time of both.
    pub own_share_percent: Option<f64>,
    pub own_producers: Option<Cost>,
    pub own_consumers: Option<Cost>,
    pub broker_cost: Option<Cost>,
    pub broker_memory: Option<Memory>,
    pub errors: Vec<String>,
}

impl Figures {
    /// Whether the broker kept its promises.
    pub fn is_clean(&self) -> bool {
        let faults =
            [self.lost.unwrap_or(0), self.duplicated, self.out_of_order, self.misrouted, self.unreadable];
        self.errors.is_empty() && faults == [0; 5]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} in {:.2} s", self.mode, self.broker, self.seconds)?;
        for (name, count, rate) in [
            ("published", self.published, self.published_per_second),
            ("confirmed", self.confirmed, self.confirmed_per_second),
            ("received", self.received, self.received_per_second),
        ] {
            if count > 0 {
                writeln!(f, "  {name:<13} {} ({}/s)", grouped(count), grouped(rate as u64))?;
            }
        }
        for (name, count) in [
            ("returned", self.returned),
            ("nacked", self.nacked),
            ("redelivered", self.redelivered),
            ("duplicated", self.duplicated),
            ("out of order", self.out_of_order),
            ("misrouted", self.misrouted),
            ("unreadable", self.unreadable),
        ] {
            if count > 0 {
                writeln!(f, "  {name:<13} {}", grouped(count))?;
            }
        }
        if let Some(lost) = self.lost {
            writeln!(f, "  lost          {}", grouped(lost))?;
        }
        row(f, "delivery", &self.delivery_us)?;
        row(f, "confirm", &self.confirm_us)?;
        row(f, "broker", &self.broker_cost)?;
        row(f, "memory", &self.broker_memory)?;
        row(f, "ourselves", &self.own)?;
        if let Some(share) = self.own_share_percent {
            writeln!(f, "  our share     {share} % of the processor time of both")?;
        }
        row(f, "  producers", &self.own_producers)?;
        row(f, "  consumers", &self.own_consumers)?;
        self.errors.iter().try_for_each(|error| writeln!(f, "  error         {error}"))
    }
}

fn row<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, value: &Option<T>) -> fmt::Result {
    value.as_ref().map_or(Ok(()), |value| writeln!(f, "  {name:<13} {value}"))
}
