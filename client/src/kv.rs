//! Reading, writing and deleting keys.

mod pages;

use std::time::Duration;

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use gonfalon_proto::mvccpb;
use tonic::Status;

use crate::call::Call;
use crate::client::{Client, awaited};
use crate::error::Error;
use crate::op::{DeleteOp, PutOp, RangeOp, put_settings, range_settings, read_settings};
use crate::txn::{Compare, OpResult};
use crate::types::{KeyValue, Revision, revision_of};

pub use pages::{KeyValues, Pages};

/// A read of one key; await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Get {
    range: Range,
}

/// A read of several keys; await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Range {
    client: Client,
    op: RangeOp,
    deadline: Option<Duration>,
}

/// A write; await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Put {
    client: Client,
    op: PutOp,
    deadline: Option<Duration>,
}

/// A write that happens only if the key is as expected; await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Swap {
    client: Client,
    op: PutOp,
    expected: Compare,
    deadline: Option<Duration>,
}

/// A deletion; await it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Delete {
    client: Client,
    op: DeleteOp,
    deadline: Option<Duration>,
}

/// Keys that were read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RangePage {
    /// The store's revision when it was read, also of a read at an older one.
    pub revision: Revision,
    /// The keys, at most as many as the limit.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left some out.
    pub more: bool,
    /// How many there are, the limit aside.
    pub count: u64,
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PutResult {
    /// The revision that the write made.
    pub revision: Revision,
    /// What the key was before, if that was asked for and it was there.
    pub prev: Option<KeyValue>,
}

/// What came of a deletion.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Deleted {
    /// The store's revision after it.
    pub revision: Revision,
    /// How many keys were deleted.
    pub count: u64,
    /// What they were, if that was asked for.
    pub prev: Vec<KeyValue>,
}

/// What came of a write with a condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Swapped {
    /// The key was as expected and is written.
    Done {
        /// The revision that the write made.
        revision: Revision,
    },
    /// It was not, and nothing was written.
    Conflict {
        /// What the key is instead; none if it is not there.
        current: Option<KeyValue>,
    },
}

impl Swapped {
    /// Whether the key was written.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}

/// `key` without the `hidden` bytes of the namespace.
fn shown(mut kv: mvccpb::KeyValue, hidden: usize) -> KeyValue {
    kv.key = kv.key.slice(hidden.min(kv.key.len())..);
    KeyValue::from_wire(kv)
}

fn all_shown(kvs: Vec<mvccpb::KeyValue>, hidden: usize) -> Vec<KeyValue> {
    kvs.into_iter().map(|kv| shown(kv, hidden)).collect()
}

impl RangePage {
    pub(crate) fn from_wire(answer: pb::RangeResponse, hidden: usize) -> Self {
        Self {
            revision: revision_of(answer.header.as_ref()),
            kvs: all_shown(answer.kvs, hidden),
            more: answer.more,
            count: u64::try_from(answer.count).unwrap_or_default(),
        }
    }
}

impl PutResult {
    pub(crate) fn from_wire(answer: pb::PutResponse, hidden: usize) -> Self {
        Self {
            revision: revision_of(answer.header.as_ref()),
            prev: answer.prev_kv.map(|kv| shown(kv, hidden)),
        }
    }
}

impl Deleted {
    pub(crate) fn from_wire(answer: pb::DeleteRangeResponse, hidden: usize) -> Self {
        Self {
            revision: revision_of(answer.header.as_ref()),
            count: u64::try_from(answer.deleted).unwrap_or_default(),
            prev: all_shown(answer.prev_kvs, hidden),
        }
    }
}

/// The deadline of one call.
macro_rules! deadline_setting {
    ($($deadline:ident).+) => {
        /// How long it may take, all attempts together. Default: the client's.
        pub fn deadline(mut self, deadline: Duration) -> Self {
            self.$($deadline).+ = Some(deadline);
            self
        }
    };
}

impl Get {
    pub(crate) fn new(client: Client, op: RangeOp) -> Self {
        Self {
            range: Range::new(client, op),
        }
    }

    read_settings!(range.op.request_mut());
    deadline_setting!(range.deadline);

    async fn send(self) -> Result<Option<KeyValue>, Error> {
        let page = self.range.send().await?;
        Ok(page.kvs.into_iter().next())
    }
}

impl Range {
    pub(crate) fn new(client: Client, op: RangeOp) -> Self {
        Self {
            client,
            op,
            deadline: None,
        }
    }

    range_settings!(op.request_mut());
    deadline_setting!(deadline);

    async fn send(self) -> Result<RangePage, Error> {
        let namespace = self.client.namespace_bytes().clone();
        let request = self.op.to_wire(&namespace);
        let mut call = Call::reads("range").within(self.deadline);
        let is_serializable = self.op.is_serializable();
        if is_serializable {
            call = call.local();
        }
        let client = &self.client;
        let floor = client.floor().filter(|_| is_serializable);
        let (seen, cluster_id) = (client.transport().seen(), client.transport().cluster_id());
        let limit = client.response_bytes_max();
        let answer = client
            .unary(call, request, move |channel, request| async move {
                let answer = KvClient::new(channel)
                    .max_decoding_message_size(limit)
                    .range(request)
                    .await?;
                let header = answer.get_ref().header.as_ref();
                let revision = revision_of(header);
                let is_same = header.is_none_or(|header| header.cluster_id == cluster_id);
                match floor {
                    // Another member may have caught up further.
                    Some(floor) if revision < floor && is_same => {
                        Err(Status::unavailable(format!(
                            "the member is at revision {revision} and this client has seen {floor}"
                        )))
                    }
                    _ => Ok(answer),
                }
            })
            .await?;
        if is_serializable {
            client.saw(answer.header.as_ref());
        } else {
            let header = answer.header.as_ref();
            client.transport().saw_in_order(seen, seen, header);
        }
        Ok(RangePage::from_wire(answer, namespace.len()))
    }
}

impl Put {
    pub(crate) fn new(client: Client, op: PutOp) -> Self {
        Self {
            client,
            op,
            deadline: None,
        }
    }

    put_settings!(op.request_mut());
    deadline_setting!(deadline);

    async fn send(self) -> Result<PutResult, Error> {
        let namespace = self.client.namespace_bytes().clone();
        let request = self.op.to_wire(&namespace);
        let call = Call::writes("put").within(self.deadline);
        let seen = self.client.transport().seen();
        let limit = self.client.response_bytes_max();
        let answer = self
            .client
            .unary(call, request, move |channel, request| async move {
                KvClient::new(channel)
                    .max_decoding_message_size(limit)
                    .put(request)
                    .await
            })
            .await?;
        let header = answer.header.as_ref();
        // It has a revision of its own.
        let transport = self.client.transport();
        transport.saw_in_order(seen, seen.next(), header);
        Ok(PutResult::from_wire(answer, namespace.len()))
    }
}

impl Swap {
    pub(crate) fn new(client: Client, op: PutOp, expected: Compare) -> Self {
        Self {
            client,
            op,
            expected,
            deadline: None,
        }
    }

    put_settings!(op.request_mut());
    deadline_setting!(deadline);

    async fn send(self) -> Result<Swapped, Error> {
        let current = RangeOp::new(self.op.key());
        let mut txn = self
            .client
            .txn()
            .when(self.expected)
            .then(self.op)
            .or_else(current);
        if let Some(deadline) = self.deadline {
            txn = txn.deadline(deadline);
        }
        let result = txn.await?;
        if result.succeeded {
            return Ok(Swapped::Done {
                revision: result.revision,
            });
        }
        let page = result.results.into_iter().next();
        let page = page.and_then(OpResult::into_range);
        Ok(Swapped::Conflict {
            current: page.and_then(|page| page.kvs.into_iter().next()),
        })
    }
}

impl Delete {
    pub(crate) fn new(client: Client, op: DeleteOp) -> Self {
        Self {
            client,
            op,
            deadline: None,
        }
    }

    /// The result has what was deleted.
    pub fn prev_kv(mut self) -> Self {
        self.op = self.op.prev_kv();
        self
    }

    deadline_setting!(deadline);

    async fn send(self) -> Result<Deleted, Error> {
        let namespace = self.client.namespace_bytes().clone();
        let request = self.op.to_wire(&namespace);
        let call = Call::writes("delete").within(self.deadline);
        let seen = self.client.transport().seen();
        let limit = self.client.response_bytes_max();
        let answer = self
            .client
            .unary(call, request, move |channel, request| async move {
                KvClient::new(channel)
                    .max_decoding_message_size(limit)
                    .delete_range(request)
                    .await
            })
            .await?;
        let header = answer.header.as_ref();
        let transport = self.client.transport();
        transport.saw_in_order(seen, seen, header);
        Ok(Deleted::from_wire(answer, namespace.len()))
    }
}

awaited!(Get => Option<KeyValue>);
awaited!(Range => RangePage);
awaited!(Put => PutResult);
awaited!(Swap => Swapped);
awaited!(Delete => Deleted);
