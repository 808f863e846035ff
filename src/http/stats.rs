//! Counts and rates as RabbitMQ's statistics are written: `publish` and beside it `publish_details`.

use serde_json::{Map, Value as Json, json};

use crate::tally::{Count, Figures};

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

/// Counts and rates by name.
pub fn message_stats(figures: &Figures, names: &[&[(&str, Count)]]) -> Map<String, Json> {
    let mut map = Map::new();
    for (name, count) in names.iter().copied().flatten() {
        put(&mut map, name, figures.count(*count), figures.rate(*count));
    }
    if names.contains(&TAKEN) {
        let all = [Count::Deliver, Count::DeliverNoAck, Count::Get, Count::GetNoAck];
        let count = all.iter().map(|count| figures.count(*count)).sum();
        let per_second = all.iter().map(|count| figures.rate(*count)).sum();
        put(&mut map, "deliver_get", count, per_second);
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
