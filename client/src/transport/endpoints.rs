//! The servers, and which of them is asked next.
//!
//! Those that answer take turns. One that failed rests, twice as long each time, and is only asked
//! again before that if all others rest too: then the one whose rest ends first.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use http::Uri;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::connector::Connector;
use super::line::Line;
use super::pings::Pings;
use crate::options::Config;

/// An endpoint that failed for the first time rests this long, and twice as long each time after.
const REST_MIN: Duration = Duration::from_millis(250);
/// No endpoint rests longer.
const REST_MAX: Duration = Duration::from_secs(10);

/// So long a server that knows no streamed ranges is not asked for one. Kubernetes' time.
const READS_IN_PAGES_FOR: Duration = Duration::from_mins(10);

/// One server.
#[derive(Debug)]
pub(crate) struct Endpoint {
    name: Arc<str>,
    uri: Uri,
    settings: tonic::transport::Endpoint,
    connector: Connector,
    pings: Arc<Pings>,
    connections: Mutex<Connections>,
    /// Whether it has answered, and has not failed since: then every call finds it so, and need not look
    /// at its health. Written while `health` is locked.
    is_fine: AtomicBool,
    health: Mutex<Health>,
}

/// The connections there are, or will be with the next call.
#[derive(Debug)]
struct Connections {
    calls: Channel,
    line: Arc<Line>,
    streams: Channel,
    /// How often they are pinged.
    pinged: Duration,
}

#[derive(Debug, Default)]
struct Health {
    /// Whether it has ever answered or failed.
    is_known: bool,
    /// Failures since it last answered.
    failures: u32,
    rests_until: Option<Instant>,
    /// Until when it is not asked for a streamed range.
    reads_in_pages_until: Option<Instant>,
}

impl Endpoint {
    /// One whose connections live on `runtime`, whoever is the first to use them.
    fn new(uri: Uri, config: &Config, runtime: &Handle) -> Arc<Self> {
        let pings = Pings::every(config.keep_alive_interval);
        let connector = Connector::new(config, pings.clone());
        let settings = config.endpoint(uri.clone());
        let settings = settings.executor(Spawn(runtime.clone()));
        let text = uri.to_string();
        Arc::new(Self {
            name: text.trim_end_matches('/').into(),
            connections: Mutex::new(Connections::new(&settings, &connector, &pings)),
            uri,
            settings,
            connector,
            pings,
            is_fine: AtomicBool::new(false),
            health: Mutex::default(),
        })
    }

    /// As people write it.
    pub(crate) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Where it is.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The connection for calls.
    pub(crate) fn calls(&self) -> Channel {
        self.connections().calls.clone()
    }

    /// The same, and whether it exists.
    pub(super) fn calls_and_line(&self) -> (Channel, Arc<Line>) {
        let connections = self.connections();
        (connections.calls.clone(), connections.line.clone())
    }

    /// The connection for watches and other streams of data.
    pub(crate) fn streams(&self) -> Channel {
        self.connections().streams.clone()
    }

    /// A connection for one call only.
    pub(crate) fn alone(&self) -> Channel {
        let pinged = self.pings.interval();
        connect(&self.settings, &self.connector, pinged, Arc::default())
    }

    /// The connections; others, if the server has complained of their pings.
    fn connections(&self) -> MutexGuard<'_, Connections> {
        let mut connections = self
            .connections
            .lock()
            .expect("nothing panics while it holds this lock");
        if connections.pinged != self.pings.interval() {
            *connections = Connections::new(&self.settings, &self.connector, &self.pings);
        }
        connections
    }

    /// It answers; whether it did not before.
    pub(super) fn answered(&self) -> bool {
        if self.is_fine.load(Ordering::Acquire) {
            return false;
        }
        let mut health = self.health();
        self.is_fine.store(true, Ordering::Release);
        let is_news = health.failures > 0 || !health.is_known;
        *health = Health {
            is_known: true,
            reads_in_pages_until: health.reads_in_pages_until,
            ..Health::default()
        };
        is_news
    }

    /// It has failed; whether that is news.
    pub(super) fn failed(&self, config: &Config) -> bool {
        let mut health = self.health();
        // Calls that were under way together fail together: that is one failure.
        let rests = |health: &Health| health.rests_until.is_some_and(|at| at > Instant::now());
        if rests(&health) {
            return false;
        }
        self.is_fine.store(false, Ordering::Release);
        health.is_known = true;
        let longest = REST_MAX.max(config.backoff_min);
        let rest = REST_MIN.saturating_mul(1 << health.failures.min(16));
        health.failures += 1;
        health.rests_until = Some(Instant::now() + rest.min(longest));
        true
    }

    /// It does not know streamed ranges. It may be another version by and by.
    pub(super) fn has_no_range_stream(&self) {
        self.health().reads_in_pages_until = Some(Instant::now() + READS_IN_PAGES_FOR);
    }

    pub(super) fn lacks_range_stream(&self) -> bool {
        let until = self.health().reads_in_pages_until;
        until.is_some_and(|at| at > Instant::now())
    }

    fn rests_until(&self) -> Option<Instant> {
        if self.is_fine.load(Ordering::Acquire) {
            return None;
        }
        self.health().rests_until.filter(|&at| at > Instant::now())
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

impl Connections {
    fn new(settings: &tonic::transport::Endpoint, connector: &Connector, pings: &Pings) -> Self {
        let (pinged, line) = (pings.interval(), Arc::default());
        Self {
            calls: connect(settings, connector, pinged, Arc::clone(&line)),
            streams: connect(settings, connector, pinged, Arc::default()),
            line,
            pinged,
        }
    }
}

/// Starts what belongs to a connection.
#[derive(Debug, Clone)]
struct Spawn(Handle);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// A connection that comes about with the first call.
fn connect(
    settings: &tonic::transport::Endpoint,
    connector: &Connector,
    pinged: Duration,
    line: Arc<Line>,
) -> Channel {
    let settings = settings.clone().http2_keep_alive_interval(pinged);
    settings.connect_with_connector_lazy(connector.another(pinged, line))
}

/// All servers that a client knows.
#[derive(Debug)]
pub(super) struct Endpoints {
    list: RwLock<Vec<Arc<Endpoint>>>,
    turn: AtomicUsize,
    /// The one that the client was made on.
    runtime: Handle,
}

impl Endpoints {
    /// `uris` is not empty.
    pub(super) fn new(uris: Vec<Uri>, config: &Config) -> Self {
        let runtime = Handle::current();
        let list: Vec<_> = uris
            .into_iter()
            .map(|uri| Endpoint::new(uri, config, &runtime))
            .collect();
        assert!(!list.is_empty(), "a client has an endpoint");
        // Many clients with the same list must not all begin with the same server.
        let turn = AtomicUsize::new(fastrand::usize(..list.len()));
        Self {
            list: RwLock::new(list),
            turn,
            runtime,
        }
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The next endpoint, if possible none of `tried`; none after [`Endpoints::clear`].
    pub(super) fn pick(&self, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let list = self.list();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..list.len()).map(|at| &list[(turn.wrapping_add(at)) % list.len()]);
        let untried = || in_turn().filter(|one| !contains(tried, one));
        let picked = untried()
            .find(|one| one.rests_until().is_none())
            .or_else(|| untried().min_by_key(|one| one.rests_until()))
            .or_else(|| in_turn().min_by_key(|one| one.rests_until()));
        picked.cloned()
    }

    /// Whether there is an endpoint that is not among `tried` and does not rest.
    pub(super) fn has_other_than(&self, tried: &[Arc<Endpoint>]) -> bool {
        let list = self.list();
        let mut others = list.iter().filter(|one| !contains(tried, one));
        others.any(|one| one.rests_until().is_none())
    }

    /// Whether there is none that is not among `tried`.
    pub(super) fn are_all_in(&self, tried: &[Arc<Endpoint>]) -> bool {
        self.list().iter().all(|one| contains(tried, one))
    }

    pub(super) fn len(&self) -> usize {
        self.list().len()
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.list().iter().map(|one| one.name()).collect()
    }

    pub(super) fn uris(&self) -> Vec<Uri> {
        self.list().iter().map(|one| one.uri().clone()).collect()
    }

    /// Lets go of every endpoint, for good.
    pub(super) fn clear(&self) {
        self.list_mut().clear();
    }

    pub(super) fn replace(&self, uris: Vec<Uri>, config: &Config) {
        let mut list = self.list_mut();
        if list.is_empty() {
            return;
        }
        let kept = |uri: Uri| {
            let old = list.iter().find(|one| one.uri() == &uri);
            let new = || Endpoint::new(uri, config, &self.runtime);
            old.cloned().unwrap_or_else(new)
        };
        let new: Vec<_> = uris.into_iter().map(kept).collect();
        if !new.is_empty() {
            *list = new;
        }
    }

    fn list_mut(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Arc<Endpoint>>> {
        self.list
            .write()
            .expect("nothing panics while it holds this lock")
    }

    fn list(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Endpoint>>> {
        self.list
            .read()
            .expect("nothing panics while it holds this lock")
    }
}

fn contains(list: &[Arc<Endpoint>], one: &Arc<Endpoint>) -> bool {
    list.iter().any(|other| Arc::ptr_eq(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{ClientBuilder, uri};

    fn endpoints(names: &[&str]) -> Endpoints {
        let uris = names.iter().map(|name| uri(name, false).unwrap()).collect();
        Endpoints::new(uris, &ClientBuilder::default().config())
    }

    fn picks(endpoints: &Endpoints, count: usize) -> Vec<String> {
        let names = (0..count).map(|_| endpoints.pick(&[]).unwrap().name().to_string());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_take_turns_and_the_failed_rest() {
        let endpoints = endpoints(&["a:1", "b:1", "c:1"]);
        assert_eq!(
            picks(&endpoints, 3),
            ["http://a:1", "http://b:1", "http://c:1"]
        );
        let config = ClientBuilder::default().config();
        let failed = endpoints.pick(&[]).unwrap();
        failed.failed(&config);
        assert!(!picks(&endpoints, 30).contains(&failed.name().to_string()));
        tokio::time::advance(REST_MIN).await;
        assert!(picks(&endpoints, 3).contains(&failed.name().to_string()));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_have_failed_the_one_that_has_rested_longest_is_asked() {
        let endpoints = endpoints(&["a:1", "b:1"]);
        let config = ClientBuilder::default().config();
        let (first, second) = (endpoints.pick(&[]).unwrap(), endpoints.pick(&[]).unwrap());
        first.failed(&config);
        tokio::time::advance(Duration::from_millis(10)).await;
        second.failed(&config);
        assert_eq!(endpoints.pick(&[]).unwrap().name(), first.name());
        assert_eq!(
            endpoints.pick(std::slice::from_ref(&first)).unwrap().name(),
            second.name()
        );
        assert!(!endpoints.has_other_than(&[first]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_goes_on_failing_rests_longer() {
        let endpoints = endpoints(&["a:1", "b:1"]);
        let config = ClientBuilder::default().config();
        let one = endpoints.pick(&[]).unwrap();
        let mut rests = Vec::new();
        for _ in 0..8 {
            one.failed(&config);
            one.failed(&config);
            let rest = one.rests_until().unwrap() - Instant::now();
            rests.push(rest.as_millis());
            tokio::time::advance(rest).await;
        }
        assert_eq!(rests, [250, 500, 1000, 2000, 4000, 8000, 10000, 10000]);
        one.answered();
        one.failed(&config);
        assert_eq!(one.rests_until().unwrap() - Instant::now(), REST_MIN);
    }

    #[tokio::test]
    async fn endpoints_that_stay_keep_their_connections() {
        let endpoints = endpoints(&["a:1", "b:1"]);
        let config = ClientBuilder::default().config();
        let old: Vec<_> = endpoints.list().clone();
        endpoints.replace(
            vec![uri("b:1", false).unwrap(), uri("c:1", false).unwrap()],
            &config,
        );
        assert!(Arc::ptr_eq(&old[1], &endpoints.list()[0]));
        assert_eq!(endpoints.names().len(), 2);
        endpoints.replace(Vec::new(), &config);
        assert_eq!(endpoints.names().len(), 2, "an empty list changes nothing");
        endpoints.clear();
        endpoints.replace(vec![uri("b:1", false).unwrap()], &config);
        assert!(endpoints.pick(&[]).is_none(), "closed is for good");
    }
}
