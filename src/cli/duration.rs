//! Spans and points of time as operators write and read them.

use std::time::{SystemTime, UNIX_EPOCH};

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// `15m` from now, or a point in time as RFC 3339 has it (in UTC).
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

/// `2027-01-31T18:00:00Z`.
fn point_ms(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once(['T', ' '])?;
    let numbers = |text: &str, mark: char| -> Option<[u64; 3]> {
        let parts: Vec<u64> = text.split(mark).map(|part| part.parse().ok()).collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let is_real = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !is_real {
        return None;
    }
    let days = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<u64>()
        + (1..month).map(|month| days_of(year, month)).sum::<u64>()
        + day
        - 1;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `2027-01-31T18:00:00Z` of milliseconds since 1970.
pub fn point(ms: u64) -> String {
    let (mut days, seconds) = (ms / 86_400_000, ms / 1_000 % 86_400);
    let mut year = 1970;
    while days >= if is_leap(year) { 366 } else { 365 } {
        days -= if is_leap(year) { 366 } else { 365 };
        year += 1;
    }
    let mut month = 1;
    while days >= days_of(year, month) {
        days -= days_of(year, month);
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
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
        for wrong in ["", "5", "m", "5 m", "2023-02-29T00:00:00Z", "2027-01-31", "99999999999999999999d"] {
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
