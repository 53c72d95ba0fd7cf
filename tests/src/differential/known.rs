//! What the references answer otherwise than etcd 3.7, each with its reason.
//!
//! Nothing here is ignored: an entry rewrites the reference's answer into the exact answer of 3.7,
//! which the server under test must then give. Two differences need no entry because the reference
//! is not asked: `RangeStream` (3.7; it must give the unary answer), and progress on a stream that
//! has no watcher or one that waits for a future revision (3.4 and 3.5 answer at once, which let
//! progress overtake events; newer ones stay silent).

use gonfalon_proto::etcdserverpb::request_op::Request;
use gonfalon_proto::etcdserverpb::response_op::Response;
use gonfalon_proto::etcdserverpb::{
    HashKvResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
    WatchCreateRequest,
};
use gonfalon_proto::mvccpb::KeyValue;
use tonic::Code;

use super::call::{Answer, Call, Script, WatchStep};
use super::memory::{Memory, is_delete, revision_of};
use super::watching::{Piece, Seen};
use crate::binaries::Server;

/// The default of `--quota-backend-bytes`, which newer servers report.
const QUOTA_BYTES: i64 = 2 << 30;
/// `ASCEND`, `DESCEND` and `NOPUT` have no names here: what counts is which numbers exist.
const SORT_ORDER_MAX: i32 = 2;
const SORT_TARGET_MAX: i32 = 4;
const SORT_TARGET_VALUE: i32 = 4;

/// One difference.
#[derive(Debug)]
#[non_exhaustive]
pub struct Difference {
    /// Short, for statistics.
    pub name: &'static str,
    /// Which releases changed it, and where that is known from.
    pub because: &'static str,
    /// Between which servers.
    pub applies: fn(reference: Server, subject: Server) -> bool,
    rewrite: fn(&Call, &mut Answer, &Past<'_>),
}

/// What the reference's past says about an answer.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "built where calls are compared")]
pub struct Past<'a> {
    /// The store's revision, if the call is about alarms or a hash.
    pub revision: i64,
    /// Its events and its last compaction.
    pub memory: &'a Memory,
}

fn to_current(_: Server, subject: Server) -> bool {
    subject.is_current()
}

/// The table.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "keys_only leaves the lease out",
        because: "3.7 answers it from the index in memory, which has no leases, except when \
                  sorting by value",
        applies: to_current,
        rewrite: |call, answer, _| {
            each_range(call, answer, &mut |request, response| {
                let is_streamed = matches!(call, Call::RangeStream(_));
                let by_value = request.sort_target == SORT_TARGET_VALUE;
                if request.keys_only && (is_streamed || !by_value) {
                    response.kvs.iter_mut().for_each(|kv| kv.lease = 0);
                }
            });
        },
    },
    Difference {
        name: "sort options that do not exist are refused",
        because: "3.6 checks the enums before anything but the key; 3.4 and 3.5 take any number",
        applies: to_current,
        rewrite: |call, answer, _| {
            let (Call::Range(request) | Call::RangeStream(request)) = call else {
                return;
            };
            let exists = (0..=SORT_ORDER_MAX).contains(&request.sort_order)
                && (0..=SORT_TARGET_MAX).contains(&request.sort_target);
            if !exists && !request.key.is_empty() {
                *answer = Answer::error(Code::InvalidArgument, "etcdserver: invalid sort option");
            }
        },
    },
    Difference {
        name: "a range stream neither sorts nor filters",
        because: "3.7 streams in key order as it reads and says so for what would need all keys",
        applies: to_current,
        rewrite: |call, answer, _| {
            let Call::RangeStream(request) = call else {
                return;
            };
            if let Some(text) = unstreamable(request) {
                *answer = Answer::error(Code::Unimplemented, text);
            } else if let Answer::Range(response) = answer {
                // A target without an order sorts what the limit has left.
                response.kvs.sort_by(|a, b| a.key.cmp(&b.key));
            }
        },
    },
    Difference {
        name: "equal elements of a sort are in the order of their keys",
        because: "3.5.1 is built by Go 1.16, whose sort leaves more than six elements in any \
                  order where they are equal; newer ones keep up to twelve in order",
        applies: |reference, _| has_loose_ties(reference),
        rewrite: |call, answer, _| {
            each_range(call, answer, &mut |request, response| {
                if request.sort_target != 0 && !matches!(call, Call::RangeStream(_)) {
                    sort_like_go_1_19(request, response);
                }
            });
        },
    },
    Difference {
        name: "alarms come with a header",
        because: "3.4 sent none; 3.5.1 does",
        applies: |reference, subject| reference == Server::Etcd34 && subject != Server::Etcd34,
        rewrite: |_, answer, past| {
            if let Answer::Alarms(alarms) = answer {
                alarms.header = Some(right_header(past.revision));
            }
        },
    },
    Difference {
        name: "status tells storage version, quota and downgrade",
        because: "new fields of 3.6",
        applies: to_current,
        rewrite: |_, answer, _| {
            if let Answer::Status(status) = answer {
                status.storage_version = "3.n.n".into();
                status.db_size_quota = QUOTA_BYTES;
                status.downgrade_info =
                    Some(gonfalon_proto::etcdserverpb::DowngradeInfo::default());
            }
        },
    },
    Difference {
        name: "a hash at the compacted revision is given",
        because: "3.6 refuses only what is below it, so that members can compare what they kept",
        applies: to_current,
        rewrite: |call, answer, past| {
            let (Call::HashKv(request), Answer::Error { .. }) = (call, &answer) else {
                return;
            };
            let compact_revision = past.memory.compacted();
            if request.revision > 0 && request.revision == compact_revision {
                let header = Some(right_header(past.revision));
                let hash = HashKvResponse {
                    header,
                    compact_revision,
                    ..HashKvResponse::default()
                };
                *answer = Answer::HashKv(hash);
            }
        },
    },
    Difference {
        name: "a hash tells its revision",
        because: "new field of 3.6",
        applies: to_current,
        rewrite: |call, answer, past| {
            if let (Call::HashKv(request), Answer::HashKv(hash)) = (call, answer) {
                let asked = request.revision;
                hash.hash_revision = if asked == 0 { past.revision } else { asked };
            }
        },
    },
    Difference {
        name: "a watch from a negative revision is refused",
        because: "3.4.38, 3.5.24 and 3.6.6 refuse it at once; before, it was created and ended",
        applies: to_current,
        rewrite: |call, answer, _| {
            let (Call::Watch(script), Answer::Watch(seen)) = (call, answer) else {
                return;
            };
            if !script.begins_before_time() {
                return;
            }
            let header = seen.headers().next().copied();
            let refusal = Piece::Created {
                header,
                canceled: true,
                reason: "etcdserver: mvcc: required revision has been compacted".into(),
            };
            seen.watchers = [(-1, vec![refusal])].into();
        },
    },
    Difference {
        name: "a deletion at the compacted revision is still seen",
        because: "3.5.16 and 3.6 keep the tombstone (etcd issue 18474), so that a watch from the \
                  oldest readable revision misses nothing",
        applies: to_current,
        rewrite: |call, answer, past| {
            if let (Call::Watch(script), Answer::Watch(seen)) = (call, answer) {
                keep_tombstones(script, seen, past.memory);
            }
        },
    },
];

/// Whether a server's sort leaves equal elements in any order.
pub(super) fn has_loose_ties(server: Server) -> bool {
    server == Server::Etcd35
}

/// Sorts an answer without a limit as a stable sort does.
fn sort_like_go_1_19(request: &RangeRequest, response: &mut RangeResponse) {
    let by_target = |a: &KeyValue, b: &KeyValue| match harmless(request.sort_target) {
        0 => a.key.cmp(&b.key),
        1 => a.version.cmp(&b.version),
        2 => a.create_revision.cmp(&b.create_revision),
        3 => a.mod_revision.cmp(&b.mod_revision),
        _ => a.value.cmp(&b.value),
    };
    let is_descending = request.sort_order == SORT_ORDER_MAX;
    response.kvs.sort_by(|a, b| {
        let order = by_target(a, b);
        let order = if is_descending {
            order.reverse()
        } else {
            order
        };
        order.then_with(|| a.key.cmp(&b.key))
    });
}

/// The sort target to ask an old server for: 3.4.23 and 3.5.1 die of one that does not exist (a nil
/// sorter), so they are asked to sort by key and the answer is rewritten anyway.
pub(super) fn harmless(sort_target: i32) -> i32 {
    if (0..=SORT_TARGET_MAX).contains(&sort_target) {
        sort_target
    } else {
        0
    }
}

/// A header as [`super::normal`] leaves it when its ids are right.
fn right_header(revision: i64) -> ResponseHeader {
    ResponseHeader {
        cluster_id: 1,
        member_id: 1,
        revision,
        raft_term: 1,
    }
}

/// What the server under test must answer where the reference answered `answer`; also the names of
/// the differences that changed it.
pub fn expected(
    reference: Server,
    subject: Server,
    call: &Call,
    answer: &Answer,
    past: &Past<'_>,
) -> (Answer, Vec<&'static str>) {
    let mut expected = answer.clone();
    let mut used = Vec::new();
    for difference in DIFFERENCES
        .iter()
        .filter(|d| (d.applies)(reference, subject))
    {
        let before = expected.clone();
        (difference.rewrite)(call, &mut expected, past);
        if expected != before {
            used.push(difference.name);
        }
    }
    (expected, used)
}

/// Why a read cannot be streamed.
fn unstreamable(request: &RangeRequest) -> Option<&'static str> {
    let exists = (0..=SORT_ORDER_MAX).contains(&request.sort_order)
        && (0..=SORT_TARGET_MAX).contains(&request.sort_target);
    if request.key.is_empty() || !exists {
        return None;
    }
    let is_ascending_key = request.sort_order == 1 && request.sort_target == 0;
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if request.sort_order != 0 && !is_ascending_key {
        Some("RangeStream does not support custom sort orders")
    } else if filters.iter().any(|bound| *bound != 0) {
        Some("RangeStream does not support revision filters")
    } else {
        None
    }
}

/// Calls `visit` with every read of a call and its answer, those inside transactions too.
fn each_range(
    call: &Call,
    answer: &mut Answer,
    visit: &mut impl FnMut(&RangeRequest, &mut RangeResponse),
) {
    match (call, answer) {
        (Call::Range(request) | Call::RangeStream(request), Answer::Range(response)) => {
            visit(request, response);
        }
        (Call::Txn(request), Answer::Txn(response)) => each_range_of(request, response, visit),
        (Call::Alarmed { call, .. }, answer) => each_range(call, answer, visit),
        (Call::Watch(script), Answer::Watch(seen)) => {
            for (call, answer) in script.calls().zip(&mut seen.answers) {
                each_range(call, answer, visit);
            }
        }
        _ => {}
    }
}

fn each_range_of(
    request: &TxnRequest,
    response: &mut TxnResponse,
    visit: &mut impl FnMut(&RangeRequest, &mut RangeResponse),
) {
    let branch = if response.succeeded {
        &request.success
    } else {
        &request.failure
    };
    for (op, result) in branch.iter().zip(&mut response.responses) {
        match (&op.request, &mut result.response) {
            (Some(Request::RequestRange(request)), Some(Response::ResponseRange(response))) => {
                visit(request, response);
            }
            (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(response))) => {
                each_range_of(request, response, visit);
            }
            _ => {}
        }
    }
}

/// Puts the deletions of the compacted revision back into what watchers from there saw.
///
/// Generated scripts choose the id of such a watcher, so that it is found here.
fn keep_tombstones(script: &Script, seen: &mut Seen, memory: &Memory) {
    let compacted = memory.compacted();
    for (id, pieces) in &mut seen.watchers {
        let Some(request) = script.watcher(*id) else {
            continue;
        };
        if request.start_revision != compacted || compacted <= 0 {
            continue;
        }
        let is_at =
            |piece: &Piece| matches!(piece, Piece::Event(event) if revision_of(event) == compacted);
        let Some(first) = pieces
            .iter()
            .position(|piece| matches!(piece, Piece::Created { .. }))
        else {
            continue;
        };
        let mut kept: Vec<Piece> = Vec::new();
        for mut event in memory.matching(request, compacted) {
            if revision_of(&event) != compacted {
                continue;
            }
            event.prev_kv = None;
            let piece = Piece::Event(event.clone());
            if is_delete(&event) || pieces.contains(&piece) {
                kept.push(piece);
            }
        }
        pieces.retain(|piece| !is_at(piece));
        let after = first + 1;
        pieces.splice(after..after, kept);
    }
}

impl Script {
    /// The other calls of the script, in order.
    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.steps.iter().filter_map(|step| match step {
            WatchStep::Call(call) => Some(call.as_ref()),
            _ => None,
        })
    }

    /// Whether its one watcher starts before the first revision.
    fn begins_before_time(&self) -> bool {
        matches!(self.steps.as_slice(), [WatchStep::Create(request)] if request.start_revision < 0)
    }

    /// The request that made a watcher, where the script has one that chose the id.
    fn watcher(&self, id: i64) -> Option<&WatchCreateRequest> {
        self.steps.iter().find_map(|step| match step {
            WatchStep::Create(request) if request.watch_id == id => Some(request),
            _ => None,
        })
    }
}
