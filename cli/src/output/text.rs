//! Bytes, sizes and times as people read them.

use std::fmt::Write as _;
use std::time::Duration;

/// Text on one line: what is printable and UTF-8 as it is, all else escaped.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() => put(&mut out, format_args!("\\x{:02x}", u32::from(c))),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            put(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out
}

/// Bytes as etcdctl's `--hex` writes them: `\x66\x6f\x6f`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 4);
    for byte in bytes {
        put(&mut out, format_args!("\\x{byte:02x}"));
    }
    out
}

/// Text between quotes, as Go's `%q` writes it.
pub(crate) fn go_quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\u{7}' => out.push_str("\\a"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{b}' => out.push_str("\\v"),
                c if c.is_ascii_control() => put(&mut out, format_args!("\\x{:02x}", u32::from(c))),
                c if c.is_control() => put(&mut out, format_args!("\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            put(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// A size: `512 B`, `20.0 KiB`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths in whole numbers, so that nothing is lost above 2^53 bytes.
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = "B";
    for next in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A size as etcdctl has it, in thousands: `9 B`, `4.1 MB`, `25 MB`.
pub(crate) fn go_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog(1000);
    let base = u128::from(1000_u64.pow(power));
    let tenths = (u128::from(bytes) * 10 + base / 2) / base;
    let unit = UNITS[power as usize];
    if tenths < 100 {
        return format!("{}.{} {unit}", tenths / 10, tenths % 10);
    }
    // Half of one goes to the even side.
    let (whole, rest) = (tenths / 10, tenths % 10);
    let is_up = rest > 5 || rest == 5 && whole % 2 == 1;
    format!("{} {unit}", whole + u128::from(is_up))
}

/// A measured time, in three or four digits: `943 µs`, `1.25 ms`, `12.3 s`.
pub(crate) fn took(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (number, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = match number {
        n if n < 10.0 => 2,
        n if n < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$} {unit}")
}

/// A measured time as Go writes it, for etcdctl's formats: `943.859µs`, `1.286205ms`, `2.5s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (size, unit) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let digits = size.to_string().len() - 1;
    let fraction = format!("{:0digits$}", nanos % size);
    match fraction.trim_end_matches('0') {
        "" => format!("{}{unit}", nanos / size),
        fraction => format!("{}.{fraction}{unit}", nanos / size),
    }
}

/// Whole seconds as `1h 2m 3s`.
pub(crate) fn seconds(mut seconds: i64) -> String {
    if seconds <= 0 {
        return format!("{seconds}s");
    }
    let mut parts = Vec::new();
    for (unit, size) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if seconds >= size {
            parts.push(format!("{}{unit}", seconds / size));
            seconds %= size;
        }
    }
    parts.join(" ")
}

/// One thing or several: `1 key`, `2 keys`.
pub(crate) fn count(number: i64, thing: &str) -> String {
    if number == 1 {
        format!("1 {thing}")
    } else {
        format!("{number} {thing}s")
    }
}

/// A lease's or a member's id, as all tools write it.
pub(crate) fn lease_id(id: i64) -> String {
    format!("{id:016x}")
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_text_is_escaped() {
        assert_eq!(escape("größe".as_bytes()), "größe");
        assert_eq!(escape(b"a\nb\t\x00\xff\xfe!"), "a\\nb\\t\\x00\\xff\\xfe!");
        assert_eq!(hex(b"foo"), "\\x66\\x6f\\x6f");
        assert_eq!(go_quote(b"a\"b\\\n\x01\xff"), r#""a\"b\\\n\x01\xff""#);
    }

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ];
        for (bytes, want) in cases {
            let got = size(bytes);
            assert!(
                got == want || bytes == u64::MAX && got.starts_with("1638"),
                "{bytes}: {got}"
            );
        }
    }

    #[test]
    fn sizes_in_thousands_are_those_of_etcdctl() {
        let cases = [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_480, "20 kB"),
            (9_949, "9.9 kB"),
            (9_950, "10 kB"),
            (12_500, "12 kB"),
            (13_500, "14 kB"),
            (4_100_096, "4.1 MB"),
            (u64::MAX, "18 EB"),
        ];
        for (bytes, want) in cases {
            assert_eq!(go_size(bytes), want, "{bytes}");
        }
    }

    #[test]
    fn times_keep_three_digits() {
        let cases = [
            (1, "0.00 µs"),
            (943_859, "944 µs"),
            (1_286_205, "1.29 ms"),
            (28_600_000, "28.6 ms"),
            (61_000_000_000, "61.0 s"),
        ];
        for (nanos, want) in cases {
            assert_eq!(took(Duration::from_nanos(nanos)), want, "{nanos} ns");
        }
    }

    #[test]
    fn go_writes_times_without_trailing_zeros() {
        let cases = [
            (0, "0s"),
            (7, "7ns"),
            (943_859, "943.859µs"),
            (1_286_205, "1.286205ms"),
            (2_500_000_000, "2.5s"),
            (5_000_000, "5ms"),
            (1_000_000_001, "1.000000001s"),
        ];
        for (nanos, want) in cases {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), want, "{nanos} ns");
        }
    }

    #[test]
    fn seconds_are_broken_up() {
        for (number, want) in [
            (0, "0s"),
            (-1, "-1s"),
            (59, "59s"),
            (60, "1m"),
            (3661, "1h 1m 1s"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(seconds(number), want);
        }
    }
}
