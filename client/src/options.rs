//! How a client is set up: what the user wrote, resolved once into what it runs with.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use tonic::transport::Endpoint;

use crate::client::Client;
use crate::clock::bounded;
use crate::error::{Error, ErrorKind};
use crate::tls::{Tls, Trust};
use crate::types::IntoBytes;

/// Members do not come and go faster, and every client asks.
const SYNC_INTERVAL_MIN: Duration = Duration::from_millis(100);

const PLAIN: &str = "http";
const SECURED: &str = "https";

/// Servers end connections that are pinged more often than every 5 s.
const KEEP_ALIVE_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// What can name servers: `"host:2379"`, `"http://a:2379,http://b:2379"`, or a list of such.
pub trait IntoEndpoints {
    /// One text for each server.
    fn into_endpoints(self) -> Vec<String>;
}

impl IntoEndpoints for &str {
    fn into_endpoints(self) -> Vec<String> {
        self.split(',').map(|part| part.trim().to_owned()).collect()
    }
}

impl IntoEndpoints for String {
    fn into_endpoints(self) -> Vec<String> {
        self.as_str().into_endpoints()
    }
}

impl IntoEndpoints for &String {
    fn into_endpoints(self) -> Vec<String> {
        self.as_str().into_endpoints()
    }
}

impl<S: AsRef<str>> IntoEndpoints for Vec<S> {
    fn into_endpoints(self) -> Vec<String> {
        self.as_slice().into_endpoints()
    }
}

impl<S: AsRef<str>, const N: usize> IntoEndpoints for [S; N] {
    fn into_endpoints(self) -> Vec<String> {
        self.as_slice().into_endpoints()
    }
}

impl<S: AsRef<str>> IntoEndpoints for &[S] {
    fn into_endpoints(self) -> Vec<String> {
        let parts = self.iter().map(|text| text.as_ref().into_endpoints());
        parts.flatten().collect()
    }
}

/// Settings of a client; each has a default.
#[derive(Clone)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    namespace: Bytes,
    user: Option<(String, String)>,
    tls: Option<Tls>,
    config: Config,
}

/// What a client runs with; nothing is left open.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) connect_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) response_bytes_max: usize,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) retry_share: f64,
    pub(crate) reads_go_forward: bool,
    /// To a server in this process, instead of the network.
    #[cfg(feature = "testkit")]
    pub(crate) pipes: Option<crate::testkit::Pipes>,
    /// None: only when asked.
    pub(crate) sync_interval: Option<Duration>,
    /// None: connections are not encrypted.
    pub(crate) trust: Option<Arc<Trust>>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            namespace: Bytes::new(),
            user: None,
            tls: None,
            config: Config {
                connect_timeout: Duration::from_secs(3),
                deadline: Duration::from_secs(5),
                keep_alive_interval: Duration::from_secs(10),
                keep_alive_timeout: Duration::from_secs(5),
                response_bytes_max: 64 * 1024 * 1024,
                backoff_min: Duration::from_millis(50),
                backoff_max: Duration::from_secs(5),
                retry_share: 0.2,
                reads_go_forward: true,
                #[cfg(feature = "testkit")]
                pipes: None,
                sync_interval: None,
                trust: None,
            },
        }
    }
}

impl ClientBuilder {
    /// The servers, in any order; required. `host:port` is `https` with [`ClientBuilder::tls`] and
    /// `http` without. `https` without it trusts the machine's own list of authorities.
    #[must_use]
    pub fn endpoints(mut self, endpoints: impl IntoEndpoints) -> Self {
        self.endpoints = endpoints.into_endpoints();
        self
    }

    /// Every key is put behind this prefix, and results come without it. Default: none.
    #[must_use]
    pub fn namespace(mut self, prefix: impl IntoBytes) -> Self {
        self.namespace = prefix.into_bytes();
        self
    }

    /// Who asks. A token is fetched with the first call and again when it is no longer accepted.
    /// Default: nobody.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// How connections are encrypted. Default: not, unless an endpoint is `https`.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long a connection may take to come about, encryption included. Default: 3 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = bounded(timeout);
        self
    }

    /// How long a call may take, all its attempts together, unless it says otherwise. Default: 5 s.
    /// Streams (watches, pages) have no end of their own.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.config.deadline = bounded(deadline);
        self
    }

    /// How often a silent connection is pinged, and how long the answer may take before the
    /// connection is given up. Default: 10 s and 5 s. Servers want at least 5 s between pings.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.config.keep_alive_interval = bounded(interval);
        self.config.keep_alive_timeout = bounded(timeout);
        self
    }

    /// The largest message that is accepted, in bytes; of a watch, the most that the keys and values of
    /// one message may have. Default: 64 MiB.
    ///
    /// A larger answer is an error, [`ErrorKind::TooLarge`], and ends only the call or the watch that
    /// it is for. Servers divide what they tell a watch by the size of the largest request that they
    /// take. A message for watches that is larger than four times as much, and than 32 MiB, is not even
    /// read: it ends all watches of the client with that error (caches list again, and go on).
    #[must_use]
    pub fn response_bytes_max(mut self, bytes: usize) -> Self {
        self.config.response_bytes_max = bytes;
        self
    }

    /// The pauses between attempts: random between 0 and a bound that doubles from `min` to `max`.
    /// Default: 50 ms to 5 s.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        (self.config.backoff_min, self.config.backoff_max) = (bounded(min), bounded(max));
        self
    }

    /// How many attempts beyond the first there may be, as a share of all calls, so that clients do
    /// not bury a cluster that is in trouble. Ten are always allowed. Default: 0.2.
    #[must_use]
    pub fn retry_share(mut self, share: f64) -> Self {
        self.config.retry_share = share;
        self
    }

    /// Whether a serializable read that shows less than this client has seen before is repeated on
    /// another member. Default: true.
    #[must_use]
    pub fn reads_go_forward(mut self, wanted: bool) -> Self {
        self.config.reads_go_forward = wanted;
        self
    }

    /// Through pipes in memory.
    #[cfg(feature = "testkit")]
    pub(crate) fn through(mut self, pipes: crate::testkit::Pipes) -> Self {
        self.config.pipes = Some(pipes);
        self
    }

    /// How often the endpoints are replaced by those that the cluster's members publish, as with
    /// [`Client::sync_endpoints`]; a tenth more or less, so that clients do not all ask at once.
    /// Default: only when that is called.
    #[must_use]
    pub fn sync_endpoints_every(mut self, interval: Duration) -> Self {
        self.config.sync_interval = Some(bounded(interval));
        self
    }

    /// Makes the client. Connections come about with the first calls.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`]: no endpoint, or one that is no address; a setting out of its
    /// range; a certificate or key that cannot be read, or is none; encrypted and plain endpoints
    /// at once.
    ///
    /// Connections, watches and caches live on the tokio runtime that this is called on, and end with
    /// it; the client can be used from other runtimes as long as that one runs.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        let refused = |why: String| Error::new(ErrorKind::InvalidArgument, "connect", why);
        if names_user(&self.endpoints) {
            return Err(refused(NAMES_USER.into()));
        }
        let mut config = self.config;
        if self.endpoints.is_empty() {
            return Err(refused(
                "no endpoint was given; name at least one server".into(),
            ));
        }
        if config.keep_alive_interval < KEEP_ALIVE_INTERVAL_MIN {
            return Err(refused(format!(
                "a keep-alive interval of {:?}: servers want at least {KEEP_ALIVE_INTERVAL_MIN:?}",
                config.keep_alive_interval
            )));
        }
        if !(0.0..=1.0).contains(&config.retry_share) {
            return Err(refused(format!(
                "a retry share of {}: it is between 0 and 1",
                config.retry_share
            )));
        }
        if config
            .sync_interval
            .is_some_and(|interval| interval < SYNC_INTERVAL_MIN)
        {
            return Err(refused(format!(
                "endpoints synced every {:?}: at least {SYNC_INTERVAL_MIN:?} apart",
                config.sync_interval.unwrap_or_default()
            )));
        }
        let is_secured = |text: &String| text.starts_with(&format!("{SECURED}://"));
        let implied = || self.endpoints.iter().any(is_secured).then(Tls::new);
        let tls = self.tls.or_else(implied);
        config.trust = match tls.map(Trust::open).transpose() {
            Ok(trust) => trust.map(Arc::new),
            Err(why) => return Err(refused(why)),
        };
        let is_secured = config.trust.is_some();
        let endpoints = self.endpoints.iter();
        let endpoints = endpoints.map(|text| uri(text, is_secured).map_err(refused));
        let endpoints: Vec<Uri> = endpoints.collect::<Result<_, _>>()?;
        Ok(Client::open(endpoints, self.namespace, self.user, config))
    }
}

#[cfg(test)]
impl ClientBuilder {
    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the password, wherever it was written.
        let endpoints = (!names_user(&self.endpoints)).then_some(&self.endpoints);
        f.debug_struct("ClientBuilder")
            .field("endpoints", &endpoints.ok_or(NAMES_USER))
            .field("namespace", &self.namespace)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("tls", &self.tls)
            .field("config", &self.config)
            .finish()
    }
}

/// What is wrong with an endpoint that has a user's name, and perhaps his password.
const NAMES_USER: &str =
    "an endpoint names a user (\"@\"); give name and password to the builder's `user`";

/// Whether one of the texts has a user's name before a host. A password with a comma in it spans two
/// of them.
fn names_user(endpoints: &[String]) -> bool {
    endpoints.iter().any(|text| text.contains('@'))
}

/// An endpoint as people write it, of a client that encrypts or does not; says what is wrong with it
/// otherwise.
pub(crate) fn uri(text: &str, is_secured: bool) -> Result<Uri, String> {
    let scheme = if is_secured { SECURED } else { PLAIN };
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("{scheme}://{text}")
    };
    if whole.contains('@') {
        // Not the text: it may have a password.
        return Err(NAMES_USER.into());
    }
    let uri: Uri = whole
        .parse()
        .map_err(|error| format!("the endpoint {text:?} is no address: {error}"))?;
    match uri.scheme_str() {
        Some(given) if given == scheme => {}
        Some(PLAIN) => {
            return Err(format!(
                "the endpoint {text:?} is not encrypted, and this client encrypts"
            ));
        }
        Some(SECURED) => {
            return Err(format!(
                "the endpoint {text:?} is encrypted, and this client has no settings for that"
            ));
        }
        other => {
            return Err(format!(
                "the endpoint {text:?} has the scheme {:?}; {PLAIN} and {SECURED} are known",
                other.unwrap_or_default()
            ));
        }
    }
    if uri.port_u16().is_none() {
        return Err(format!("the endpoint {text:?} has no port; etcd's is 2379"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(format!(
            "the endpoint {text:?} has a path; it is scheme, host and port"
        ));
    }
    Ok(uri)
}

impl Config {
    /// A connection to `uri`, not yet made.
    pub(crate) fn endpoint(&self, uri: Uri) -> Endpoint {
        Endpoint::from(uri)
            .keep_alive_timeout(self.keep_alive_timeout)
            .keep_alive_while_idle(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_written_in_the_ways_that_people_write_them() {
        for (text, want) in [
            ("a:2379", Ok("http://a:2379/")),
            ("http://127.0.0.1:2379", Ok("http://127.0.0.1:2379/")),
            ("http://[::1]:2379/", Ok("http://[::1]:2379/")),
            ("http://a", Err("has no port")),
            ("ftp://a:1", Err("has the scheme \"ftp\"")),
            ("https://a:1", Err("is encrypted")),
            ("http://a:2379/v3", Err("has a path")),
            ("", Err("is no address")),
        ] {
            match (uri(text, false), want) {
                (Ok(got), Ok(want)) => assert_eq!(got.to_string(), want, "{text}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
                (got, want) => panic!("{text}: {got:?}, wanted {want:?}"),
            }
        }
    }

    #[test]
    fn an_endpoint_with_a_password_is_refused_and_not_repeated() {
        for text in [
            "http://root:secret@a:2379",
            "root:secret@a:2379",
            "x://root:secret@a",
            "root:secret,more@a:2379",
            "https://a:2379,https://root:secret@b:2379",
        ] {
            let builder = ClientBuilder::default().endpoints(text);
            let shown = format!("{builder:?}");
            let refused = builder.build().unwrap_err();
            assert_eq!(*refused.kind(), ErrorKind::InvalidArgument);
            let told = format!("{shown} {refused} {refused:?}");
            assert!(
                told.contains("`user`") && !told.contains("secret"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_client_that_encrypts_uses_no_plain_endpoint() {
        assert_eq!(uri("a:2379", true).unwrap().to_string(), "https://a:2379/");
        let refused = uri("http://a:2379", true).unwrap_err();
        assert!(refused.contains("is not encrypted"), "{refused}");
    }

    #[test]
    fn several_endpoints_come_as_text_or_as_a_list() {
        assert_eq!("a:1, b:2".into_endpoints(), ["a:1", "b:2"]);
        assert_eq!(["a:1,b:2", "c:3"].into_endpoints(), ["a:1", "b:2", "c:3"]);
    }

    #[test]
    fn a_password_is_not_shown() {
        let builder = ClientBuilder::default().user("root", "secret");
        assert!(!format!("{builder:?}").contains("secret"));
    }
}
