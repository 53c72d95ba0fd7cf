//! Proof, within the write-ahead log itself, of what had reached the disk.
//!
//! RocksDB's recovery stops at the first damaged record and opens without what follows. It cannot
//! tell a torn tail, which is what a crash leaves behind, from damage in the middle, which loses
//! writes that were acknowledged. We can: every batch carries a [`Witness`], its own number and the
//! number of the last batch that was known to be fsynced when it was written. Before RocksDB opens
//! the files, [`scan`] finds every witness in their raw bytes, also those behind the damage. If one
//! of them says that batch 900 was on disk and RocksDB recovers 500, writes are lost. If the last
//! batch that RocksDB recovers is at or above what every witness says, only a tail is torn.
//!
//! A witness is found by its magic and believed by its checksum and by the number of the store,
//! which is drawn at random, so that a user's value cannot pretend to be one. Recycled files hold
//! witnesses of the past: what they say was on disk was, so they do no harm. A witness that
//! straddles RocksDB's 32 KiB blocks is cut in two and not found; its neighbours are.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memchr::memmem;

use crate::storage::StorageError;

const MAGIC: &[u8; 8] = b"\xf5GfnWit\x01";
/// Magic, store, sequence, synced, CRC-32C of these.
const LEN: usize = 8 + 8 + 8 + 8 + 4;
/// The log is scanned in pieces of this size.
const CHUNK_BYTES: usize = 1 << 20;

/// What a batch says of itself and of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Witness {
    /// Drawn when the store was created.
    pub(super) store: u64,
    /// Number of the batch: 1, 2, 3, …
    pub(super) sequence: u64,
    /// The last batch that was fsynced when this one was written; below `sequence`.
    pub(super) synced: u64,
}

impl Witness {
    /// The bytes that go into the batch.
    pub(super) fn encode(&self) -> [u8; LEN] {
        debug_assert!(
            self.synced < self.sequence,
            "a batch is not on disk before it is written"
        );
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.store.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] wrote; none if it is anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let number = |at: usize| {
            let mut be = [0; 8];
            be.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(be)
        };
        let is_sound =
            bytes.starts_with(MAGIC) && bytes[32..] == crc32c::crc32c(&bytes[..32]).to_be_bytes();
        is_sound.then(|| Self {
            store: number(8),
            sequence: number(16),
            synced: number(24),
        })
    }
}

/// The greatest batch that a witness in the write-ahead logs of `dir` says was fsynced; 0 if none.
pub(super) fn scan(dir: &Path, store: u64) -> Result<u64, StorageError> {
    let io = |error: std::io::Error| StorageError::io(dir, "reading the write-ahead log", error);
    let mut synced = 0;
    for file in std::fs::read_dir(dir).map_err(io)? {
        let path = file.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            synced = synced.max(scan_file(&path, store).map_err(io)?);
        }
    }
    Ok(synced)
}

fn scan_file(path: &Path, store: u64) -> std::io::Result<u64> {
    let finder = memmem::Finder::new(MAGIC);
    let mut file = File::open(path)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    // Bytes at the start of the buffer that belong to a witness which the last piece cut in two.
    let mut kept = 0;
    let mut synced = 0;
    loop {
        let read = file.read(&mut buffer[kept..])?;
        if read == 0 {
            return Ok(synced);
        }
        let filled = &buffer[..kept + read];
        for at in finder.find_iter(filled) {
            let witness = filled.get(at..at + LEN).and_then(Witness::decode);
            if let Some(witness) = witness.filter(|witness| witness.store == store) {
                synced = synced.max(witness.synced);
            }
        }
        let keep = filled.len().min(LEN - 1);
        let from = filled.len() - keep;
        buffer.copy_within(from..from + keep, 0);
        kept = keep;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(sequence: u64) -> Witness {
        Witness {
            store: 7,
            sequence,
            synced: sequence - 1,
        }
    }

    #[test]
    fn a_witness_reads_back_and_no_flipped_bit_goes_unnoticed() {
        let bytes = witness(900).encode();
        assert_eq!(Witness::decode(&bytes), Some(witness(900)));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Witness::decode(&damaged), None, "bit {bit} flipped");
        }
    }

    #[test]
    fn a_scan_finds_witnesses_behind_damage_and_across_its_own_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0xf5; 3 * CHUNK_BYTES];
        for (at, sequence) in [(0, 10), (CHUNK_BYTES - 17, 30), (2 * CHUNK_BYTES + 5, 20)] {
            bytes[at..at + LEN].copy_from_slice(&witness(sequence).encode());
        }
        std::fs::write(dir.path().join("000004.log"), &bytes).unwrap();
        std::fs::write(dir.path().join("CURRENT"), witness(99).encode()).unwrap();
        assert_eq!(
            scan(dir.path(), 7).unwrap(),
            29,
            "the greatest, and only from *.log"
        );
        assert_eq!(
            scan(dir.path(), 8).unwrap(),
            0,
            "another store's witnesses count for nothing"
        );
    }
}
