//! Many commands as one entry of the log.

use bytes::Bytes;

use super::Command;
use super::codec::{Reader, put_varint};
use super::{decode, encode};
use crate::MemberId;

/// The first byte of every batch: which encoding follows.
const FORMAT: u8 = 1;

/// Transactions are nested at most so deep: as many as etcd's default of 128 operations allows, the
/// outermost, one in each other, and a last one without any.
pub const NESTING_MAX: usize = 129;

/// Commands that are proposed together and carried out in order, each on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Who proposed it and waits for the answers.
    pub origin: MemberId,
    /// Tells the batches of one run of one member apart.
    pub sequence: u64,
    /// At least one command.
    pub commands: Vec<Command>,
}

/// The bytes are not a batch that this version can read.
///
/// The log's checksums have passed by then: either a newer version wrote them, or there is a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Another encoding.
    #[error("batch in format {0}, this version reads {FORMAT}")]
    Format(u8),
    /// A field goes beyond the end.
    #[error("batch ends within a field")]
    Short,
    /// Something follows the last command.
    #[error("batch has {0} bytes too many")]
    Long(usize),
    /// A number that stands for nothing this version knows.
    #[error("batch has {number} where {what} is expected")]
    Unknown {
        /// What was expected.
        what: &'static str,
        /// What was found.
        number: u8,
    },
    /// A number that is longer than 64 bits.
    #[error("batch has a number beyond 64 bits")]
    Number,
    /// A text that is not UTF-8.
    #[error("batch has a text that is not UTF-8")]
    Text,
    /// Transactions nested too deep.
    #[error("batch has transactions nested more than {NESTING_MAX} deep")]
    Nesting,
}

impl Batch {
    /// Appends the batch's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        out.extend_from_slice(&self.origin.get().to_le_bytes());
        put_varint(out, self.sequence);
        put_varint(out, self.commands.len() as u64);
        for command in &self.commands {
            encode::command(out, command);
        }
    }

    /// Reads a batch. Keys and values are slices of `bytes`, not copies.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let format = reader.byte()?;
        if format != FORMAT {
            return Err(DecodeError::Format(format));
        }
        let origin = MemberId::new(reader.fixed_u64()?);
        let sequence = reader.varint()?;
        let commands = reader.list(decode::command)?;
        match reader.left() {
            0 => Ok(Self {
                origin,
                sequence,
                commands,
            }),
            left => Err(DecodeError::Long(left)),
        }
    }
}
