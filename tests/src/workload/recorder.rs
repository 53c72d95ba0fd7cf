//! Sends one request and records what came of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gonfalon_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use gonfalon_proto::etcdserverpb::request_op::Request as Op;
use gonfalon_proto::etcdserverpb::response_op::Response;
use gonfalon_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp,
    TxnRequest, TxnResponse,
};
use gonfalon_proto::mvccpb::KeyValue;

use crate::client::Client;
use crate::history::{Answer, History, Operation, Outcome, Request, Version, Watch};

/// After this a call is given up, and nobody knows what came of it. Shorter than an election, so
/// that clients of a lost leader go elsewhere in time to be the first.
const CALL_TIMEOUT: Duration = Duration::from_millis(700);

/// The texts with which a server promises that nothing happened.
const REFUSALS: [&str; 2] = ["etcdserver: no leader", "etcdserver: too many requests"];

/// The history of a run while it grows.
#[derive(Debug)]
pub(super) struct Recorder {
    epoch: Instant,
    history: Mutex<History>,
    /// When each acknowledged write was acknowledged, in that order.
    acknowledged: Mutex<Vec<Instant>>,
    next_caller: AtomicU32,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            history: Mutex::default(),
            acknowledged: Mutex::default(),
            next_caller: AtomicU32::new(1),
        }
    }

    /// A number for a client that has not called yet.
    pub(super) fn new_caller(&self) -> u32 {
        self.next_caller.fetch_add(1, Ordering::Relaxed)
    }

    /// Nanoseconds since recording began.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).expect("a test ends within 584 years")
    }

    /// How many writes were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.lock().expect("nobody panics").len() as u64
    }

    /// The longest time without an acknowledged write since `since`.
    pub(super) fn longest_pause(&self, since: Instant) -> Duration {
        let acknowledged = self.acknowledged.lock().expect("nobody panics");
        let times = acknowledged.iter().copied().filter(|at| *at > since);
        let (mut last, mut longest) = (since, Duration::ZERO);
        for at in times.chain([Instant::now()]) {
            longest = longest.max(at.duration_since(last));
            last = at;
        }
        longest
    }

    /// Adds what one connection of a watcher was told.
    pub(super) fn watched(&self, watch: Watch) {
        self.history
            .lock()
            .expect("nobody panics")
            .watches
            .push(watch);
    }

    /// The history; afterwards it is empty.
    pub(super) fn take(&self) -> History {
        std::mem::take(&mut self.history.lock().expect("nobody panics"))
    }

    /// Asks one member.
    pub(super) async fn call(
        &self,
        caller: u32,
        member: usize,
        client: &Client,
        request: Request,
    ) -> Outcome {
        let called = self.now();
        let outcome = match tokio::time::timeout(CALL_TIMEOUT, send(client, &request)).await {
            Ok(Ok(answer)) => Outcome::Done(answer),
            Ok(Err(status)) => failed(&status),
            Err(_) => Outcome::Unknown("no answer in time".into()),
        };
        let returned = self.now();
        let is_done = matches!(outcome, Outcome::Done(_));
        if is_done && !request.is_read() {
            let mut acknowledged = self.acknowledged.lock().expect("nobody panics");
            acknowledged.push(Instant::now());
        }
        let operation = Operation {
            client: caller,
            member,
            called,
            returned: is_done.then_some(returned),
            request,
            outcome: outcome.clone(),
        };
        let mut history = self.history.lock().expect("nobody panics");
        history.operations.push(operation);
        outcome
    }
}

/// Whether an error proves that nothing happened.
fn failed(status: &tonic::Status) -> Outcome {
    let text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return Outcome::Refused(text);
        }
        source = error.source();
    }
    if REFUSALS.contains(&status.message()) {
        Outcome::Refused(text)
    } else {
        Outcome::Unknown(text)
    }
}

async fn send(client: &Client, request: &Request) -> Result<Answer, tonic::Status> {
    let mut kv = client.kv.clone();
    match request {
        Request::Put { key, value } => {
            let response = kv.put(put(key, value)).await?.into_inner();
            let before = response.prev_kv.map(version);
            Ok(answer(response.header.as_ref(), vec![before]))
        }
        Request::Delete { key } => {
            let request = DeleteRangeRequest {
                key: key.clone().into(),
                prev_kv: true,
                ..DeleteRangeRequest::default()
            };
            let response = kv.delete_range(request).await?.into_inner();
            let before = response.prev_kvs.into_iter().next().map(version);
            Ok(answer(response.header.as_ref(), vec![before]))
        }
        Request::Read {
            keys,
            serializable,
            at,
        } => {
            let ops = keys.iter().map(|key| range(key, *serializable, *at));
            let request = TxnRequest {
                success: ops.collect(),
                ..TxnRequest::default()
            };
            Ok(txn_answer(kv.txn(request).await?.into_inner()))
        }
        Request::Swap { expect, puts } => {
            let request = TxnRequest {
                compare: expect.iter().map(|(key, at)| unchanged(key, *at)).collect(),
                success: puts.iter().map(|(key, value)| put_op(key, value)).collect(),
                failure: expect
                    .iter()
                    .map(|(key, _)| range(key, false, None))
                    .collect(),
            };
            Ok(txn_answer(kv.txn(request).await?.into_inner()))
        }
    }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        prev_kv: true,
        ..PutRequest::default()
    }
}

fn put_op(key: &str, value: &str) -> RequestOp {
    let put = PutRequest {
        prev_kv: false,
        ..put(key, value)
    };
    RequestOp {
        request: Some(Op::RequestPut(put)),
    }
}

fn range(key: &str, serializable: bool, at: Option<i64>) -> RequestOp {
    RequestOp {
        request: Some(Op::RequestRange(RangeRequest {
            key: key.to_owned().into(),
            serializable,
            revision: at.unwrap_or(0),
            ..RangeRequest::default()
        })),
    }
}

fn unchanged(key: &str, modified: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::ModRevision(modified)),
        ..Compare::default()
    }
}

fn version(kv: KeyValue) -> Version {
    Version {
        value: String::from_utf8_lossy(&kv.value).into_owned(),
        create: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
    }
}

/// The same for the events of a watch.
pub(super) fn version_of(kv: &KeyValue) -> Version {
    version(kv.clone())
}

fn answer(header: Option<&ResponseHeader>, versions: Vec<Option<Version>>) -> Answer {
    Answer {
        revision: header.map_or(0, |header| header.revision),
        succeeded: true,
        versions,
    }
}

/// The ranges of a transaction, in order; what it wrote is in its request.
fn txn_answer(response: TxnResponse) -> Answer {
    let read = |op: ResponseOp| match op.response {
        Some(Response::ResponseRange(range)) => Some(range.kvs.into_iter().next().map(version)),
        _ => None,
    };
    Answer {
        succeeded: response.succeeded,
        ..answer(
            response.header.as_ref(),
            response.responses.into_iter().filter_map(read).collect(),
        )
    }
}
