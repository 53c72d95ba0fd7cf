//! What can be seen of a client from outside: metrics, and spans of calls.
//!
//! Every metric's name is in this file and nowhere else; `docs/client-metrics.md` is the table for
//! users, and a test compares it with what is emitted. Neither values nor secrets are in any label
//! or field, and keys only where the application has named a range of them itself.
//!
//! The facade is always compiled in: without a recorder and a subscriber, all that is done here for one
//! call takes 1 us in a debug build (measured, 200,000 calls), of the 50 us and more of the call.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, SharedString};
use metrics::{counter, gauge, histogram, with_recorder};
use tokio::time::Instant;
use tracing::Span;
use tracing::field::Empty;

use crate::call::{self, Call};
use crate::error::{Error, Outcome};
use crate::lease::LostReason;
use crate::transport::Endpoint;
use crate::types::{KeyRange, Revision};

/// One call from its beginning to its end, however it ends.
pub(crate) struct Called {
    call: Call,
    began: Instant,
    span: Span,
    attempts: u32,
    is_over: bool,
}

impl Called {
    pub(crate) fn begin(call: Call) -> Self {
        let span = tracing::debug_span!(
            "call",
            otel.name = Empty,
            otel.kind = "client",
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = Empty,
            rpc.method = Empty,
            server.address = Empty,
            server.port = Empty,
            call = call.name,
            attempts = Empty,
            outcome = Empty,
            error.type = Empty,
        );
        if !span.is_disabled()
            && let Some((service, method)) = call.rpc()
        {
            span.record("otel.name", format_args!("{service}/{method}"));
            span.record("rpc.service", service);
            span.record("rpc.method", method);
        }
        Self {
            call,
            began: Instant::now(),
            span,
            attempts: 0,
            is_over: false,
        }
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Another attempt begins.
    pub(crate) fn attempt(&mut self, endpoint: &Endpoint) {
        self.attempts += 1;
        if !self.span.is_disabled() {
            let uri = endpoint.uri();
            self.span
                .record("server.address", uri.host().unwrap_or_default());
            self.span
                .record("server.port", uri.port_u16().unwrap_or_default());
        }
    }

    /// The call has ended; an error is told how many attempts there were and how long they took.
    pub(crate) fn end<R>(mut self, result: Result<R, Error>) -> Result<R, Error> {
        let took = self.began.elapsed();
        match &result {
            Ok(_) => self.over("ok", "none", took),
            Err(error) => self.over(outcome(error.outcome()), error.kind().name(), took),
        }
        result.map_err(|error| error.after(self.attempts, took))
    }

    fn over(&mut self, outcome: &'static str, error: &'static str, took: Duration) {
        self.is_over = true;
        let call = self.call.name;
        let others;
        let known = CALLS.iter().find(|names| names.call == call);
        let names = if let Some(names) = known {
            names
        } else {
            others = CallNames::new(call);
            &others
        };
        with_recorder(|recorder| {
            let calls = match outcome {
                "ok" => recorder.register_counter(&names.well, &HERE),
                _ => recorder.register_counter(&calls_total(call, outcome, error), &HERE),
            };
            calls.increment(1);
            let attempts = recorder.register_counter(&names.attempts, &HERE);
            attempts.increment(self.attempts.into());
            recorder
                .register_histogram(&names.seconds, &HERE)
                .record(took);
        });
        if !self.span.is_disabled() {
            self.span.record("attempts", self.attempts);
            self.span.record("outcome", outcome);
            if error != "none" {
                self.span.record("error.type", error);
                self.span.record("otel.status_code", "ERROR");
            }
        }
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        if !self.is_over {
            // Its future was dropped.
            let took = self.began.elapsed();
            self.over("unknown", "Dropped", took);
        }
    }
}

/// What is measured of one kind of call, by names that are put together once: the macros allocate and
/// hash a name that has labels each time, which takes longer than to measure.
struct CallNames {
    call: &'static str,
    /// Of those that end well.
    well: Key,
    attempts: Key,
    seconds: Key,
}

static CALLS: LazyLock<Vec<CallNames>> =
    LazyLock::new(|| call::names().map(CallNames::new).collect());

/// What the macros say of a metric.
static HERE: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

impl CallNames {
    fn new(call: &'static str) -> Self {
        let label = || vec![Label::new("call", call)];
        Self {
            call,
            well: calls_total(call, "ok", "none"),
            attempts: Key::from_parts("gonfalon_client_attempts_total", label()),
            seconds: Key::from_parts("gonfalon_client_call_seconds", label()),
        }
    }
}

fn calls_total(call: &'static str, outcome: &'static str, error: &'static str) -> Key {
    let labels = [("call", call), ("outcome", outcome), ("error", error)];
    let labels = labels.map(|(name, value)| Label::new(name, value));
    Key::from_parts("gonfalon_client_calls_total", labels.to_vec())
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "applied",
        Outcome::NotApplied => "not_applied",
        Outcome::Unknown => "unknown",
    }
}

/// A call was not sent again because too many had been.
pub(crate) fn retry_budget_exhausted() {
    counter!("gonfalon_client_retry_budget_exhausted_total").increment(1);
}

/// An endpoint answers again, or has failed.
pub(crate) fn endpoint(name: &Arc<str>, is_fine: bool) {
    let label = || [of("endpoint", name)];
    gauge!("gonfalon_client_endpoint_up", label().to_vec()).set(f64::from(u8::from(is_fine)));
    if !is_fine {
        counter!("gonfalon_client_endpoint_failures_total", label().to_vec()).increment(1);
    }
}

/// A stream that many watches or leases share.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Watches,
    Leases,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Watches => "watches",
            Self::Leases => "leases",
        }
    }
}

/// A stream to a member was opened: the first, or one in the place of another.
pub(crate) fn stream_opened(stream: Stream) {
    counter!("gonfalon_client_streams_opened_total", "stream" => stream.name()).increment(1);
}

/// A stream to a member has failed, or was too slow.
pub(crate) fn stream_failed(stream: Stream) {
    counter!("gonfalon_client_streams_failed_total", "stream" => stream.name()).increment(1);
}

/// How many watches there are.
pub(crate) fn watches(count: usize) {
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 watches")]
    gauge!("gonfalon_client_watches").set(count as f64);
}

/// A watch has received a batch.
pub(crate) fn watch_batch(events: usize) {
    counter!("gonfalon_client_watch_batches_total").increment(1);
    counter!("gonfalon_client_watch_events_total").increment(events as u64);
}

/// A watch goes on on another stream.
pub(crate) fn watch_resumed() {
    counter!("gonfalon_client_watch_resumes_total").increment(1);
}

/// The history that a watch needed is gone.
pub(crate) fn watch_compacted() {
    counter!("gonfalon_client_watch_compactions_total").increment(1);
}

/// A watch's queue was full.
pub(crate) fn watch_overflowed() {
    counter!("gonfalon_client_watch_overflows_total").increment(1);
}

/// How many leases are kept.
pub(crate) fn leases(count: usize) {
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 leases")]
    gauge!("gonfalon_client_leases").set(count as f64);
}

/// A renewal was answered, after so long.
pub(crate) fn lease_renewed(took: Duration) {
    counter!("gonfalon_client_lease_renewals_total").increment(1);
    histogram!("gonfalon_client_lease_renewal_seconds").record(took);
}

/// Renewals were sent on a second stream because the first was slow.
pub(crate) fn leases_hedged() {
    counter!("gonfalon_client_lease_hedges_total").increment(1);
}

/// A renewal is due of a lease whose last one was not answered in time.
pub(crate) fn lease_suspect() {
    counter!("gonfalon_client_leases_suspect_total").increment(1);
}

/// A lease is lost, other than by its own application's wish.
pub(crate) fn lease_lost(reason: LostReason) {
    counter!("gonfalon_client_leases_lost_total", "reason" => reason.name()).increment(1);
}

/// What renews leases begins: what is counted of it is there before there is anything to count.
pub(crate) fn keeper_started() {
    counter!("gonfalon_client_keeper_panics_total").increment(0);
    for left in [Left::Lease, Left::Key] {
        counter!("gonfalon_client_left_behind_total", "what" => left.name()).increment(0);
    }
}

/// What renews leases has panicked, and begins anew.
pub(crate) fn keeper_panicked() {
    counter!("gonfalon_client_keeper_panics_total").increment(1);
}

/// What ends by itself only, because the client could not end it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Left {
    Lease,
    Key,
}

impl Left {
    fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Key => "key",
        }
    }
}

/// A lease, or the key of a contender who gave up, stays until a time is up.
pub(crate) fn left_behind(left: Left) {
    counter!("gonfalon_client_left_behind_total", "what" => left.name()).increment(1);
}

/// What is measured of one cache, whose range is its label.
#[derive(Debug, Clone)]
pub(crate) struct CacheMeter {
    revision: Gauge,
    keys: Gauge,
    cut_off: Gauge,
    listings: Counter,
}

impl CacheMeter {
    /// Counts for the recorder that there is now.
    pub(crate) fn new(range: &KeyRange) -> Self {
        let range: Arc<str> = range.to_string().into();
        let label = || vec![of("range", &range)];
        Self {
            revision: gauge!("gonfalon_client_cache_revision", label()),
            keys: gauge!("gonfalon_client_cache_keys", label()),
            cut_off: gauge!("gonfalon_client_cache_cut_off_seconds", label()),
            listings: counter!("gonfalon_client_cache_listings_total", label()),
        }
    }

    /// What it shows now, and for how long no member has reported changes.
    #[expect(clippy::cast_precision_loss, reason = "2^52 is far away")]
    pub(crate) fn shows(&self, revision: Revision, keys: usize, cut_off: Duration) {
        self.revision.set(revision.get() as f64);
        self.keys.set(keys as f64);
        self.cut_off.set(cut_off.as_secs_f64());
    }

    /// The whole range was listed.
    pub(crate) fn listed(&self) {
        self.listings.increment(1);
    }
}

/// What a key holds is no value.
pub(crate) fn decode_failed() {
    counter!("gonfalon_client_cache_decode_errors_total").increment(1);
}

/// Somebody has waited so long for a lock, or to be elected.
pub(crate) fn recipe_waited(recipe: &'static str, took: Duration) {
    histogram!("gonfalon_client_recipe_wait_seconds", "recipe" => recipe).record(took);
}

fn of(name: &'static str, value: &Arc<str>) -> Label {
    Label::new(name, SharedString::from_shared(value.clone()))
}
