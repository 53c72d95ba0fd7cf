//! `MurmurHash3_x86_32` with seed 0 of bytes that come in pieces.
//!
//! flagd hashes a key that is often put together of several texts; hashing them as they come needs
//! no room for the whole. Algorithm: Austin Appleby's `MurmurHash3.cpp`, which is in the public domain.

use std::fmt;

const C1: u32 = 0xcc9e_2d51;
const C2: u32 = 0x1b87_3593;

/// The hash of what was written so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Murmur3 {
    hash: u32,
    /// The bytes of an unfinished block of four, lowest first.
    block: u32,
    /// How many bytes were written, modulo 2^32 as the algorithm counts.
    len: u32,
}

impl Murmur3 {
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let missing = (4 - self.len as usize % 4) % 4;
        let (first, rest) = bytes.split_at(missing.min(bytes.len()));
        self.write_bytes(first);
        let mut blocks = rest.chunks_exact(4);
        for block in &mut blocks {
            let block = block.try_into().expect("chunks of four");
            self.mix(u32::from_le_bytes(block));
            self.len = self.len.wrapping_add(4);
        }
        self.write_bytes(blocks.remainder());
    }

    pub(super) fn finish(&self) -> u32 {
        let mut hash = self.hash;
        if !self.len.is_multiple_of(4) {
            hash ^= scramble(self.block);
        }
        hash ^= self.len;
        hash ^= hash >> 16;
        hash = hash.wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 13;
        hash = hash.wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }

    fn write_bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let at = self.len % 4;
            self.block |= u32::from(byte) << (8 * at);
            self.len = self.len.wrapping_add(1);
            if at == 3 {
                self.mix(self.block);
                self.block = 0;
            }
        }
    }

    fn mix(&mut self, block: u32) {
        let hash = (self.hash ^ scramble(block)).rotate_left(13);
        self.hash = hash.wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
}

/// So that a text can be formatted into a hash.
impl fmt::Write for Murmur3 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

fn scramble(block: u32) -> u32 {
    block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(pieces: &[&[u8]]) -> u32 {
        let mut murmur = Murmur3::default();
        for piece in pieces {
            murmur.write(piece);
        }
        murmur.finish()
    }

    #[test]
    fn known_texts_have_the_hashes_that_others_give_them() {
        // From mmh3 5.3.1 (Python): mmh3.hash(text, signed=False).
        for (text, want) in [
            ("", 0),
            ("a", 0x3c25_69b2),
            ("ab", 0x9bbf_d75f),
            ("abc", 0xb3dd_93fa),
            ("abcd", 0x43ed_676a),
            ("dark_mode", 0x4677_ebbd),
            ("\u{1f600}\u{fc}", 0xedb8_3aab),
        ] {
            assert_eq!(hash(&[text.as_bytes()]), want, "{text:?}");
        }
    }

    proptest! {
        /// Model: the same bytes in one piece.
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            cuts in prop::collection::vec(0_usize..40, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            prop_assert_eq!(hash(&pieces), hash(&[&bytes]));
        }
    }
}
