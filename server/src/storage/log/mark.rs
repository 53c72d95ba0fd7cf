//! The high-water mark: a small file that remembers how far the log was fsynced.
//!
//! A deleted or truncated write-ahead log looks to RocksDB like one that was never written. The mark
//! is raised at least once a second while there are writes, and when the store is closed. If the log
//! recovers less than the mark says, writes are lost and the store does not open.
//!
//! Two slots, each on a page of its own, are written in turn: a power failure while one is being
//! written leaves the other.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::storage::{StorageError, sync_dir};

/// Name of the file in the log's directory. RocksDB leaves names alone that it does not know.
const FILE: &str = "SYNCED";
const MAGIC: &[u8; 8] = b"GfnMark\x01";
const SLOT_AT: [u64; 2] = [0, 4096];
/// Magic, store, sequence, CRC-32C of these.
const SLOT_LEN: usize = 8 + 8 + 8 + 4;

/// The open file.
#[derive(Debug)]
pub(super) struct Mark {
    dir: PathBuf,
    file: File,
    store: u64,
    sequence: u64,
    /// Where the next write goes: the slot with the lower sequence.
    next_slot: usize,
}

impl Mark {
    /// Opens the mark in `dir`; none if there is no such file.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, StorageError> {
        let path = dir.join(FILE);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io(&path, "opening", error)),
        };
        let mut slots = [None; 2];
        for (slot, at) in slots.iter_mut().zip(SLOT_AT) {
            let mut bytes = [0; SLOT_LEN];
            // A file too short is one with fewer sound slots.
            *slot = file
                .read_exact_at(&mut bytes, at)
                .ok()
                .and_then(|()| decode(&bytes));
        }
        let Some((newest, (store, sequence))) = slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| slot.map(|slot| (index, slot)))
            .max_by_key(|(_, (_, sequence))| *sequence)
        else {
            return Err(StorageError::corrupt(
                &path,
                "the high-water mark",
                "no slot is readable",
            ));
        };
        Ok(Some(Self {
            dir: dir.to_owned(),
            file,
            store,
            sequence,
            next_slot: 1 - newest,
        }))
    }

    /// Creates the mark of a new store in `dir`: nothing has been synced yet.
    ///
    /// Written aside and renamed, so that there is never a mark without a readable slot.
    pub(super) fn create(dir: &Path, store: u64) -> Result<Self, StorageError> {
        let path = dir.join(FILE);
        let aside = dir.join("SYNCED.new");
        let io = |error: std::io::Error| StorageError::io(&path, "creating", error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&aside)
            .map_err(io)?;
        for at in SLOT_AT {
            file.write_all_at(&encode(store, 0), at).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        std::fs::rename(&aside, &path).map_err(io)?;
        sync_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            file,
            store,
            sequence: 0,
            next_slot: 0,
        })
    }

    /// Raises the mark and waits until it is on disk. A sequence at or below it changes nothing.
    pub(super) fn raise(&mut self, sequence: u64) -> Result<(), StorageError> {
        if sequence <= self.sequence {
            return Ok(());
        }
        let io = |error| StorageError::io(&self.dir.join(FILE), "raising the mark", error);
        let slot = encode(self.store, sequence);
        self.file
            .write_all_at(&slot, SLOT_AT[self.next_slot])
            .map_err(io)?;
        self.file.sync_data().map_err(io)?;
        self.sequence = sequence;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    /// The number drawn when the store was created.
    pub(super) fn store(&self) -> u64 {
        self.store
    }

    /// The last batch that is known to have been fsynced.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }
}

fn encode(store: u64, sequence: u64) -> [u8; SLOT_LEN] {
    let mut bytes = [0; SLOT_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&store.to_be_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_LEN]) -> Option<(u64, u64)> {
    let number = |at: usize| {
        let mut be = [0; 8];
        be.copy_from_slice(&bytes[at..at + 8]);
        u64::from_be_bytes(be)
    };
    let is_sound =
        bytes.starts_with(MAGIC) && bytes[24..] == crc32c::crc32c(&bytes[..24]).to_be_bytes();
    is_sound.then(|| (number(8), number(16)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_the_loss_of_the_slot_that_was_being_written() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            Mark::open(dir.path()).unwrap().is_none(),
            "a new directory has no mark"
        );
        let mut mark = Mark::create(dir.path(), 7).unwrap();
        for sequence in [5, 9, 12] {
            mark.raise(sequence).unwrap();
        }
        mark.raise(3).unwrap();
        let torn = SLOT_AT[1 - mark.next_slot];
        drop(mark);
        let mark = Mark::open(dir.path()).unwrap().unwrap();
        assert_eq!(
            (mark.store(), mark.sequence()),
            (7, 12),
            "marks never go down"
        );
        mark.file.write_all_at(&[0xff], torn + 20).unwrap();
        let mark = Mark::open(dir.path()).unwrap().unwrap();
        assert_eq!(mark.sequence(), 9, "the mark before is still there");
    }

    #[test]
    fn a_mark_without_a_readable_slot_is_an_error_not_a_new_store() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"").unwrap();
        let error = Mark::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no slot is readable"), "{error}");
    }
}
