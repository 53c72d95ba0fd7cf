//! The way to the servers: which endpoint is used, for how long, and what is tried again.
//!
//! A request is sent again only if it cannot do harm: if no connection came about (nothing was
//! sent), or if it only reads. A write that was sent and not answered may have happened, and says so.

use std::time::Duration;

use gonfalon_proto::etcdserverpb::cluster_client::ClusterClient;
use gonfalon_proto::etcdserverpb::kv_client::KvClient;
use gonfalon_proto::etcdserverpb::lease_client::LeaseClient;
use gonfalon_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use gonfalon_proto::etcdserverpb::watch_client::WatchClient;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::args::Settings;
use crate::failure::Failure;

/// Servers ban clients that ping more often, so that it is not offered.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);
/// The wait before a read is sent again after a server said that it cannot answer now.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What to do after a write without an answer.
const MAY_HAVE_HAPPENED: &str = "The change may have happened all the same: read before you retry. \
     `endpoint status` shows whether there is a leader.";

/// Whether a request may be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads, or doing it twice is like doing it once.
    Safe,
    /// It asks this very server, and wants the first answer.
    Pointless,
    /// Doing it twice could do harm.
    Never,
}

/// The servers, and the one in use.
#[derive(Debug)]
pub(crate) struct Connection {
    endpoints: Vec<String>,
    settings: Settings,
    live: Mutex<Live>,
}

#[derive(Debug)]
struct Live {
    /// The endpoint in use, or the one to try first.
    at: usize,
    channel: Option<Channel>,
}

impl Connection {
    /// Checks the endpoints' spelling; connects with the first call.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Failure> {
        let endpoints = settings.endpoints.iter().map(|text| address(text));
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, _>>()?,
            settings: settings.clone(),
            live: Mutex::new(Live {
                at: 0,
                channel: None,
            }),
        })
    }

    /// The same settings for other endpoints.
    pub(crate) fn to(&self, endpoints: &[String]) -> Result<Self, Failure> {
        Self::new(&Settings {
            endpoints: endpoints.to_vec(),
            ..self.settings.clone()
        })
    }

    /// One connection for each endpoint.
    pub(crate) fn each(&self) -> Result<Vec<Self>, Failure> {
        self.endpoints
            .iter()
            .map(|endpoint| self.to(std::slice::from_ref(endpoint)))
            .collect()
    }

    /// The first endpoint, as it was given, without its scheme.
    pub(crate) fn name(&self) -> &str {
        &self.endpoints[0]
    }

    /// How many servers there are to try.
    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// How long one call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.settings.command_timeout
    }

    /// Calls a server, and another if that is harmless and helps.
    pub(crate) async fn call<T>(
        &self,
        repeat: Repeat,
        operation: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let mut deadline = None;
        loop {
            let (endpoint, channel) = self.channel().await?;
            // The time to connect does not count.
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.timeout());
            let status = match tokio::time::timeout_at(deadline, operation(channel)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(self.no_answer(&endpoint, repeat)),
            };
            let is_broken = broke(&status);
            if status.code() != Code::Unavailable && !is_broken {
                return Err(Failure::status(&endpoint, &status));
            }
            self.lost().await;
            if repeat != Repeat::Safe || Instant::now() + RETRY_PAUSE >= deadline {
                let failure = if is_broken {
                    let why = status.message();
                    let what = format!("the connection to {endpoint} broke: {why}");
                    Failure::unreachable(what).advised(&status)
                } else {
                    Failure::status(&endpoint, &status)
                };
                return Err(match repeat {
                    Repeat::Never if may_have_happened(&status) => failure.next(MAY_HAVE_HAPPENED),
                    Repeat::Never | Repeat::Safe | Repeat::Pointless => failure,
                });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// A channel to a server that answers, and its name.
    pub(crate) async fn channel(&self) -> Result<(String, Channel), Failure> {
        let mut live = self.live.lock().await;
        if let Some(channel) = &live.channel {
            return Ok((self.endpoints[live.at].clone(), channel.clone()));
        }
        let mut reasons = Vec::new();
        for step in 0..self.endpoints.len() {
            let at = (live.at + step) % self.endpoints.len();
            let endpoint = &self.endpoints[at];
            match self.dial(endpoint).await {
                Ok(channel) => {
                    *live = Live {
                        at,
                        channel: Some(channel.clone()),
                    };
                    return Ok((endpoint.clone(), channel));
                }
                Err(why) => reasons.push(format!("{endpoint}: {why}")),
            }
        }
        Err(Failure::unreachable(format!("cannot connect to {}", reasons.join("; "))).next(
            "Is the server running? `gonfalon serve` starts one; --endpoints or GONFALON_ENDPOINTS \
             names others.",
        ))
    }

    /// A new connection to the server in use, beside the one that the calls share.
    pub(crate) async fn separate(&self) -> Result<Channel, Failure> {
        let (endpoint, _) = self.channel().await?;
        self.dial(&endpoint)
            .await
            .map_err(|why| Failure::unreachable(format!("cannot connect to {endpoint}: {why}")))
    }

    /// Forgets the endpoint in use after it failed; the next call starts with the one behind it.
    pub(crate) async fn lost(&self) {
        let mut live = self.live.lock().await;
        if live.channel.take().is_some() {
            live.at = (live.at + 1) % self.endpoints.len();
        }
    }

    async fn dial(&self, endpoint: &str) -> Result<Channel, String> {
        let uri = format!("http://{endpoint}");
        let builder = Channel::from_shared(uri).map_err(|err| err.to_string())?;
        let builder = builder
            .connect_timeout(self.settings.dial_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.settings.keepalive_time.max(KEEPALIVE_TIME_MIN))
            .keep_alive_timeout(self.settings.keepalive_timeout);
        let connected = tokio::time::timeout(self.settings.dial_timeout, builder.connect()).await;
        match connected {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(err)) => Err(innermost(&err)),
            Err(_) => Err("no connection in time (--dial-timeout)".to_owned()),
        }
    }

    fn no_answer(&self, endpoint: &str, repeat: Repeat) -> Failure {
        let time = self.timeout();
        let failure = Failure::unreachable(format!("{endpoint} did not answer within {time:?}"));
        match repeat {
            Repeat::Safe | Repeat::Pointless => failure.next(
                "`endpoint status` shows whether there is a leader; --command-timeout waits longer.",
            ),
            Repeat::Never => failure.next(MAY_HAVE_HAPPENED),
        }
    }
}

/// Whether the connection failed under a call, rather than a server refusing it.
fn broke(status: &Status) -> bool {
    let code = matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
    );
    code && std::error::Error::source(status).is_some()
}

/// Whether a write that ended so may have taken place: unless it was refused for want of a leader or
/// of a cluster, a server may have proposed it.
fn may_have_happened(status: &Status) -> bool {
    let text = status.message();
    text != "etcdserver: no leader" && !text.ends_with("to found the cluster")
}

/// Clients for each service, with no limit on the size of an answer: the server has its own.
pub(crate) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

pub(crate) fn watch(channel: Channel) -> WatchClient<Channel> {
    WatchClient::new(channel).max_decoding_message_size(usize::MAX)
}

pub(crate) fn lease(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel).max_decoding_message_size(usize::MAX)
}

pub(crate) fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(usize::MAX)
}

pub(crate) fn maintenance(channel: Channel) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// `host:port` of an endpoint as people write it.
fn address(endpoint: &str) -> Result<String, Failure> {
    let bad = |why: &str| Failure::usage(format!("endpoint {endpoint:?}: {why}"));
    let text = endpoint.trim();
    let address = match text.split_once("://") {
        None => text,
        Some(("http", rest)) => rest.trim_end_matches('/'),
        Some(("https", _)) => return Err(bad("https is not supported yet; use http")),
        Some((scheme, _)) => return Err(bad(&format!("{scheme} is not supported; use http"))),
    };
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(bad("write host:port"));
    };
    if host.is_empty() || port.parse::<u16>().is_err() || address.contains(['/', '@', ' ']) {
        return Err(bad("write host:port"));
    }
    Ok(address.to_owned())
}

/// The last cause of an error: `Connection refused` rather than `transport error`.
fn innermost(err: &dyn std::error::Error) -> String {
    let mut inner = err;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_or_http_urls() {
        for (text, want) in [
            ("127.0.0.1:2379", "127.0.0.1:2379"),
            ("http://localhost:1/", "localhost:1"),
            (" [::1]:2379 ", "[::1]:2379"),
        ] {
            assert_eq!(address(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_its_reason() {
        for (text, want) in [
            ("localhost", "write host:port"),
            ("", "write host:port"),
            (":2379", "write host:port"),
            ("a:b", "write host:port"),
            ("https://a:1", "https is not supported yet"),
            ("unix:///run/s", "unix is not supported"),
        ] {
            let err = address(text).unwrap_err();
            assert!(err.what().contains(want), "{text}: {err:?}");
        }
    }

    #[test]
    fn a_write_that_was_refused_for_want_of_a_cluster_has_not_happened() {
        for (text, want) in [
            ("etcdserver: no leader", false),
            ("waiting for members n2, n3 to found the cluster", false),
            ("etcdserver: request timed out", true),
        ] {
            assert_eq!(
                may_have_happened(&Status::unavailable(text)),
                want,
                "{text}"
            );
        }
    }
}
