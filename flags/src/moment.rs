//! Points in time, which are always given and never read from a clock.

use std::fmt;

const MS_A_SECOND: i64 = 1_000;
const SECONDS_A_DAY: i64 = 86_400;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    /// So many milliseconds after the beginning of 1970, or before it.
    pub const fn from_unix_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the beginning of 1970.
    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    /// The moment that RFC 3339 text in UTC names, as in `2026-12-24T18:00:00Z` or with up to three
    /// decimals; none if the text is anything else, or has another offset than `Z`.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.strip_suffix('Z')?.as_bytes();
        let (date_time, fraction) = bytes.split_at_checked(19)?;
        let number = |from: usize, to: usize| decimal(&date_time[from..to]);
        for (at, want) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
            if date_time[at] != want {
                return None;
            }
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let ms = match fraction {
            [] => 0,
            [b'.', digits @ ..] if (1..=3).contains(&digits.len()) => {
                decimal(digits)? * [100, 10, 1][digits.len() - 1]
            }
            _ => return None,
        };
        let seconds = days(year, month, day) * SECONDS_A_DAY + (hour * 60 + minute) * 60 + second;
        Some(Self(seconds * MS_A_SECOND + ms))
    }

    /// This moment reflected at another: as long before it as this is after it.
    pub(crate) const fn mirrored(self, at: Self) -> Self {
        Self(at.0.saturating_sub(self.0.saturating_sub(at.0)))
    }
}

/// Milliseconds since the beginning of 1970.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

fn decimal(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        Some(number * 10 + i64::from(digit))
    })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date, of which years 0 to 9999 are asked.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Leap days before a year: of year 0 itself there is one.
    let leaps = |year: i64| (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let years = (year - 1970) * 365 + leaps(year) - leaps(1970);
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    years + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_every_calendar_has_them() {
        // `date -u -d TEXT +%s` of GNU coreutils says so.
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2000-02-29T12:30:45.5Z", 951_827_445_500),
            ("2026-11-28T01:02:03.004Z", 1_795_827_723_004),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ] {
            assert_eq!(Moment::parse(text), Some(Moment(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_moment_in_utc_is_refused() {
        for text in [
            "",
            "Z",
            "2026-11-28",
            "2026-11-28T01:02:03",
            "2026-11-28T01:02:03+01:00",
            "2026-11-28 01:02:03Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-04-00T00:00:00Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T23:60:00Z",
            "2026-11-28T23:59:60Z",
            "2026-11-28T01:02:03.Z",
            "2026-11-28T01:02:03.1234Z",
            "+026-11-28T01:02:03Z",
            "2026-11-28T01:02:03ZZ",
            "２026-11-28T01:02:03Z",
        ] {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn mirroring_swaps_before_and_after_and_never_overflows() {
        let at = Moment(10);
        assert_eq!(Moment(13).mirrored(at), Moment(7));
        assert_eq!(
            Moment(i64::MAX).mirrored(Moment(i64::MIN)),
            Moment(i64::MIN)
        );
    }
}
