//! Values of flags and arguments.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use bytes::Bytes;
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use gonfalon_server::config::parse_duration;

/// A lease's id: hexadecimal, as all tools show it. Negative ids have their top bit set.
pub(crate) fn lease_id(text: &str) -> Result<i64, String> {
    id(text)
        .map(u64::cast_signed)
        .map_err(|()| "write the id in hexadecimal, as `lease list` shows it".to_owned())
}

/// A member's id: hexadecimal, as all tools show it.
pub(crate) fn member_id(text: &str) -> Result<u64, String> {
    id(text).map_err(|()| "write the id in hexadecimal, as `member list` shows it".to_owned())
}

fn id(text: &str) -> Result<u64, ()> {
    // `from_str_radix` takes a sign; an id has none.
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(());
    }
    u64::from_str_radix(text, 16).map_err(|_| ())
}

/// True or false in the spellings that Go's flags have, which are those in people's scripts.
pub(crate) fn go_boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// A lease's time: whole seconds as a plain number, or a duration, rounded up to seconds.
///
/// Longer than zero, although servers grant their shortest lease for whatever is not.
pub(crate) fn seconds(text: &str) -> Result<i64, String> {
    let why = || "write seconds (60), or a duration such as 60s or 5m".to_owned();
    let (is_negative, size) = match text.strip_prefix('-') {
        Some(size) => (true, size),
        None => (false, text),
    };
    let seconds = if let Ok(seconds) = size.parse::<u64>() {
        seconds
    } else {
        let duration = parse_duration(size).map_err(|_| why())?;
        duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
    };
    if is_negative || seconds == 0 {
        return Err("must be longer than zero".to_owned());
    }
    i64::try_from(seconds).map_err(|_| why())
}

/// A revision, or a number of keys. 0 is for those who do not care.
pub(crate) fn count(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(count @ 0..) => Ok(count),
        Ok(_) => Err("must not be negative".to_owned()),
        Err(_) => Err("write a whole number".to_owned()),
    }
}

/// A time limit, as Go writes durations.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// Takes any bytes that the shell can pass.
pub(crate) fn raw() -> ValueParser {
    ValueParser::new(OsStringValueParser::new().map(|text: OsString| Bytes::from(text.into_vec())))
}

/// A name of a lock or an election: any bytes, but some.
pub(crate) fn name() -> ValueParser {
    ValueParser::new(OsStringValueParser::new().try_map(|text: OsString| {
        if text.is_empty() {
            return Err("must not be empty");
        }
        Ok(Bytes::from(text.into_vec()))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_hexadecimal_and_may_be_negative() {
        let cases = [
            ("1", 1),
            ("69fda207c34fb20c", 0x69fd_a207_c34f_b20c),
            ("ffffffffffffffff", -1),
        ];
        for (text, id) in cases {
            assert_eq!(lease_id(text), Ok(id), "{text}");
        }
        for text in ["", "-1", "+1", "xyz", "1ffffffffffffffff"] {
            assert!(lease_id(text).is_err(), "{text} was read");
        }
    }

    #[test]
    fn a_leases_time_is_rounded_up_to_seconds() {
        for (text, want) in [
            ("60", 60),
            ("60s", 60),
            ("1500ms", 2),
            ("5m", 300),
            ("1ns", 1),
        ] {
            assert_eq!(seconds(text), Ok(want), "{text}");
        }
        for text in ["0", "-3", "-5s", "0s", "-0"] {
            let why = seconds(text).unwrap_err();
            assert_eq!(why, "must be longer than zero", "{text}");
        }
        assert!(seconds("soon").is_err());
        assert!(seconds("1.5").is_err());
    }

    #[test]
    fn a_count_is_not_negative() {
        assert_eq!(count("0"), Ok(0));
        assert_eq!(count("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(count("-1").unwrap_err(), "must not be negative");
        assert_eq!(count("ten").unwrap_err(), "write a whole number");
    }

    #[test]
    fn a_time_limit_is_longer_than_zero() {
        assert_eq!(timeout("5s"), Ok(Duration::from_secs(5)));
        assert!(timeout("0").is_err());
    }
}
