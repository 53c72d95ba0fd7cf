//! The pieces that encodings are made of: numbers, byte strings, lists.
//!
//! Unsigned numbers are in base 128, least significant first; signed ones are folded so that small
//! negative ones stay short. Byte strings and lists begin with their length.

use bytes::{Buf, Bytes};

use super::DecodeError;

pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes pieces off the front of a byte string; never reads beyond its end.
#[derive(Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.rest.try_get_u8().map_err(|_| DecodeError::Short)
    }

    pub(super) fn fixed_u64(&mut self) -> Result<u64, DecodeError> {
        self.rest.try_get_u64_le().map_err(|_| DecodeError::Short)
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if bits << shift >> shift != bits {
                return Err(DecodeError::Number);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::Number)
    }

    pub(super) fn signed(&mut self) -> Result<i64, DecodeError> {
        let folded = self.varint()?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    /// A number that counts things in memory.
    pub(super) fn size(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.varint()?).map_err(|_| DecodeError::Number)
    }

    /// A byte string, as a slice of the whole.
    pub(super) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.size()?;
        if len > self.left() {
            return Err(DecodeError::Short);
        }
        Ok(self.rest.split_to(len))
    }

    pub(super) fn text(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.into()).map_err(|_| DecodeError::Text)
    }

    /// A list whose items `item` reads.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let len = self.size()?;
        // Each item takes a byte at least: a length beyond the end is noticed before memory is
        // asked for, and what is asked for stays in proportion to what has come.
        if len > self.left() {
            return Err(DecodeError::Short);
        }
        let mut items = Vec::with_capacity(len.min(CAPACITY_MAX));
        for _ in 0..len {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// Room for so many items of a list is made at once: a batch's usual maximum.
const CAPACITY_MAX: usize = 256;
