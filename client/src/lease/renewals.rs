//! Renews every lease of a client: what the keeper's thread does.
//!
//! All leases share one stream (`lane.rs`); renewals are sent when they are due and
//! answered in the server's own time. When an answer is overdue, the same renewals go out on a second
//! stream over a new connection, to another member if there is one, and the faster one stays. When
//! the stream breaks, another is opened at once, and all is renewed on it.
//!
//! The thread is the janitor too (`janitor.rs`): what handles leave behind is ended here.
//!
//! Invariants
//! - a lease is due at one moment, and at none while its hook is asked (`health.rs`);
//! - what a step has to change is changed before anything is counted or logged: that is the code of
//!   others and may panic. Then all begins anew, with what is kept and ordered, after a pause.

use std::any::Any;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::FutureExt as _;
use gonfalon_proto::etcdserverpb as pb;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::health::{Checkup, Health, Hooks, Word};
use super::janitor::Janitor;
use super::keeper::{Order, lock};
use super::lane::{Event, Lane};
use super::term::{LeaseStatus, LostReason, Term};
use crate::clock::Moment;
use crate::error::classify;
use crate::observe::{self, Stream};
use crate::orders::Orders;
use crate::transport::{Endpoint, Transport};
use crate::types::LeaseId;

/// The longest that the keeper sleeps while it keeps a lease. Its timers stand still while the machine
/// sleeps, and leases do not: so long after waking up, at most, a loss is noticed.
const REST: Duration = Duration::from_secs(1);

/// After a failure, the first pause; it doubles, but is never more than a quarter of what the most
/// urgent lease has left.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// When the last panic is so long ago, the next one is a new one.
const CALM: Duration = Duration::from_mins(1);

/// A lease that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// Gone with the last handle.
    term: Weak<Term>,
    health: Option<Health>,
    word: Word,
    /// When it is due next; another moment that is noted for its name is not its own.
    due: Option<Moment>,
}

impl Kept {
    pub(super) fn new(term: Weak<Term>, health: Option<Health>) -> Self {
        Self {
            term,
            health,
            word: Word::Unasked,
            due: None,
        }
    }
}

/// The thread's own.
pub(super) struct Work {
    transport: Arc<Transport>,
    wanted: Arc<Orders<Order>>,
    /// Taken, and not carried out yet.
    orders: VecDeque<Order>,
    stop: CancellationToken,
    janitor: Janitor,
    hooks: Hooks,
    kept: HashMap<LeaseId, Kept>,
    /// When each is due next.
    due: BTreeSet<(Moment, LeaseId)>,
    /// When each would be lost, as of the last look: since then it may have been renewed.
    lapses: BTreeSet<(Moment, LeaseId)>,
    /// Whether a renewal was answered since streams were tried last.
    has_answered: bool,
    /// Panics in a row, and when the last of them was.
    panics: u32,
    panicked: Option<Instant>,
    /// When the end must be over, once it has begun.
    end_by: Option<Instant>,
}

impl Work {
    pub(super) fn new(
        transport: Arc<Transport>,
        wanted: Arc<Orders<Order>>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            janitor: Janitor::new(transport.clone()),
            hooks: Hooks::new(wanted.clone()),
            transport,
            wanted,
            orders: VecDeque::new(),
            stop,
            kept: HashMap::new(),
            due: BTreeSet::new(),
            lapses: BTreeSet::new(),
            has_answered: false,
            panics: 0,
            panicked: None,
            end_by: None,
        }
    }

    /// Until it is stopped, whatever panics; how much is left undone then.
    pub(super) async fn go_on(&mut self, budget: &Mutex<Duration>) -> usize {
        loop {
            let run = AssertUnwindSafe(self.run(budget));
            match run.catch_unwind().await {
                Ok(undone) => return undone,
                Err(panic) => self.has_panicked(&*panic),
            }
            // Before the end, `run` makes the pause.
            if let Some(end) = self.end_by {
                sleep(PAUSE_MIN).await;
                if end <= Instant::now() {
                    return self.undone();
                }
            }
        }
    }

    fn has_panicked(&mut self, panic: &(dyn Any + Send)) {
        let now = Instant::now();
        if self.panicked.is_none_or(|last| last + CALM <= now) {
            self.panics = 0;
        }
        (self.panics, self.panicked) = (self.panics.saturating_add(1), Some(now));
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let why = text.unwrap_or("for an unknown reason");
        // What is told of it here may be what panics.
        let told = catch_unwind(|| {
            tracing::error!(why, "what renews leases has panicked and begins anew");
            observe::keeper_panicked();
        });
        drop(told);
    }

    async fn run(&mut self, budget: &Mutex<Duration>) -> usize {
        let stop = self.stop.clone();
        let mut failed: Vec<Arc<Endpoint>> = Vec::new();
        let mut failures = 0;
        let kept = self.kept.iter();
        let lapses = kept.filter_map(|(&id, kept)| Some((kept.term.upgrade()?.deadline(), id)));
        self.lapses = lapses.collect();
        // After a panic: whatever has panicked may do so again.
        let pause = self.pause(self.panics);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.rest(pause) => {}
        }
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
    async fn finish(&mut self, budget: Duration) -> usize {
        let end = Instant::now() + budget;
        let end = *self.end_by.get_or_insert(end);
        self.janitor.hurry();
        let all_done = async {
            loop {
                self.take_orders();
                let kept: Vec<LeaseId> = self.kept.keys().copied().collect();
                for id in kept {
                    self.janitor.revoke(id);
                    if let Some(term) = self.forget(id) {
                        term.lose(LostReason::Closed);
                    }
                }
                tokio::select! {
                    biased;
                    () = self.wanted.left() => {}
                    () = self.janitor.done() => return,
                }
            }
        };
        // What is not confirmed in time ends by itself.
        let _ = timeout_at(end, all_done).await;
        self.undone()
    }

    /// What nobody has confirmed to be gone.
    fn undone(&self) -> usize {
        self.orders.len() + self.kept.len() + self.janitor.undone()
    }

    /// Renews it no more; its term, if somebody has a handle of it.
    fn forget(&mut self, id: LeaseId) -> Option<Arc<Term>> {
        let kept = self.kept.remove(&id)?;
        if let Some(health) = kept.health {
            health.put_away();
        }
        kept.term.upgrade()
    }

    /// A stream to `endpoint` has failed.
    fn moves_on(&self, endpoint: &Arc<Endpoint>, status: Status) {
        let verdict = classify("keep alive", status);
        observe::stream_failed(Stream::Leases);
        tracing::debug!(endpoint = %endpoint.name(), error = %verdict.error, "renewals move on");
        self.transport.report(endpoint, Some(&verdict));
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
        let at = Moment::from_nanos(0);
        let all = self.kept.iter_mut();
        let all = all.filter(|(_, kept)| kept.word != Word::Asked);
        let all = all.map(|(&id, kept)| (*kept.due.insert(at), id));
        self.due = all.collect();
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
            self.transport.report(&lane.endpoint, Some(&verdict));
        }
    }

    /// Sends the renewals that are due.
    fn renew_due(&mut self, lane: &mut Lane, mut second: Option<&mut Lane>) {
        let now = Moment::now();
        while let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            let known = self.kept.get_mut(&id);
            let known = known.filter(|kept| kept.due == Some(at));
            let known = known.and_then(|kept| Some((kept.term.upgrade()?, kept)));
            let Some((term, kept)) = known else {
                self.due.pop_first();
                continue;
            };
            let is_asked = kept.word == Word::Unasked && kept.health.is_some();
            if is_asked {
                // Due again when there is an answer.
                self.due.pop_first();
                (kept.word, kept.due) = (Word::Asked, None);
                if let Some(health) = kept.health.clone() {
                    self.hooks.ask(id, kept.term.clone(), health);
                }
            } else {
                if !lane.renew(id, term.ttl()) {
                    // Full: the rest goes when there is room; they stay due.
                    break;
                }
                if let Some(second) = &mut second {
                    let _ = second.renew(id, term.ttl());
                }
                self.due.pop_first();
                let next = now + term.ttl() / 3;
                (kept.word, kept.due) = (Word::Unasked, Some(next));
                self.due.insert((next, id));
            }
            // With a hook, this was looked at when that was asked.
            let is_first_look = is_asked || kept.health.is_none();
            if is_first_look && term.status(now) == LeaseStatus::Suspect {
                observe::lease_suspect();
                tracing::warn!(lease = %id, remaining = ?term.remaining(now), "a lease is suspect");
            }
        }
    }

    /// A hook has answered. One that says no is asked again when the next renewal would be due.
    fn checked(&mut self, Checkup { id, term, is_well }: Checkup) {
        let kept = self.kept.get_mut(&id);
        let kept = kept.filter(|kept| Weak::ptr_eq(&kept.term, &term));
        let (Some(kept), Some(term)) = (kept, term.upgrade()) else {
            return;
        };
        let now = Moment::now();
        let (word, at) = if is_well {
            (Word::Well, now)
        } else {
            (Word::Unasked, now + term.ttl() / 3)
        };
        (kept.word, kept.due) = (word, Some(at));
        self.due.insert((at, id));
    }

    /// A renewal was answered.
    fn answered(&mut self, lane: &mut Lane, answer: &pb::LeaseKeepAliveResponse) {
        self.transport.report(&lane.endpoint, None);
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
            self.forget(id);
            term.lose(LostReason::Gone);
            tracing::warn!(lease = %id, "a lease is gone");
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
                self.forget(id);
                continue;
            };
            term.check(now);
            if term.token().is_cancelled() {
                self.forget(id);
                tracing::warn!(lease = %id, "a lease is lost: {}", term.lost_reason().text());
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
        self.orders.extend(self.wanted.take());
        while let Some(order) = self.orders.pop_front() {
            match order {
                Order::Keep(id, mut kept) => {
                    self.forget(id);
                    if let Some(term) = kept.term.upgrade() {
                        self.due.insert((*kept.due.insert(term.due()), id));
                        self.lapses.insert((term.deadline(), id));
                    }
                    self.kept.insert(id, kept);
                }
                Order::Forget(id) => {
                    self.forget(id);
                }
                Order::Revoke(id) => {
                    self.janitor.revoke(id);
                    self.forget(id);
                }
                Order::Clean(litter) => self.janitor.clean(litter),
                Order::Checked(checkup) => self.checked(checkup),
                Order::Endpoints(uris) => self.transport.replace_endpoints(uris),
            }
        }
        observe::leases(self.kept.len());
    }
}

impl Drop for Work {
    /// Nobody renews what is kept here any more. In good order there is nothing left to tell.
    fn drop(&mut self) {
        let reason = if self.stop.is_cancelled() {
            LostReason::Closed
        } else {
            LostReason::NotRenewed
        };
        let orders = self.orders.drain(..).chain(self.wanted.end());
        let ordered = orders.filter_map(|order| match order {
            Order::Keep(_, kept) => Some(kept),
            _ => None,
        });
        for kept in ordered.chain(self.kept.drain().map(|(_, kept)| kept)) {
            if let Some(term) = kept.term.upgrade() {
                // Whatever has ended the thread does not keep the others from being told.
                drop(catch_unwind(AssertUnwindSafe(|| term.lose(reason))));
            }
        }
    }
}

async fn next(lane: &mut Option<Lane>) -> Event {
    match lane {
        Some(lane) => lane.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use http::Uri;

    #[tokio::test]
    async fn when_the_thread_ends_what_it_had_is_lost_and_it_takes_no_more() {
        let config = Client::builder().config();
        let wanted = Arc::new(Orders::default());
        let stop = CancellationToken::new();
        let mut work = Work::new(
            Transport::new(vec![Uri::from_static("http://a:1")], None, config),
            wanted.clone(),
            stop,
        );
        let term = || Arc::new(Term::new(Duration::from_mins(1), Moment::now()));
        let (kept, ordered, late) = (term(), term(), term());
        let keep = |id, term: &Arc<Term>| {
            let kept = Kept::new(Arc::downgrade(term), None);
            wanted.leave(Order::Keep(LeaseId::new(id), kept))
        };
        assert!(keep(1, &kept));
        work.take_orders();
        assert!(keep(2, &ordered));
        drop(work);
        for term in [&kept, &ordered] {
            assert!(term.token().is_cancelled());
            assert_eq!(term.lost_reason(), LostReason::NotRenewed);
        }
        assert!(!keep(3, &late), "nobody takes it");
        assert!(wanted.is_over());
    }
}
