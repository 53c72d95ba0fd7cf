//! The log's keys and values.
//!
//! | family | key | value |
//! |---|---|---|
//! | `log` | index, big-endian | CRC-32C of key and entry, then the entry as `peer.proto` has it |
//! | `meta` | `vote`, `committed`, `purged` | the message of `peer.proto`, with the same checksum before it |
//! | `meta` | `witness` | [`super::witness::Witness`] |
//! | `meta` | `format` | a number |
//!
//! RocksDB checks its blocks, but not what happens to bytes between us and it; our own checksum goes
//! from the moment an entry is written to the moment it is used.

use gonfalon_proto::peer as pb;
use prost::Message;

use crate::raft::{Entry, entry_from_pb, entry_to_pb};

pub(super) const VOTE: &[u8] = b"vote";
pub(super) const COMMITTED: &[u8] = b"committed";
pub(super) const PURGED: &[u8] = b"purged";
pub(super) const WITNESS: &[u8] = b"witness";
pub(super) const FORMAT_KEY: &[u8] = b"format";
/// What this version writes. A reader refuses what is greater.
pub(super) const FORMAT: u32 = 1;

const CRC_LEN: usize = 4;
/// Above every key of an entry.
pub(super) const AFTER_LAST: [u8; 9] = [0xff; 9];

/// The key of the entry at `index`.
pub(super) fn entry_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// The value of an entry.
pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    seal(&entry_key(entry.log_id.index), &entry_to_pb(entry))
}

/// Reads what [`encode_entry`] wrote.
pub(super) fn decode_entry(key: &[u8], value: &[u8]) -> Result<Entry, String> {
    let message: pb::Entry = open(key, value)?;
    let entry = entry_from_pb(message).map_err(|error| error.to_string())?;
    if entry_key(entry.log_id.index) != key {
        return Err(format!("it holds entry {}", entry.log_id));
    }
    Ok(entry)
}

/// A message with the checksum of itself and of the key it is stored under.
pub(super) fn seal(key: &[u8], message: &impl Message) -> Vec<u8> {
    let mut value = Vec::with_capacity(CRC_LEN + message.encoded_len());
    value.extend_from_slice(&[0; CRC_LEN]);
    message.encode(&mut value).expect("a Vec grows");
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &value[CRC_LEN..]);
    value[..CRC_LEN].copy_from_slice(&crc.to_be_bytes());
    value
}

/// Reads what [`seal`] wrote.
pub(super) fn open<M: Message + Default>(key: &[u8], value: &[u8]) -> Result<M, String> {
    let (crc, body) = value.split_at_checked(CRC_LEN).ok_or("it is cut off")?;
    let found = crc32c::crc32c_append(crc32c::crc32c(key), body);
    if crc != found.to_be_bytes() {
        return Err("its checksum does not match".to_owned());
    }
    M::decode(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::EntryPayload;

    use super::*;
    use crate::raft::{Payload, log_id_from_pb};

    fn entry() -> Entry {
        let log_id = log_id_from_pb(pb::LogId { term: 3, index: 9 });
        Entry {
            log_id,
            payload: EntryPayload::Normal(Payload(Bytes::from_static(b"commands"))),
        }
    }

    #[test]
    fn an_entry_reads_back_and_no_flipped_bit_goes_unnoticed() {
        let (key, value) = (entry_key(9), encode_entry(&entry()));
        assert_eq!(decode_entry(&key, &value), Ok(entry()));
        for bit in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_entry(&key, &damaged).is_err(), "bit {bit} flipped");
        }
        assert!(
            decode_entry(&entry_key(8), &value).is_err(),
            "an entry in another's place"
        );
    }
}
