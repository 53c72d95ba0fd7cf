//! Bytes to commands: the mirror of [`super::encode`].

use super::batch::NESTING_MAX;
use super::codec::Reader;
use super::{
    AlarmChange, AlarmKind, Command, Compare, CompareTarget, DecodeError, DeleteRange, Op, Put,
    Range, Relation, Sort, SortOrder, SortTarget, Txn,
};
use crate::{KeyRange, LeaseId, MemberId, RangeEnd, Revision};

pub(super) fn command(reader: &mut Reader) -> Result<Command, DecodeError> {
    Ok(match reader.byte()? {
        1 => Command::Put(put(reader)?),
        2 => Command::DeleteRange(delete_range(reader)?),
        3 => Command::Txn(txn(reader, 1)?),
        4 => Command::Compact {
            revision: revision(reader)?,
        },
        5 => Command::LeaseGrant {
            id: lease(reader)?,
            ttl: reader.signed()?,
        },
        6 => Command::LeaseRevoke { id: lease(reader)? },
        7 => Command::Alarm(alarm(reader)?),
        8 => Command::PublishMember {
            id: MemberId::new(reader.varint()?),
            name: reader.text()?,
            client_urls: reader.list(Reader::text)?,
        },
        number => return unknown("a command", number),
    })
}

fn put(reader: &mut Reader) -> Result<Put, DecodeError> {
    let [prev_kv, ignore_value, ignore_lease] = flags(reader)?;
    Ok(Put {
        key: reader.bytes()?,
        value: reader.bytes()?,
        lease: lease(reader)?,
        prev_kv,
        ignore_value,
        ignore_lease,
    })
}

fn delete_range(reader: &mut Reader) -> Result<DeleteRange, DecodeError> {
    let [prev_kv] = flags(reader)?;
    Ok(DeleteRange {
        range: key_range(reader)?,
        prev_kv,
    })
}

fn txn(reader: &mut Reader, nesting: usize) -> Result<Txn, DecodeError> {
    if nesting > NESTING_MAX {
        return Err(DecodeError::Nesting);
    }
    Ok(Txn {
        compare: reader.list(compare)?,
        success: reader.list(|reader| op(reader, nesting))?,
        failure: reader.list(|reader| op(reader, nesting))?,
    })
}

fn op(reader: &mut Reader, nesting: usize) -> Result<Op, DecodeError> {
    Ok(match reader.byte()? {
        1 => Op::Range(range(reader)?),
        2 => Op::Put(put(reader)?),
        3 => Op::DeleteRange(delete_range(reader)?),
        4 => Op::Txn(txn(reader, nesting + 1)?),
        number => return unknown("an operation", number),
    })
}

fn compare(reader: &mut Reader) -> Result<Compare, DecodeError> {
    let range = key_range(reader)?;
    let relation = match reader.byte()? {
        0 => Relation::Equal,
        1 => Relation::Greater,
        2 => Relation::Less,
        3 => Relation::NotEqual,
        4 => Relation::Unknown,
        number => return unknown("a relation", number),
    };
    let target = match reader.byte()? {
        0 => CompareTarget::Version(reader.signed()?),
        1 => CompareTarget::CreateRevision(reader.signed()?),
        2 => CompareTarget::ModRevision(reader.signed()?),
        3 => CompareTarget::Value(reader.bytes()?),
        4 => CompareTarget::Lease(reader.signed()?),
        5 => CompareTarget::Unknown,
        number => return unknown("what is compared", number),
    };
    Ok(Compare {
        range,
        target,
        relation,
    })
}

fn range(reader: &mut Reader) -> Result<Range, DecodeError> {
    let range = key_range(reader)?;
    let [keys_only, count_only, has_revision] = flags(reader)?;
    Ok(Range {
        range,
        limit: reader.size()?,
        revision: if has_revision {
            Some(revision(reader)?)
        } else {
            None
        },
        sort: sort(reader)?,
        keys_only,
        count_only,
        min_mod_revision: reader.signed()?,
        max_mod_revision: reader.signed()?,
        min_create_revision: reader.signed()?,
        max_create_revision: reader.signed()?,
    })
}

fn sort(reader: &mut Reader) -> Result<Sort, DecodeError> {
    let order = match reader.byte()? {
        0 => SortOrder::None,
        1 => SortOrder::Ascend,
        2 => SortOrder::Descend,
        number => return unknown("an order", number),
    };
    let target = match reader.byte()? {
        0 => SortTarget::Key,
        1 => SortTarget::Version,
        2 => SortTarget::Create,
        3 => SortTarget::Mod,
        4 => SortTarget::Value,
        number => return unknown("what to sort by", number),
    };
    Ok(Sort { order, target })
}

fn key_range(reader: &mut Reader) -> Result<KeyRange, DecodeError> {
    let end = match reader.byte()? {
        0 => RangeEnd::Single,
        1 => RangeEnd::Before(reader.bytes()?),
        2 => RangeEnd::Unbounded,
        number => return unknown("the end of a range", number),
    };
    Ok(KeyRange {
        start: reader.bytes()?,
        end,
    })
}

fn alarm(reader: &mut Reader) -> Result<AlarmChange, DecodeError> {
    let [activate] = flags(reader)?;
    let member = MemberId::new(reader.varint()?);
    let kind = match reader.byte()? {
        1 => AlarmKind::NoSpace,
        2 => AlarmKind::Corrupt,
        number => return unknown("an alarm", number),
    };
    Ok(AlarmChange {
        activate,
        member,
        kind,
    })
}

fn revision(reader: &mut Reader) -> Result<Revision, DecodeError> {
    reader.signed().map(Revision::new)
}

fn lease(reader: &mut Reader) -> Result<LeaseId, DecodeError> {
    reader.signed().map(LeaseId::new)
}

/// The first flag is the lowest bit; a bit beyond the last one is an option of a newer version.
fn flags<const N: usize>(reader: &mut Reader) -> Result<[bool; N], DecodeError> {
    let byte = reader.byte()?;
    if byte >> N != 0 {
        return unknown("flags", byte);
    }
    Ok(std::array::from_fn(|bit| byte >> bit & 1 == 1))
}

fn unknown<T>(what: &'static str, number: u8) -> Result<T, DecodeError> {
    Err(DecodeError::Unknown { what, number })
}
