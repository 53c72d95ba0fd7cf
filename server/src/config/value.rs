//! Texts to values: Go's booleans and durations, sizes, numbers.

use std::time::Duration;

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Reads a whole number.
pub(super) fn parse_number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "write a whole number".to_owned())
}

/// Reads a number of bytes: a whole number, or one with `KiB`, `MiB`, `GiB` or `TiB`.
pub(super) fn parse_bytes(text: &str) -> Result<i64, String> {
    let why = || "write a number of bytes, or one with KiB, MiB, GiB or TiB".to_owned();
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))
        .unwrap_or((text, 0));
    let count: i64 = digits.parse().map_err(|_| why())?;
    count.checked_mul(1 << shift).ok_or_else(why)
}

/// Reads milliseconds: a plain number, or a duration.
pub(super) fn parse_millis(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => parse_duration(text)
            .map_err(|_| "write milliseconds (500), or a duration such as 500ms".to_owned()),
    }
}

/// Reads a duration as Go's `time.ParseDuration` does: `1h30m`, `1.5s`, `300ms`, `0`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let why = || "write a duration such as 300ms, 10s, 5m or 1h30m".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(why());
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(why)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let part = unit_nanos(unit)
            .and_then(|unit| scaled(number, unit))
            .ok_or_else(why)?;
        nanos = nanos.checked_add(part).ok_or_else(why)?;
        rest = next;
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| why())
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number` (with at most one point) times `unit`, in whole nanoseconds.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    // Digits below a nanosecond of the largest unit cannot matter.
    let fraction = &fraction[..fraction.len().min(15)];
    let digits: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    whole.checked_mul(unit)?.checked_add(digits * unit / scale)
}

/// Writes a duration as it would be typed: `10m`, `1h30m`, `300ms`.
pub fn format_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    let units = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    for (unit, size) in units {
        let count = nanos / size;
        if count > 0 {
            out.push_str(&count.to_string());
            out.push_str(unit);
        }
        nanos %= size;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        let cases = [
            ("0", 0),
            ("300ms", 300_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1h30m", 5_400_000_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("7ns", 7),
            ("1h0m0.001s", 3_600_001_000_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "5",
            "s",
            ".s",
            "-1s",
            "5 s",
            "5x",
            "1.2.3s",
            "99999999999h",
            "1h2",
        ] {
            assert!(parse_duration(text).is_err(), "{text} was read");
        }
    }

    #[test]
    fn durations_are_written_as_they_would_be_typed() {
        for text in ["0s", "300ms", "10m", "1h30m", "2h", "1s500ms", "5ns"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(format_duration(duration), text);
        }
    }

    #[test]
    fn sizes_take_a_unit() {
        let cases = [
            ("0", 0),
            ("-1", -1),
            ("1572864", 1_572_864),
            ("8GiB", 8 << 30),
            ("2 MiB", 2 << 20),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "1.5GiB", "8GB", "9999999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text} was read");
        }
    }

    #[test]
    fn milliseconds_are_plain_numbers_or_durations() {
        assert_eq!(parse_millis("100"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_millis("2s"), Ok(Duration::from_secs(2)));
        assert!(parse_millis("-100").is_err());
        assert!(parse_millis("1.5").is_err());
    }
}
