//! Renews every lease of a client, on a thread of its own.
//!
//! An application that blocks its runtime loses no lease: the thread has its own runtime and its own
//! connections. All leases share one stream, renewals are sent when they are due and answered in the
//! server's own time. When the stream breaks, another is opened at once, and all is renewed on it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use gonfalon_proto::etcdserverpb::lease_client::LeaseClient;
use http::Uri;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::term::{LostReason, Term};
use super::{Health, revoke};
use crate::call::{Call, Repeat};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind, classify};
use crate::options::Config;
use crate::orders::Orders;
use crate::transport::{Endpoint, Transport};
use crate::types::LeaseId;

/// Renewals on their way to the stream. The thread that fills it empties it too, so it never waits
/// for long.
const SENDING_MAX: usize = 1024;

/// The longest that the keeper sleeps when nothing is due.
const REST: Duration = Duration::from_mins(1);

/// After a failure, the first pause; it doubles, but is never more than a quarter of what the most
/// urgent lease has left.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The keeper's end that handles hold.
#[derive(Debug)]
pub(crate) struct Keeper {
    wanted: Arc<Orders<Order>>,
    stop: CancellationToken,
}

#[derive(Debug)]
enum Order {
    Keep(LeaseId, Kept),
    Forget(LeaseId),
    /// Also end it on the server: its last handle is gone.
    Revoke(LeaseId),
    /// A contender's key, whose lease lives on, must go: others wait for it.
    Clean(Litter),
    Endpoints(Vec<Uri>),
}

/// A key that must go.
#[derive(Debug)]
pub(crate) struct Litter {
    pub(crate) key: Bytes,
    /// Only while it holds this. None: nobody else can have the key.
    pub(crate) value: Option<Bytes>,
}

/// A lease that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// Gone with the last handle.
    pub(super) term: Weak<Term>,
    pub(super) health: Option<Health>,
}

impl Keeper {
    /// Starts the thread.
    pub(crate) fn start(
        endpoints: Vec<Uri>,
        user: Option<(String, String)>,
        config: Config,
    ) -> Result<Self, Error> {
        let wanted = Arc::new(Orders::default());
        let stop = CancellationToken::new();
        let (orders, token) = (wanted.clone(), stop.clone());
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Internal, "grant", "no thread for its leases").because(error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        std::thread::Builder::new()
            .name("gonfalon-leases".into())
            .spawn(move || {
                runtime.block_on(async {
                    let work = Work {
                        transport: Transport::new(endpoints, user, config),
                        wanted: orders,
                        kept: HashMap::new(),
                        due: BTreeSet::new(),
                        lapses: BTreeSet::new(),
                        revoking: Vec::new(),
                    };
                    work.run(token).await;
                });
            })
            .map_err(failed)?;
        Ok(Self { wanted, stop })
    }

    /// Renews a lease from now on.
    pub(super) fn keep(&self, id: LeaseId, kept: Kept) {
        self.wanted.leave(Order::Keep(id, kept));
    }

    /// Renews it no more.
    pub(super) fn forget(&self, id: LeaseId) {
        self.wanted.leave(Order::Forget(id));
    }

    /// Ends it, in the background.
    pub(super) fn revoke(&self, id: LeaseId) {
        self.wanted.leave(Order::Revoke(id));
    }

    /// Deletes a key, in the background, until it is gone.
    pub(crate) fn clean(&self, litter: Litter) {
        self.wanted.leave(Order::Clean(litter));
    }

    pub(crate) fn replace_endpoints(&self, uris: Vec<Uri>) {
        self.wanted.leave(Order::Endpoints(uris));
    }

    /// Every lease is lost from now on; they end on the server when their time is up.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread's own.
struct Work {
    transport: Arc<Transport>,
    wanted: Arc<Orders<Order>>,
    kept: HashMap<LeaseId, Kept>,
    /// When each is due next.
    due: BTreeSet<(Moment, LeaseId)>,
    /// When each would be lost, as of the last look: since then it may have been renewed.
    lapses: BTreeSet<(Moment, LeaseId)>,
    revoking: Vec<LeaseId>,
}

/// One stream of renewals.
struct Open {
    sender: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    /// When the renewals that are not answered were sent, for each lease: oldest first.
    sent: HashMap<LeaseId, VecDeque<Moment>>,
    /// All of them in the order of sending, with some that were answered since.
    oldest: VecDeque<(Moment, LeaseId)>,
}

impl Open {
    fn renewed(&mut self, id: LeaseId, at: Moment) {
        self.sent.entry(id).or_default().push_back(at);
        self.oldest.push_back((at, id));
    }

    fn answered(&mut self, id: LeaseId) -> Option<Moment> {
        let sent = self.sent.get_mut(&id)?;
        let at = sent.pop_front();
        if sent.is_empty() {
            self.sent.remove(&id);
        }
        at
    }

    /// The renewal that has waited longest for its answer.
    fn longest_waiting(&mut self) -> Option<(Moment, LeaseId)> {
        while let Some(&(at, id)) = self.oldest.front() {
            let first = self.sent.get(&id).and_then(VecDeque::front);
            if first.is_some_and(|&first| first <= at) {
                return Some((at, id));
            }
            self.oldest.pop_front();
        }
        None
    }
}

impl Work {
    async fn run(mut self, stop: CancellationToken) {
        let mut failed: Vec<Arc<Endpoint>> = Vec::new();
        let mut failures = 0;
        loop {
            self.take_orders();
            if self.kept.is_empty() {
                self.finish_revoking().await;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = self.wanted.left() => continue,
                }
            }
            let endpoint = self.transport.endpoint_for_stream(&mut failed);
            let status = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                status = self.stream(&endpoint) => status,
            };
            let Some(status) = status else { continue };
            let verdict = classify("keep alive", status);
            tracing::debug!(endpoint = %endpoint.name(), error = %verdict.error, "renewals move on");
            if verdict.wants_token {
                self.transport.forget_token();
            }
            self.transport.stream_report(&endpoint, false);
            failures = if failed.is_empty() { 0 } else { failures + 1 };
            failed.push(endpoint);
            let pause = self.pause(failures);
            self.check_lapses();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
        }
        // What was ordered last: the handles that are dropped with the client.
        self.take_orders();
        for kept in self.kept.values() {
            if let Some(term) = kept.term.upgrade() {
                term.lose(LostReason::Closed);
            }
        }
        self.finish_revoking().await;
    }

    /// How long to wait after `failures` failures in a row: the first time not at all.
    fn pause(&self, failures: u32) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let now = Moment::now();
        let terms = self.kept.values().filter_map(|kept| kept.term.upgrade());
        let least = terms.map(|term| term.remaining(now)).min();
        let bound = least.unwrap_or_default() / 4;
        let pause = PAUSE_MIN.saturating_mul(1 << (failures - 1).min(8));
        pause.min(bound.max(PAUSE_MIN)).mul_f64(fastrand::f64())
    }

    /// Renews what is due, until the stream breaks (why) or there is nothing to keep.
    async fn stream(&mut self, endpoint: &Arc<Endpoint>) -> Option<Status> {
        let (sender, receiver) = mpsc::channel(SENDING_MAX);
        let mut open = Open {
            sender,
            sent: HashMap::new(),
            oldest: VecDeque::new(),
        };
        // On a new stream nothing is on its way; what was is asked for again.
        self.due = self
            .kept
            .keys()
            .map(|&id| (Moment::from_nanos(0), id))
            .collect();
        let opening = self.open(endpoint, receiver);
        let mut opening = std::pin::pin!(opening);
        let mut stream: Option<Streaming<pb::LeaseKeepAliveResponse>> = None;
        let opened_by = Instant::now() + self.transport.config.deadline;
        loop {
            self.renew_due(&mut open);
            self.check_lapses();
            if self.kept.is_empty() {
                return None;
            }
            let wake = self.next_wake(&mut open);
            tokio::select! {
                biased;
                () = self.wanted.left() => self.take_orders(),
                opened = opening.as_mut(), if stream.is_none() => match opened {
                    Ok(opened) => stream = Some(opened),
                    Err(status) => return Some(status),
                },
                message = next(&mut stream), if stream.is_some() => match message {
                    Ok(Some(answer)) => {
                        self.transport.stream_report(endpoint, true);
                        self.answered(&mut open, &answer);
                    }
                    Ok(None) => return Some(Status::unavailable("the server ended the stream")),
                    Err(status) => return Some(status),
                },
                () = sleep_until(opened_by), if stream.is_none() => {
                    return Some(Status::deadline_exceeded("no answer to a new stream"));
                }
                () = sleep(wake) => {
                    if self.is_stuck(&mut open) {
                        return Some(Status::deadline_exceeded("renewals are not answered"));
                    }
                }
            }
            self.start_revoking();
        }
    }

    /// Opens a stream; the future owns what it needs, so that leases are looked after meanwhile.
    fn open(
        &self,
        endpoint: &Arc<Endpoint>,
        receiver: mpsc::Receiver<pb::LeaseKeepAliveRequest>,
    ) -> impl Future<Output = Result<Streaming<pb::LeaseKeepAliveResponse>, Status>> + use<> {
        let (transport, endpoint) = (self.transport.clone(), endpoint.clone());
        async move {
            let mut request = Request::new(ReceiverStream::new(receiver));
            transport
                .prepare(&mut request, true, &endpoint)
                .await
                .map_err(|verdict| Status::unavailable(verdict.error.to_string()))?;
            let mut client = LeaseClient::new(endpoint.calls());
            Ok(client.lease_keep_alive(request).await?.into_inner())
        }
    }

    /// Sends the renewals that are due.
    fn renew_due(&mut self, open: &mut Open) {
        let now = Moment::now();
        while let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            let Some(kept) = self.kept.get(&id) else {
                self.due.pop_first();
                continue;
            };
            let Some(term) = kept.term.upgrade() else {
                self.due.pop_first();
                continue;
            };
            let is_well = kept.health.as_ref().is_none_or(Health::is_well);
            if is_well {
                let renewal = pb::LeaseKeepAliveRequest { id: id.get() };
                if open.sender.try_send(renewal).is_err() {
                    // Full: the rest goes when there is room; they stay due.
                    break;
                }
                // The clock is read before the request can have been sent.
                open.renewed(id, now);
            }
            self.due.pop_first();
            self.due.insert((now + term.ttl() / 3, id));
        }
    }

    /// A renewal was answered.
    fn answered(&mut self, open: &mut Open, answer: &pb::LeaseKeepAliveResponse) {
        let id = LeaseId::new(answer.id);
        let (Some(sent), Some(kept)) = (open.answered(id), self.kept.get(&id)) else {
            return;
        };
        let Some(term) = kept.term.upgrade() else {
            return;
        };
        if let Ok(seconds @ 1..) = u64::try_from(answer.ttl) {
            term.renewed(Duration::from_secs(seconds), sent, Moment::now());
        } else {
            term.lose(LostReason::Gone);
            self.kept.remove(&id);
        }
    }

    /// Whether the oldest renewal under way has waited so long that another member must be asked.
    fn is_stuck(&self, open: &mut Open) -> bool {
        let Some((at, id)) = open.longest_waiting() else {
            return false;
        };
        let term = self.kept.get(&id).and_then(|kept| kept.term.upgrade());
        let waited = Moment::now().since(at).unwrap_or_default();
        term.is_some_and(|term| waited > term.ttl() / 6)
    }

    /// Notices what was lost, and forgets it.
    fn check_lapses(&mut self) {
        let now = Moment::now();
        while let Some(&(at, id)) = self.lapses.first()
            && at <= now
        {
            self.lapses.pop_first();
            let Some(term) = self.kept.get(&id).and_then(|kept| kept.term.upgrade()) else {
                self.kept.remove(&id);
                continue;
            };
            term.check(now);
            if term.token().is_cancelled() {
                self.kept.remove(&id);
            } else {
                self.lapses.insert((term.deadline(), id));
            }
        }
    }

    /// Until something is due, or lapses, or has waited too long for its answer.
    fn next_wake(&self, open: &mut Open) -> Duration {
        let first = |set: &BTreeSet<(Moment, LeaseId)>| set.first().map(|&(at, _)| at);
        let waiting = open.longest_waiting().and_then(|(at, id)| {
            let term = self.kept.get(&id)?.term.upgrade()?;
            Some(at + term.ttl() / 6)
        });
        let next = [first(&self.due), first(&self.lapses), waiting];
        let wait = next
            .into_iter()
            .flatten()
            .min()
            .map_or(REST, |at| at.since(Moment::now()).unwrap_or_default());
        // A millisecond at least: the same moment may not be past yet when the timer fires.
        wait.clamp(Duration::from_millis(1), REST)
    }

    fn take_orders(&mut self) {
        for order in self.wanted.take() {
            match order {
                Order::Keep(id, kept) => {
                    if let Some(term) = kept.term.upgrade() {
                        self.due.insert((term.due(), id));
                        self.lapses.insert((term.deadline(), id));
                    }
                    self.kept.insert(id, kept);
                }
                Order::Forget(id) => {
                    self.kept.remove(&id);
                }
                Order::Revoke(id) => {
                    self.kept.remove(&id);
                    self.revoking.push(id);
                }
                Order::Clean(litter) => {
                    drop(tokio::spawn(clean(self.transport.clone(), litter)));
                }
                Order::Endpoints(uris) => self.transport.replace_endpoints(uris),
            }
        }
    }

    /// Ends leases without waiting for it.
    fn start_revoking(&mut self) {
        for id in std::mem::take(&mut self.revoking) {
            let transport = self.transport.clone();
            tokio::spawn(async move {
                // If it fails, the lease ends by itself.
                let _ = revoke(&transport, id).await;
            });
        }
    }

    async fn finish_revoking(&mut self) {
        let ids = std::mem::take(&mut self.revoking);
        let all = ids.into_iter().map(|id| revoke(&self.transport, id));
        // Leases whose end nobody confirms end by themselves.
        let _ = timeout(
            self.transport.config.deadline,
            futures::future::join_all(all),
        )
        .await;
    }
}

/// Deletes a key however long that takes, unless the client is closed. Twice: the request that
/// creates it may have been under way when it was given up, and arrive after the first deletion.
async fn clean(transport: Arc<Transport>, Litter { key, value }: Litter) {
    let compare = value.map(|value| pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::Value(value)),
        ..pb::Compare::default()
    });
    let delete = pb::DeleteRangeRequest {
        key,
        ..pb::DeleteRangeRequest::default()
    };
    let delete = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestDeleteRange(delete)),
    };
    let request = pb::TxnRequest {
        compare: compare.into_iter().collect(),
        success: vec![delete],
        failure: Vec::new(),
    };
    let mut pauses = transport.pauses();
    let mut is_second = false;
    loop {
        let call = Call::new("delete", Repeat::Safe);
        let deleted = transport.unary(call, request.clone(), move |channel, request| async move {
            KvClient::new(channel).txn(request).await
        });
        match deleted.await {
            Ok(_) if is_second => return,
            Ok(_) => {
                is_second = true;
                sleep(transport.config.deadline).await;
                continue;
            }
            Err(error) if *error.kind() == ErrorKind::Closed => return,
            Err(error) => tracing::warn!(%error, "a contender's key is still there; trying again"),
        }
        if let Some(pause) = pauses.next() {
            sleep(pause).await;
        }
    }
}

async fn next(
    stream: &mut Option<Streaming<pb::LeaseKeepAliveResponse>>,
) -> Result<Option<pb::LeaseKeepAliveResponse>, Status> {
    match stream {
        Some(stream) => stream.message().await,
        None => std::future::pending().await,
    }
}
