//! Keys, values, revisions, and the calls of the key-value service.

use bytes::Bytes;
use gonfalon_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest,
};
use prost::Message as _;
use rand::Rng;

use super::{Generator, LEASES, NO_LEASE};
use crate::differential::call::Call;

/// Every key that scripts write; with the locks and elections there are never more than twelve.
const KEYS: [&[u8]; 8] = [b"a", b"a/1", b"a/2", b"b", b"b\0", b"c", b"\xff", b"\0x"];
/// Just above, at and below `--max-request-bytes`, and above what gRPC itself lets through.
const BIG: [usize; 5] = [1_400_000, 1_572_800, 1_572_850, 1_600_000, 2_200_000];

impl Generator {
    pub(super) fn key(&mut self) -> Bytes {
        if self.one_in(60) {
            return Bytes::new();
        }
        Bytes::from_static(self.pick(&KEYS))
    }

    /// A key and a range end: one key, a prefix, an interval, everything, or nonsense.
    pub(super) fn interval(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        let end = match self.rng.random_range(0..8) {
            0..3 => Bytes::new(),
            3 => b"\0".as_slice().into(),
            4 => self.key(),
            5 => [key.as_ref(), b"\0"].concat().into(),
            6 if self.one_in(2) => return (b"\0".as_slice().into(), b"\0".as_slice().into()),
            _ => match key.split_last() {
                Some((&last, rest)) if last < 0xff => [rest, &[last + 1]].concat().into(),
                _ => b"\0".as_slice().into(),
            },
        };
        (key, end)
    }

    pub(super) fn value(&mut self) -> Bytes {
        if self.one_in(200) {
            return vec![b'v'; self.pick(&BIG)].into();
        }
        match self.rng.random_range(0..10) {
            0 => Bytes::new(),
            1 => vec![0xff, 0, 0x80, b'\n'].into(),
            _ => format!("v{}", self.rng.random_range(0..20)).into(),
        }
    }

    /// The present, or somewhere interesting.
    pub(super) fn some_revision(&mut self) -> i64 {
        if self.one_in(2) {
            return 0;
        }
        let back = self.rng.random_range(0..20);
        let (now, compacted) = (self.revision, self.compacted);
        match self.rng.random_range(0..16) {
            0..9 => (now - back).max(compacted),
            9 => now,
            10 => now + 1,
            11 => compacted,
            12 => compacted - 1,
            13 => compacted + 1,
            14 => self.pick(&[-1, -2, i64::MIN]),
            _ => self.pick(&[1, i64::MAX]),
        }
    }

    /// A bound of a revision filter: mostly off.
    fn bound(&mut self) -> i64 {
        if self.one_in(12) {
            self.revision - self.rng.random_range(-1..30)
        } else {
            0
        }
    }

    pub(super) fn lease_of_key(&mut self) -> i64 {
        match self.rng.random_range(0..20) {
            0..5 => self.pick(&LEASES),
            5 => NO_LEASE,
            _ => 0,
        }
    }

    pub(super) fn put(&mut self) -> PutRequest {
        let ignore_value = self.one_in(15);
        let ignore_lease = self.one_in(15);
        // An ignored field that is set all the same is an error: seldom.
        let value = if ignore_value && !self.one_in(4) {
            Bytes::new()
        } else {
            self.value()
        };
        let lease = if ignore_lease && !self.one_in(4) {
            0
        } else {
            self.lease_of_key()
        };
        let prev_kv = self.one_in(3);
        PutRequest {
            key: self.key(),
            value,
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        }
    }

    pub(super) fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.interval();
        DeleteRangeRequest {
            key,
            range_end,
            prev_kv: self.one_in(2),
        }
    }

    pub(super) fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.interval();
        let (sort_order, sort_target) = match self.rng.random_range(0..6) {
            0..3 => (0, 0),
            3 if self.one_in(5) => (self.rng.random_range(-1..5), self.rng.random_range(-1..7)),
            _ => (self.rng.random_range(0..3), self.rng.random_range(0..5)),
        };
        // Which of several equal elements are left out, or what they were sorted by, is not in the
        // answer, so that it could not be put in order.
        let is_loose = self.has_loose_ties && sort_target != 0;
        RangeRequest {
            key,
            range_end,
            limit: if self.one_in(3) && !is_loose {
                self.rng.random_range(-1..6)
            } else {
                0
            },
            revision: self.some_revision(),
            sort_order,
            sort_target,
            serializable: self.one_in(3),
            keys_only: self.one_in(5) && !is_loose,
            count_only: self.one_in(8),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    /// Older etcds drop a deletion at the compacted revision when they get round to it; waiting for
    /// the sweep makes that a matter of fact.
    pub(super) fn compact(&mut self, is_deletion: impl Fn(i64) -> bool) -> Call {
        let back = self.rng.random_range(0..40);
        let revision = match self.rng.random_range(0..8) {
            0 => self.some_revision(),
            1 => self.revision,
            _ => (self.revision - back).max(self.compacted),
        };
        Call::Compact(CompactionRequest {
            revision,
            physical: self.one_in(2) || is_deletion(revision),
        })
    }

    pub(super) fn malformed(&mut self) -> Call {
        let path = self.pick(&[
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.KV/Put",
            "/etcdserverpb.KV/Txn",
            "/etcdserverpb.KV/NoSuchMethod",
            "/etcdserverpb.NoSuchService/Range",
        ]);
        let range = RangeRequest {
            key: "a".into(),
            ..RangeRequest::default()
        }
        .encode_to_vec();
        let body = match self.rng.random_range(0..6) {
            // Cut off in the middle of a field.
            0 => range[..range.len() - 1].to_vec(),
            // A length that goes beyond the end.
            1 => vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            // A field of the wrong wire type.
            2 => vec![0x08, 0x01],
            // A field that nobody knows.
            3 => [range.as_slice(), &[0xf8, 0x3f, 0x01]].concat(),
            // Noise.
            4 => (0..self.rng.random_range(1..40))
                .map(|_| self.rng.random())
                .collect(),
            _ => Vec::new(),
        };
        Call::Raw {
            path,
            body: body.into(),
        }
    }
}
