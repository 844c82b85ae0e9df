//! Points in time as people write them, RFC 3339 or Unix milliseconds, and as they read them.

use millrace_storage::env::WallMs;
use std::fmt;

/// Reads one.
///
/// # Errors
/// What was expected.
pub(super) fn moment(text: &str) -> Result<WallMs, String> {
    if let Ok(ms) = text.parse::<i64>() {
        return if ms >= 0 { Ok(WallMs(ms)) } else { Err("it lies before 1970".to_owned()) };
    }
    rfc3339(text)
        .ok_or_else(|| "expected 2026-01-31T12:30:00Z, with an offset as +01:00 for Z, or Unix milliseconds".to_owned())
}

/// A point in time as RFC 3339, to the second.
pub(super) struct Shown(pub(super) WallMs);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.0.div_euclid(1_000);
        let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let year = (1_970..).find(|year| days_before(year + 1, 1) > days).expect("time is bounded");
        let month = (1..=12).rev().find(|month| days_before(year, *month) <= days).unwrap_or(1);
        let day = days - days_before(year, month) + 1;
        let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// How long one point lies before another, in one unit.
pub(super) fn ago(then: WallMs, now: WallMs) -> String {
    let seconds = (now.0 - then.0).max(0) / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn rfc3339(text: &str) -> Option<WallMs> {
    let (date, rest) = text.split_at_checked(10)?;
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let offset_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, offset) = time.split_at(offset_at);
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (whole, fraction) = clock.split_once('.').map_or((clock, None), |(whole, fraction)| (whole, Some(fraction)));
    let [hour, minute, second] = numbers(whole, ':', [2, 2, 2])?;
    let in_range = hour < 24 && minute < 60 && second < 60 && day >= 1 && day <= days_of(year, month)?;
    let minutes_east = match offset {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes] = numbers(&offset[1..], ':', [2, 2])?;
            let east = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            if offset.starts_with('-') { -east } else { east }
        }
    };
    let seconds = (days_before(year, month) + day - 1) * 86_400 + hour * 3_600 + (minute - minutes_east) * 60 + second;
    let ms = seconds * 1_000 + fraction.map_or(Some(0), milliseconds)?;
    (in_range && ms >= 0).then_some(WallMs(ms))
}

/// Numbers of so many digits each, with a sign between them.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (number, length) in found.iter_mut().zip(digits) {
        let part =
            parts.next().filter(|part| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Of a fraction of a second; what is finer is cut off.
fn milliseconds(fraction: &str) -> Option<i64> {
    let all_digits = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let three: String = fraction.chars().chain("000".chars()).take(3).collect();
    three.parse().ok().filter(|_| all_digits)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> Option<i64> {
    match month {
        2 => Some(if is_leap(year) { 29 } else { 28 }),
        4 | 6 | 9 | 11 => Some(30),
        1..=12 => Some(31),
        _ => None,
    }
}

/// Days from 1970 to the first of a month.
fn days_before(year: i64, month: i64) -> i64 {
    let before = year - 1;
    let days = |year: i64| year * 365 + year / 4 - year / 100 + year / 400;
    days(before) - days(1_969) + (1..month).filter_map(|month| days_of(year, month)).sum::<i64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_date_says_them() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799_000),
            ("2026-11-30T01:02:03.4567Z", 1_796_000_523_456),
            ("2026-11-30T02:32:03+01:30", 1_796_000_523_000),
            ("2026-11-29 20:02:03-05:00", 1_796_000_523_000),
            ("1796000523000", 1_796_000_523_000),
        ] {
            assert_eq!(moment(text), Ok(WallMs(ms)), "{text}");
        }
    }

    #[test]
    fn moments_are_shown_as_they_are_read() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2026-11-30T01:02:03Z", "2027-12-31T23:00:00Z"] {
            assert_eq!(Shown(moment(text).expect("it is one")).to_string(), text);
        }
        let shown = |ms| ago(WallMs(0), WallMs(ms));
        assert_eq!([shown(-1), shown(119_999), shown(120_000)], ["0 s", "119 s", "2 min"]);
        assert_eq!([shown(7_200_000), shown(172_800_000)], ["2 h", "2 days"]);
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "-5",
            "yesterday",
            "2026-11-30",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-30T24:00:00Z",
            "2026-11-30T01:02:03",
            "2026-11-30T01:02:03.Z",
            "2026-11-30T1:2:3Z",
            "1969-12-31T23:59:59Z",
            "2026-11-30T01:02:03+1",
            "ä026-11-30T01:02:03Z",
        ] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
