//! Spans and points of time as operators write and read them.

use std::time::{SystemTime, UNIX_EPOCH};

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// `15m` from now, or a point in time as RFC 3339 has it.
pub fn until_ms(text: &str, now_ms: u64) -> Result<u64, String> {
    if let Some(span) = span_ms(text) {
        return Ok(now_ms + span);
    }
    point_ms(text).filter(|ms| *ms > now_ms).ok_or_else(|| {
        format!("'{text}' is neither a span like 90s, 15m, 2h nor a time to come like 2027-01-31T18:00:00Z")
    })
}

/// Milliseconds of `500ms`, `90s`, `15m`, `2h`, `1d`.
pub fn span_ms(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `2027-01-31T18:00:00Z`, or with an offset.
fn point_ms(text: &str) -> Option<u64> {
    let point: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(point.as_millisecond()).ok()
}

/// `2027-01-31T18:00:00Z` of milliseconds since 1970; nothing for a time that no calendar has.
pub fn point(ms: u64) -> String {
    let point = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    point.map_or(String::new(), |point| point.to_string())
}

/// How long, in the two greatest units: `2h 5m`, `3s`, `12ms`.
pub fn words(ms: u64) -> String {
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let seconds = ms / 1_000;
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let shown: Vec<String> = parts
        .iter()
        .skip_while(|(number, _)| *number == 0)
        .take(2)
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_points_of_time_are_understood() {
        assert_eq!(until_ms("90s", 10), Ok(90_010));
        assert_eq!(until_ms("2h", 0), Ok(7_200_000));
        assert_eq!(until_ms("2027-01-31T18:00:00Z", 0), Ok(1_801_418_400_000));
        assert_eq!(until_ms("2024-02-29T00:00:00Z", 0), Ok(1_709_164_800_000));
        for wrong in [
            "",
            "5",
            "m",
            "5 m",
            "2023-02-29T00:00:00Z",
            "2027-01-31",
            "2027-01-31T18:00:00",
            "99999999999999999999d",
        ] {
            assert!(until_ms(wrong, 0).is_err(), "{wrong}");
        }
        assert!(until_ms("1971-01-01T00:00:00Z", u64::MAX / 2).is_err(), "it is over");
    }

    #[test]
    fn a_point_of_time_is_written_as_it_is_read() {
        for text in ["1970-01-01T00:00:00Z", "2024-02-29T23:59:59Z", "2027-12-31T18:00:01Z"] {
            assert_eq!(point(point_ms(text).expect("a time")), text);
        }
    }

    #[test]
    fn an_age_is_said_in_two_units() {
        assert_eq!(words(12), "12ms");
        assert_eq!(words(3_000), "3s");
        assert_eq!(words(7_500_000), "2h 5m");
        assert_eq!(words(90_000_000), "1d 1h");
        assert_eq!(words(86_400_000), "1d");
    }
}
