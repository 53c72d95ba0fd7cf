//! Connects to another member at whichever of its peer URLs works.
//!
//! The URL that worked last is tried first. What does not work is logged when that changes, not at
//! every attempt: there are many in a second.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

/// Makes connections to one member. Clones share what they know.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    member: u64,
    places: Arc<[Place]>,
    /// How long one URL may take.
    timeout: Duration,
    /// The place that worked last.
    first: Arc<AtomicUsize>,
    /// Whether it was logged that no place works.
    is_given_up: Arc<AtomicBool>,
}

/// What a peer URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
}

impl Dial {
    /// Of a member at `urls`, one at least; all of them together may take `timeout`.
    ///
    /// # Errors
    ///
    /// The URL that is none, and why.
    pub(super) fn new(
        member: u64,
        urls: &[String],
        timeout: Duration,
    ) -> Result<Self, (String, String)> {
        assert!(!urls.is_empty(), "nobody is dialled nowhere");
        let place = |url: &String| place(url).map_err(|why| (url.clone(), why));
        let places: Arc<[Place]> = urls.iter().map(place).collect::<Result<_, _>>()?;
        let shares = u32::try_from(places.len()).unwrap_or(u32::MAX);
        Ok(Self {
            member,
            timeout: timeout / shares,
            places,
            first: Arc::default(),
            is_given_up: Arc::default(),
        })
    }

    async fn connect(self) -> io::Result<TcpStream> {
        let first = self.first.load(Ordering::Relaxed);
        let mut failures: Vec<(&Place, io::Error)> = Vec::new();
        for turn in 0..self.places.len() {
            let at = (first + turn) % self.places.len();
            let place = &self.places[at];
            match place.connect(self.timeout).await {
                Ok(stream) => {
                    self.connected(at, &failures);
                    return Ok(stream);
                }
                Err(error) => failures.push((place, error)),
            }
        }
        if !self.is_given_up.swap(true, Ordering::Relaxed) {
            self.report(&failures, "a member is not reached; it is tried again");
        }
        Err(least_certain(failures))
    }

    fn connected(&self, at: usize, failures: &[(&Place, io::Error)]) {
        self.is_given_up.store(false, Ordering::Relaxed);
        if self.first.swap(at, Ordering::Relaxed) != at {
            self.report(failures, "a peer URL does not work; another one does");
        }
    }

    fn report(&self, failures: &[(&Place, io::Error)], what: &str) {
        for (Place { host, port }, error) in failures {
            tracing::warn!(member = format!("{:x}", self.member), host, port, %error, "{what}");
        }
    }
}

/// The failure that says least about what was sent: a refusal says that nothing was.
fn least_certain(failures: Vec<(&Place, io::Error)>) -> io::Error {
    let mut errors: Vec<_> = failures.into_iter().map(|(_, error)| error).collect();
    let other = |error: &io::Error| error.kind() != io::ErrorKind::ConnectionRefused;
    let at = errors.iter().position(other).unwrap_or(0);
    errors.swap_remove(at)
}

impl Place {
    async fn connect(&self, timeout: Duration) -> io::Result<TcpStream> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(timeout, connect).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn place(url: &str) -> Result<Place, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
    let host = uri.host().ok_or("it has no host")?;
    let port = uri.port_u16().ok_or("it has no port")?;
    // An IPv6 address stands in brackets in a URL, and nowhere else.
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    Ok(Place {
        host: bare.unwrap_or(host).to_owned(),
        port,
    })
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.connect().await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A URL where nobody listens.
    async fn dead() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url(&listener)
    }

    fn url(listener: &TcpListener) -> String {
        format!("http://{}", listener.local_addr().unwrap())
    }

    #[tokio::test]
    async fn every_url_of_a_member_is_tried_and_the_one_that_works_is_kept() {
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let urls = [dead().await, dead().await, url(&good)];
        let dial = Dial::new(1, &urls, TIMEOUT).unwrap();
        dial.clone().connect().await.expect("the third works");
        assert_eq!(dial.first.load(Ordering::Relaxed), 2, "where it begins now");

        drop(good);
        let refused = dial.clone().connect().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        let (_, port) = urls[0].rsplit_once(':').unwrap();
        let back = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).await;
        let _back = back.expect("it was free a moment ago");
        dial.connect().await.expect("the first works now");
    }

    #[test]
    fn a_peer_url_has_a_host_and_a_port() {
        let place = |url| place(url).map(|place| (place.host, place.port));
        assert_eq!(place("http://node-1:2380"), Ok(("node-1".to_owned(), 2380)));
        assert_eq!(place("http://[::1]:2380"), Ok(("::1".to_owned(), 2380)));
        assert!(place("http://node-1").is_err());
        assert!(place("2380").is_err());
    }
}
