//! Counts and rates as RabbitMQ's statistics are written: `publish` and beside it `publish_details`.

use serde_json::{Map, Value as Json, json};

use crate::samples::Samples;
use crate::tally::{COUNTS, Count, Figures};

/// What is counted where messages leave a queue.
pub const TAKEN: &[(&str, Count)] = &[
    ("ack", Count::Ack),
    ("deliver", Count::Deliver),
    ("deliver_no_ack", Count::DeliverNoAck),
    ("get", Count::Get),
    ("get_empty", Count::GetEmpty),
    ("get_no_ack", Count::GetNoAck),
    ("redeliver", Count::Redeliver),
];

/// What is counted where messages are published.
pub const PUBLISHED: &[(&str, Count)] = &[
    ("confirm", Count::Confirm),
    ("drop_unroutable", Count::DropUnroutable),
    ("publish", Count::Publish),
    ("return_unroutable", Count::ReturnUnroutable),
];

/// What is counted of exchanges.
pub const ROUTED: &[(&str, Count)] = &[("publish_in", Count::PublishIn), ("publish_out", Count::PublishOut)];

/// What is told of how much is in queues.
pub const LENGTHS: &[&str] = &[
    "messages",
    "messages_details",
    "messages_ready",
    "messages_ready_details",
    "messages_unacknowledged",
    "messages_unacknowledged_details",
];

/// How much is in queues: ready, and unacknowledged.
#[derive(Default)]
pub struct Lengths {
    /// Messages.
    pub now: [usize; 2],
    /// How many more in a second.
    pub growth: (f64, f64),
    /// How many there were at moments, if that was asked for.
    pub past: Option<Samples<2>>,
}

impl Lengths {
    /// As RabbitMQ writes them.
    pub fn describe(&self) -> Map<String, Json> {
        let mut map = Map::new();
        let [ready, unacked] = self.now;
        for (name, n, growth, of) in [
            ("messages", ready + unacked, self.growth.0 + self.growth.1, 0..2),
            ("messages_ready", ready, self.growth.0, 0..1),
            ("messages_unacknowledged", unacked, self.growth.1, 1..2),
        ] {
            put(&mut map, name, n as u64, growth);
            if let Some(past) = &self.past {
                let past = past.iter().map(|(at_ms, levels)| (*at_ms, levels[of.clone()].iter().sum()));
                put_past(&mut map, name, &past.collect::<Vec<_>>());
            }
        }
        map
    }
}

/// A rate as it is written: nobody reads more than two digits behind the point.
pub fn rate(rate: f64) -> Json {
    json!((rate * 100.0).round() / 100.0)
}

/// A count and its rate.
pub fn put(map: &mut Map<String, Json>, name: &str, count: u64, per_second: f64) {
    map.insert(name.into(), count.into());
    let per_second = rate(per_second);
    map.insert(format!("{name}_details"), json!({"rate": per_second, "avg_rate": per_second}));
}

/// Adds to the details of a number what it was at moments, the newest first: RabbitMQ's `samples`, and their means.
pub fn put_past(map: &mut Map<String, Json>, name: &str, past: &[(u64, u64)]) {
    let Some(Json::Object(details)) = map.get_mut(&format!("{name}_details")) else { return };
    let (Some((newest_ms, newest)), Some((oldest_ms, oldest))) = (past.first(), past.last()) else { return };
    let sum: f64 = past.iter().map(|(_, sample)| *sample as f64).sum();
    let secs = (newest_ms - oldest_ms).max(1) as f64 / 1000.0;
    let samples = past.iter().map(|(at_ms, sample)| json!({"sample": sample, "timestamp": at_ms}));
    details.insert("samples".into(), samples.collect());
    details.insert("avg".into(), json!(sum / past.len() as f64));
    details.insert("avg_rate".into(), rate((*newest as f64 - *oldest as f64) / secs));
}

/// Counts and rates by name; and what they were, if that was asked for.
pub fn message_stats(figures: &Figures, names: &[&[(&str, Count)]]) -> Map<String, Json> {
    let mut map = Map::new();
    let mut put = |name: &str, counts: &[Count]| {
        let count = counts.iter().map(|count| figures.count(*count)).sum();
        let per_second = counts.iter().map(|count| figures.rate(*count)).sum();
        put(&mut map, name, count, per_second);
        if let Some(past) = figures.past() {
            let sum = |all: &[u64; COUNTS]| counts.iter().map(|count| all[*count as usize]).sum();
            put_past(&mut map, name, &past.map(|(at_ms, all)| (at_ms, sum(all))).collect::<Vec<_>>());
        }
    };
    for (name, count) in names.iter().copied().flatten() {
        put(name, &[*count]);
    }
    if names.contains(&TAKEN) {
        put("deliver_get", &[Count::Deliver, Count::DeliverNoAck, Count::Get, Count::GetNoAck]);
    }
    map
}

/// Milliseconds since 1970 as RabbitMQ writes times: `2026-11-22T05:39:15.784+00:00`.
pub fn time(ms: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms as i64).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S.%3f+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_to_the_millisecond() {
        assert_eq!(time(1_795_325_955_784), "2026-11-22T05:39:15.784+00:00");
    }

    #[test]
    fn what_is_delivered_in_any_way_is_summed_up() {
        let mut delta = crate::tally::Delta::default();
        delta.add(Count::Deliver, 2);
        delta.add(Count::GetNoAck, 3);
        let tally = crate::tally::Tally::default();
        tally.add(&delta, 1);

        let stats = message_stats(&tally.figures(1), &[TAKEN]);

        assert_eq!((&stats["deliver_get"], &stats["deliver"]), (&json!(5), &json!(2)));
        assert_eq!(stats["ack_details"]["rate"], json!(0.0));
        assert!(!stats.contains_key("publish"));
    }
}
