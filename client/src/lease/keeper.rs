//! Renews every lease of a client, on a thread of its own.
//!
//! An application that blocks its runtime loses no lease: the thread has its own runtime and its own
//! connections. All leases share one stream (`lane.rs`); renewals are sent when they are due and
//! answered in the server's own time. When an answer is overdue, the same renewals go out on a second
//! stream over a new connection, to another member if there is one, and the faster one stays. When
//! the stream breaks, another is opened at once, and all is renewed on it.
//!
//! The thread is the janitor too (`janitor.rs`): what handles leave behind is ended here.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use gonfalon_proto::etcdserverpb as pb;
use http::Uri;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Health;
use super::janitor::{Janitor, Litter};
use super::lane::{Event, Lane};
use super::term::{LeaseStatus, LostReason, Term};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind, classify};
use crate::observe::{self, Stream};
use crate::options::Config;
use crate::orders::Orders;
use crate::transport::{Endpoint, Transport};
use crate::types::LeaseId;

/// The longest that the keeper sleeps while it keeps a lease. Its timers stand still while the machine
/// sleeps, and leases do not: so long after waking up, at most, a loss is noticed.
const REST: Duration = Duration::from_secs(1);

/// After a failure, the first pause; it doubles, but is never more than a quarter of what the most
/// urgent lease has left.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The keeper's end that handles hold.
#[derive(Debug)]
pub(crate) struct Keeper {
    wanted: Arc<Orders<Order>>,
    stop: CancellationToken,
    /// How long the end may take; the client's deadline unless somebody chose.
    budget: Arc<Mutex<Duration>>,
    /// What was left undone, once the thread and all that it held are gone.
    left: watch::Receiver<Option<usize>>,
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
        let budget = Arc::new(Mutex::new(config.deadline));
        let (done, left) = watch::channel(None);
        let (orders, token, time) = (wanted.clone(), stop.clone(), budget.clone());
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
                let undone = runtime.block_on(async {
                    let transport = Transport::new(endpoints, user, config);
                    let work = Work {
                        janitor: Janitor::new(transport.clone()),
                        transport,
                        wanted: orders,
                        kept: HashMap::new(),
                        due: BTreeSet::new(),
                        lapses: BTreeSet::new(),
                        has_answered: false,
                    };
                    work.run(token, &time).await
                });
                // Its connections end with it.
                drop(runtime);
                done.send_replace(Some(undone));
            })
            .map_err(failed)?;
        Ok(Self {
            wanted,
            stop,
            budget,
            left,
        })
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

    /// Every lease is lost from now on, and ended on the server within `budget`, or else when its
    /// time is up. The first budget counts.
    pub(crate) fn stop(&self, budget: Option<Duration>) {
        if let Some(budget) = budget
            && !self.stop.is_cancelled()
        {
            *lock(&self.budget) = budget;
        }
        self.stop.cancel();
    }

    /// Returns when the thread has ended, and how many leases and keys it could not confirm to be
    /// gone.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn ended(&self) -> usize {
        let mut left = self.left.clone();
        let left = left.wait_for(Option::is_some).await;
        // A thread that has panicked says nothing any more.
        left.ok().and_then(|left| *left).unwrap_or_default()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop(None);
    }
}

fn lock(budget: &Mutex<Duration>) -> std::sync::MutexGuard<'_, Duration> {
    budget
        .lock()
        .expect("nothing panics while it holds this lock")
}

/// The thread's own.
struct Work {
    transport: Arc<Transport>,
    wanted: Arc<Orders<Order>>,
    janitor: Janitor,
    kept: HashMap<LeaseId, Kept>,
    /// When each is due next.
    due: BTreeSet<(Moment, LeaseId)>,
    /// When each would be lost, as of the last look: since then it may have been renewed.
    lapses: BTreeSet<(Moment, LeaseId)>,
    /// Whether a renewal was answered since streams were tried last.
    has_answered: bool,
}

impl Work {
    /// Until it is stopped; how much is left undone then.
    async fn run(mut self, stop: CancellationToken, budget: &Mutex<Duration>) -> usize {
        let mut failed: Vec<Arc<Endpoint>> = Vec::new();
        let mut failures = 0;
        while !stop.is_cancelled() {
            self.take_orders();
            if self.kept.is_empty() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = self.wanted.left() => continue,
                }
            }
            self.has_answered = false;
            let began = Moment::now();
            let over = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                over = self.renew(&mut failed) => over,
            };
            // What failed before is over. But a server that answers once and breaks the stream, again
            // and again, is not asked without pauses.
            if self.has_answered && began + PAUSE_MIN <= Moment::now() {
                failed.clear();
            }
            let Some((endpoint, status)) = over else {
                continue;
            };
            self.moves_on(&endpoint, status);
            failures = if failed.is_empty() { 0 } else { failures + 1 };
            failed.push(endpoint);
            let pause = self.pause(failures);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.rest(pause) => {}
            }
        }
        let budget = *lock(budget);
        self.finish(budget).await
    }

    /// Ends what is kept, and what was ordered last: the handles that are dropped with the client.
    async fn finish(mut self, budget: Duration) -> usize {
        self.janitor.hurry();
        let all_done = async {
            loop {
                self.take_orders();
                for (id, kept) in self.kept.drain() {
                    if let Some(term) = kept.term.upgrade() {
                        term.lose(LostReason::Closed);
                    }
                    self.janitor.revoke(id);
                }
                tokio::select! {
                    biased;
                    () = self.wanted.left() => {}
                    () = self.janitor.done() => return,
                }
            }
        };
        // What is not confirmed in time ends by itself.
        let _ = tokio::time::timeout(budget, all_done).await;
        self.janitor.undone()
    }

    /// A stream to `endpoint` has failed.
    fn moves_on(&self, endpoint: &Arc<Endpoint>, status: Status) {
        let verdict = classify("keep alive", status);
        observe::stream_failed(Stream::Leases);
        tracing::debug!(endpoint = %endpoint.name(), error = %verdict.error, "renewals move on");
        self.transport.stream_report(endpoint, Some(&verdict));
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

    /// Waits for `pause`, and tells meanwhile what is lost.
    async fn rest(&mut self, pause: Duration) {
        let until = Moment::now() + pause;
        loop {
            self.check_lapses();
            match until.since(Moment::now()) {
                None | Some(Duration::ZERO) => return,
                Some(left) => sleep(left.min(REST)).await,
            }
        }
    }

    /// Renews what is due, until no stream is left (who failed, and why) or there is nothing to keep.
    async fn renew(&mut self, failed: &mut Vec<Arc<Endpoint>>) -> Option<(Arc<Endpoint>, Status)> {
        let endpoint = self.transport.endpoint_for_stream(failed)?;
        let channel = endpoint.calls();
        let mut lane = Lane::open(&self.transport, endpoint, channel);
        // A second one, while the first is slow; and from when on there may be another.
        let mut second: Option<Lane> = None;
        let mut second_at = Moment::from_nanos(0);
        // On a new stream nothing is on its way; what was is asked for again.
        let all = self.kept.keys();
        self.due = all.map(|&id| (Moment::from_nanos(0), id)).collect();
        loop {
            self.renew_due(&mut lane, second.as_mut());
            self.check_lapses();
            if self.kept.is_empty() {
                return None;
            }
            let now = Moment::now();
            let is_slow = lane.is_overdue(now);
            if second.as_ref().is_some_and(|second| second.is_overdue(now)) {
                // Slow too: a third is tried in the place of the first.
                self.is_slow(&lane, second.as_ref());
                lane = second.take().expect("it was looked at");
            } else if is_slow && second.is_none() && second_at <= now {
                second = self.open_second(&lane);
                second_at = now + PAUSE_MIN;
            }
            let wake = self.next_wake(&lane, second.as_ref(), second_at);
            tokio::select! {
                biased;
                () = self.wanted.left() => self.take_orders(),
                event = lane.next() => match event {
                    Event::Answer(answer) => {
                        self.answered(&mut lane, &answer);
                        if !lane.is_overdue(Moment::now()) {
                            second = None;
                        }
                    }
                    Event::Failed(status) => match second.take() {
                        Some(other) => {
                            self.moves_on(&lane.endpoint, status);
                            lane = other;
                        }
                        None => return Some((lane.endpoint, status)),
                    },
                },
                event = next(&mut second), if second.is_some() => match event {
                    Event::Answer(answer) => {
                        let mut faster = second.take().expect("it has answered");
                        self.answered(&mut faster, &answer);
                        self.is_slow(&lane, Some(&faster));
                        lane = faster;
                    }
                    Event::Failed(status) => {
                        let failed = second.take().expect("it has failed");
                        self.moves_on(&failed.endpoint, status);
                    }
                },
                () = sleep(wake) => {}
            }
        }
    }

    /// A second lane beside one whose answers are overdue; what waits there is sent here too.
    fn open_second(&self, slow: &Lane) -> Option<Lane> {
        let mut tried = vec![slow.endpoint.clone()];
        let endpoint = self.transport.endpoint_for_stream(&mut tried)?;
        tracing::debug!(
            slow = %slow.endpoint.name(),
            second = %endpoint.name(),
            "renewals wait for an answer and are sent again"
        );
        // Every connection that there is may be the one that hangs.
        let channel = endpoint.alone();
        let mut second = Lane::open(&self.transport, endpoint, channel);
        observe::leases_hedged();
        for id in slow.waiting() {
            if let Some(term) = self.kept.get(&id).and_then(|kept| kept.term.upgrade()) {
                // What finds no room is sent again when it is due.
                let _ = second.renew(id, term.ttl());
            }
        }
        Some(second)
    }

    /// `lane` is given up for `other`, which is faster: its member is asked last from now on.
    fn is_slow(&self, lane: &Lane, other: Option<&Lane>) {
        observe::stream_failed(Stream::Leases);
        if other.is_none_or(|other| !Arc::ptr_eq(&lane.endpoint, &other.endpoint)) {
            let slow = Status::deadline_exceeded("renewals are not answered");
            let verdict = classify("keep alive", slow);
            self.transport.stream_report(&lane.endpoint, Some(&verdict));
        }
    }

    /// Sends the renewals that are due.
    fn renew_due(&mut self, lane: &mut Lane, mut second: Option<&mut Lane>) {
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
            if term.status(now) == LeaseStatus::Suspect {
                observe::lease_suspect();
                tracing::warn!(lease = %id, remaining = ?term.remaining(now), "a lease is suspect");
            }
            if kept.health.as_ref().is_none_or(Health::is_well) {
                if !lane.renew(id, term.ttl()) {
                    // Full: the rest goes when there is room; they stay due.
                    break;
                }
                if let Some(second) = &mut second {
                    let _ = second.renew(id, term.ttl());
                }
            }
            self.due.pop_first();
            self.due.insert((now + term.ttl() / 3, id));
        }
    }

    /// A renewal was answered.
    fn answered(&mut self, lane: &mut Lane, answer: &pb::LeaseKeepAliveResponse) {
        self.transport.stream_report(&lane.endpoint, None);
        self.has_answered = true;
        let id = LeaseId::new(answer.id);
        let (Some(sent), Some(kept)) = (lane.answered(id), self.kept.get(&id)) else {
            return;
        };
        let Some(term) = kept.term.upgrade() else {
            return;
        };
        if let Ok(seconds @ 1..) = u64::try_from(answer.ttl) {
            let now = Moment::now();
            term.renewed(Duration::from_secs(seconds), sent, now);
            observe::lease_renewed(now.since(sent).unwrap_or_default());
        } else {
            term.lose(LostReason::Gone);
            tracing::warn!(lease = %id, "a lease is gone");
            self.kept.remove(&id);
        }
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
                tracing::warn!(lease = %id, "a lease is lost: {}", term.lost_reason().text());
                self.kept.remove(&id);
            } else {
                self.lapses.insert((term.deadline(), id));
            }
        }
    }

    /// Until something is due, or lapses, or has waited too long for its answer.
    fn next_wake(&self, lane: &Lane, second: Option<&Lane>, second_at: Moment) -> Duration {
        let first = |set: &BTreeSet<(Moment, LeaseId)>| set.first().map(|&(at, _)| at);
        // While a second lane runs, only its own answers can be too late; before there can be one,
        // the pause must be over.
        let overdue = match second {
            Some(second) => second.overdue_at(),
            None => lane.overdue_at().map(|at| at.max(second_at)),
        };
        let next = [first(&self.due), first(&self.lapses), overdue];
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
                    self.janitor.revoke(id);
                }
                Order::Clean(litter) => self.janitor.clean(litter),
                Order::Endpoints(uris) => self.transport.replace_endpoints(uris),
            }
        }
        observe::leases(self.kept.len());
    }
}

async fn next(lane: &mut Option<Lane>) -> Event {
    match lane {
        Some(lane) => lane.next().await,
        None => std::future::pending().await,
    }
}
