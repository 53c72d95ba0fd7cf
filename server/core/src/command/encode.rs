//! Commands to bytes. Numbers once given are never given another meaning: see [`super::decode`].

use super::batch::NESTING_MAX;
use super::codec::{put_bytes, put_signed, put_varint};
use super::{
    AlarmChange, AlarmKind, Command, Compare, CompareTarget, DeleteRange, Op, Put, Range, Relation,
    Sort, SortOrder, SortTarget, Txn,
};
use crate::{KeyRange, RangeEnd};

pub(super) fn command(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::Put(it) => {
            out.push(1);
            put(out, it);
        }
        Command::DeleteRange(it) => {
            out.push(2);
            delete_range(out, it);
        }
        Command::Txn(it) => {
            out.push(3);
            txn(out, it, 1);
        }
        Command::Compact { revision } => {
            out.push(4);
            put_signed(out, revision.get());
        }
        Command::LeaseGrant { id, ttl } => {
            out.push(5);
            put_signed(out, id.get());
            put_signed(out, *ttl);
        }
        Command::LeaseRevoke { id } => {
            out.push(6);
            put_signed(out, id.get());
        }
        Command::Alarm(it) => {
            out.push(7);
            alarm(out, it);
        }
        Command::PublishMember {
            id,
            name,
            client_urls,
        } => {
            out.push(8);
            put_varint(out, id.get());
            put_bytes(out, name.as_bytes());
            put_varint(out, client_urls.len() as u64);
            for url in client_urls {
                put_bytes(out, url.as_bytes());
            }
        }
    }
}

fn put(out: &mut Vec<u8>, it: &Put) {
    out.push(flags([it.prev_kv, it.ignore_value, it.ignore_lease]));
    put_bytes(out, &it.key);
    put_bytes(out, &it.value);
    put_signed(out, it.lease.get());
}

fn delete_range(out: &mut Vec<u8>, it: &DeleteRange) {
    out.push(flags([it.prev_kv]));
    key_range(out, &it.range);
}

fn txn(out: &mut Vec<u8>, it: &Txn, nesting: usize) {
    assert!(
        nesting <= NESTING_MAX,
        "the wire's parser refuses deeper transactions"
    );
    put_varint(out, it.compare.len() as u64);
    for it in &it.compare {
        compare(out, it);
    }
    for branch in [&it.success, &it.failure] {
        put_varint(out, branch.len() as u64);
        for it in branch {
            op(out, it, nesting);
        }
    }
}

fn op(out: &mut Vec<u8>, it: &Op, nesting: usize) {
    match it {
        Op::Range(it) => {
            out.push(1);
            range(out, it);
        }
        Op::Put(it) => {
            out.push(2);
            put(out, it);
        }
        Op::DeleteRange(it) => {
            out.push(3);
            delete_range(out, it);
        }
        Op::Txn(it) => {
            out.push(4);
            txn(out, it, nesting + 1);
        }
    }
}

fn compare(out: &mut Vec<u8>, it: &Compare) {
    key_range(out, &it.range);
    out.push(match it.relation {
        Relation::Equal => 0,
        Relation::Greater => 1,
        Relation::Less => 2,
        Relation::NotEqual => 3,
        Relation::Unknown => 4,
    });
    let (target, number) = match &it.target {
        CompareTarget::Version(number) => (0, *number),
        CompareTarget::CreateRevision(number) => (1, *number),
        CompareTarget::ModRevision(number) => (2, *number),
        CompareTarget::Lease(number) => (4, *number),
        CompareTarget::Value(value) => {
            out.push(3);
            return put_bytes(out, value);
        }
        CompareTarget::Unknown => return out.push(5),
    };
    out.push(target);
    put_signed(out, number);
}

fn range(out: &mut Vec<u8>, it: &Range) {
    key_range(out, &it.range);
    out.push(flags([it.keys_only, it.count_only, it.revision.is_some()]));
    put_varint(out, it.limit as u64);
    if let Some(revision) = it.revision {
        put_signed(out, revision.get());
    }
    sort(out, it.sort);
    for bound in [
        it.min_mod_revision,
        it.max_mod_revision,
        it.min_create_revision,
        it.max_create_revision,
    ] {
        put_signed(out, bound);
    }
}

fn sort(out: &mut Vec<u8>, it: Sort) {
    out.push(match it.order {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
    });
    out.push(match it.target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    });
}

fn key_range(out: &mut Vec<u8>, it: &KeyRange) {
    match &it.end {
        RangeEnd::Single => out.push(0),
        RangeEnd::Before(end) => {
            out.push(1);
            put_bytes(out, end);
        }
        RangeEnd::Unbounded => out.push(2),
    }
    put_bytes(out, &it.start);
}

fn alarm(out: &mut Vec<u8>, it: &AlarmChange) {
    out.push(flags([it.activate]));
    put_varint(out, it.member.get());
    out.push(match it.kind {
        AlarmKind::NoSpace => 1,
        AlarmKind::Corrupt => 2,
    });
}

/// The first flag is the lowest bit.
fn flags<const N: usize>(flags: [bool; N]) -> u8 {
    flags
        .iter()
        .rev()
        .fold(0, |byte, flag| byte << 1 | u8::from(*flag))
}
