//! Values as deterministic CBOR, which flagd's third way of bucketing hashes.
//!
//! RFC 8949, section 4.2.1 (core deterministic encoding), and what flagd adds: a real number that is
//! whole and within 64 bits is encoded as a whole number, so that 1 and 1.0 are the same user.
//!
//! Invariant: bytes go where they are hashed as they come about; only the names of an object are
//! put into a list, to sort them.

use std::fmt::Write;

use super::murmur::Murmur3;
use super::value::{Number, Val};

// Major types, RFC 8949 section 3.1.
const NATURAL: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const OBJECT: u8 = 5;

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const HALF: u8 = 0xf9;
const SINGLE: u8 = 0xfa;
const DOUBLE: u8 = 0xfb;

/// Two to the power of 64, the first number that is encoded as a real number.
const NATURALS_END: f64 = 18_446_744_073_709_551_616.0;
/// Minus two to the power of 63, the last number below zero that is encoded as a whole number.
const NEGATIVES_END: f64 = -9_223_372_036_854_775_808.0;

/// Hashes the encoding of a value.
pub(super) fn write(value: &Val<'_>, out: &mut Murmur3) {
    match value {
        Val::Null => out.write(&[NULL]),
        Val::Bool(it) => out.write(&[if *it { TRUE } else { FALSE }]),
        Val::Number(it) => write_number(*it, out),
        Val::Text(it) => write_text(it, out),
        Val::List(list) => {
            write_list_head(list.len(), out);
            list.iter().for_each(|value| write(&value, out));
        }
        Val::Object(object) => {
            write_head(OBJECT, object.len() as u64, out);
            let mut pairs = object.pairs();
            // The order of the encoded names: the head, which has the length, comes first.
            pairs.sort_unstable_by_key(|(name, _)| (name.len(), *name));
            for (name, value) in pairs {
                write_text(name, out);
                write(&value, out);
            }
        }
    }
}

/// Hashes the head of a list, after which its values must follow.
pub(super) fn write_list_head(len: usize, out: &mut Murmur3) {
    write_head(LIST, len as u64, out);
}

pub(super) fn write_text(text: &str, out: &mut Murmur3) {
    write_text_head(text.len(), out);
    out.write(text.as_bytes());
}

/// Hashes the head of a text of so many bytes, which must follow.
pub(super) fn write_text_head(len: usize, out: &mut Murmur3) {
    write_head(TEXT, len as u64, out);
}

fn write_head(major: u8, argument: u64, out: &mut Murmur3) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    match argument {
        0..=23 => out.write(&[major | bytes[7]]),
        24..=0xff => out.write(&[major | 0x18, bytes[7]]),
        0x100..=0xffff => {
            out.write(&[major | 0x19]);
            out.write(&bytes[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.write(&[major | 0x1a]);
            out.write(&bytes[4..]);
        }
        _ => {
            out.write(&[major | 0x1b]);
            out.write(&bytes);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the bounds and the wholeness are checked before"
)]
fn write_number(number: Number, out: &mut Murmur3) {
    match number {
        Number::Natural(it) => write_head(NATURAL, it, out),
        Number::Negative(it) => write_head(NEGATIVE, !it.cast_unsigned(), out),
        Number::Real(it) if it.fract() == 0.0 && (0.0..NATURALS_END).contains(&it) => {
            write_head(NATURAL, it as u64, out);
        }
        Number::Real(it) if it.fract() == 0.0 && (NEGATIVES_END..0.0).contains(&it) => {
            write_head(NEGATIVE, !(it as i64).cast_unsigned(), out);
        }
        Number::Real(it) => write_real(it, out),
    }
}

/// The shortest form that keeps the value.
#[expect(
    clippy::cast_possible_truncation,
    reason = "compared with the value right away"
)]
fn write_real(real: f64, out: &mut Murmur3) {
    let single = real as f32;
    if real.is_nan() {
        out.write(&[HALF, 0x7e, 0x00]);
    } else if f64::from(single).to_bits() != real.to_bits() {
        out.write(&[DOUBLE]);
        out.write(&real.to_be_bytes());
    } else if let Some(half) = half(single) {
        out.write(&[HALF]);
        out.write(&half.to_be_bytes());
    } else {
        out.write(&[SINGLE]);
        out.write(&single.to_be_bytes());
    }
}

/// The bits of the IEEE 754 half that has the same value; none if no half has it.
fn half(single: f32) -> Option<u16> {
    let bits = single.to_bits();
    let [high, low] = [bits >> 16, bits & 0x7f_ffff];
    let sign = high & 0x8000;
    let exponent = (bits >> 23 & 0xff).cast_signed() - 127;
    let magnitude = match exponent {
        128 if low == 0 => 0x7c00,
        -127 if low == 0 => 0,
        // Thirteen of the 23 bits must be zero.
        -14..=15 if low.trailing_zeros() >= 13 => {
            ((exponent + 15).cast_unsigned() << 10) | (low >> 13)
        }
        // A subnormal half: the leading one becomes visible and moves to the right.
        -24..=-15 => {
            let shift = (-1 - exponent).cast_unsigned();
            let whole = low | 0x80_0000;
            if whole.trailing_zeros() < shift {
                return None;
            }
            whole >> shift
        }
        _ => return None,
    };
    u16::try_from(sign | magnitude).ok()
}

/// How long a text will be that is written in pieces.
#[derive(Debug, Default)]
pub(super) struct Length(pub(super) usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn hash(value: &Value) -> u32 {
        let mut out = Murmur3::default();
        write(&Val::of(value), &mut out);
        out.finish()
    }

    fn hash_of_bytes(hex: &str) -> u32 {
        let mut out = Murmur3::default();
        for at in (0..hex.len()).step_by(2) {
            let byte = u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            out.write(&[byte]);
        }
        out.finish()
    }

    #[test]
    fn every_kind_of_value_has_the_bytes_of_the_standard() {
        // RFC 8949, appendix A, and cbor2 5.9 (Python) with canonical=True for what is not there.
        for (value, bytes) in [
            (json!(0), "00"),
            (json!(23), "17"),
            (json!(24), "1818"),
            (json!(1000), "1903e8"),
            (json!(1_000_000), "1a000f4240"),
            (json!(1_000_000_000_000_u64), "1b000000e8d4a51000"),
            (json!(u64::MAX), "1bffffffffffffffff"),
            (json!(-1), "20"),
            (json!(-1000), "3903e7"),
            (json!(i64::MIN), "3b7fffffffffffffff"),
            (json!(1.0), "01"),
            (json!(-0.0), "00"),
            (json!(-4.0), "23"),
            (json!(1e19), "1b8ac7230489e80000"),
            (json!(18_446_744_073_709_551_616.0), "fa5f800000"),
            (json!(1.1), "fb3ff199999999999a"),
            (json!(1.5), "f93e00"),
            (json!(65504.5), "fa477fe080"),
            (json!(100_000.5), "fa47c35040"),
            (json!(1e300), "fb7e37e43c8800759c"),
            (json!(5.960_464_477_539_063e-8), "f90001"),
            (json!(0.000_061_035_156_25), "f90400"),
            (json!(0.000_030_517_578_125), "f90200"),
            (json!(2.980_232_238_769_531_3e-8), "fa33000000"),
            (json!(-4.1), "fbc010666666666666"),
            (json!(-1.5), "f9be00"),
            (json!(false), "f4"),
            (json!(true), "f5"),
            (json!([null]), "81f6"),
            (json!(""), "60"),
            (json!("\u{fc}"), "62c3bc"),
            (json!([1, [2, 3]]), "8201820203"),
            (
                json!({"b": 1, "aa": [2], "a": 3}),
                "a36161036162016261618102",
            ),
        ] {
            assert_eq!(hash(&value), hash_of_bytes(bytes), "{value}");
        }
    }
}
