//! How a connection comes about: TCP, and TLS over it for `https`, all within one time.
//!
//! tonic would do both, but reads certificates once, and mistakes a connection that took too long
//! for a request that may have been sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsConnector, rustls};
use tower::Service;

use super::line::{Line, Made};
use super::pings::{Complaints, Pings};
use crate::options::Config;
use crate::tls::{HTTP2, Trust};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections to one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    trust: Option<Arc<Trust>>,
    timeout: Duration,
    pings: Arc<Pings>,
    /// How often the connections that this one makes are pinged.
    pinged: Duration,
    line: Arc<Line>,
    /// To a server in this process, instead of the network.
    #[cfg(feature = "testkit")]
    pipes: Option<crate::testkit::Pipes>,
}

/// No TLS connection came about: who was there could not be trusted, or did not trust us.
#[derive(Debug, thiserror::Error)]
#[error("TLS: {0}")]
pub(crate) struct NotSecured(String);

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Box<dyn Socket>,
    is_secured: bool,
    /// Whether HTTP/2 has begun: see [`Connection::is_write_vectored`].
    was_flushed: bool,
    /// A write that has failed, while it is not known why.
    failed: Option<std::io::Error>,
    complaints: Complaints,
    _made: Made,
}

/// TCP, with or without TLS; in tests also a pipe.
trait Socket: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin> Socket for S {}

impl Connector {
    pub(super) fn new(config: &Config, pings: Arc<Pings>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // What was sent and not acknowledged for so long: the way is gone. Pings alone do not notice
        // while a full buffer waits to be sent.
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(config.keep_alive_interval + config.keep_alive_timeout));
        Self {
            tcp,
            trust: config.trust.clone(),
            timeout: config.connect_timeout,
            pinged: pings.interval(),
            pings,
            line: Arc::default(),
            #[cfg(feature = "testkit")]
            pipes: config.pipes.clone(),
        }
    }

    /// One for another channel, whose connections are pinged every `pinged`.
    pub(super) fn another(&self, pinged: Duration, line: Arc<Line>) -> Self {
        Self {
            pinged,
            line,
            ..self.clone()
        }
    }

    async fn connect(mut self, uri: Uri) -> Result<Box<dyn Socket>, BoxError> {
        #[cfg(feature = "testkit")]
        if let Some(mut pipes) = self.pipes {
            return Ok(Box::new(pipes.call(uri).await?.into_inner()));
        }
        poll_fn(|context| self.tcp.poll_ready(context)).await?;
        let tcp = self.tcp.call(uri.clone()).await?.into_inner();
        if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Ok(Box::new(tcp));
        }
        let trust = self
            .trust
            .ok_or_else(|| NotSecured("no settings were given".into()))?;
        let name = trust.server_name(&uri).map_err(NotSecured)?;
        let config = tokio::task::spawn_blocking(move || trust.config()).await?;
        let failed = |why: std::io::Error| NotSecured(why.to_string());
        let tls = TlsConnector::from(config).connect(name, tcp).await;
        let tls = tls.map_err(failed)?;
        if tls.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(NotSecured("the server does not speak HTTP/2".into()).into());
        }
        Ok(Box::new(tls))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let timeout = self.timeout;
        let complaints = Complaints::of(self.pings.clone(), self.pinged);
        let line = self.line.clone();
        let is_secured = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let connected = self.clone().connect(uri);
        Box::pin(async move {
            match tokio::time::timeout(timeout, connected).await {
                Ok(socket) => Ok(TokioIo::new(Connection {
                    socket: socket?,
                    is_secured,
                    was_flushed: false,
                    failed: None,
                    complaints,
                    _made: line.made(),
                })),
                Err(_) => Err(format!("no connection within {timeout:?}").into()),
            }
        })
    }
}

impl Connection {
    /// What a write came to. A server that refuses our certificate says so and closes, and our next
    /// write may fail before we have read what it said: so that is read first.
    fn explained<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<std::io::Result<T>>,
    ) -> Poll<std::io::Result<T>> {
        match written {
            Poll::Ready(Err(failed)) if self.is_secured => self.why(context, failed).map(Err),
            written => written,
        }
    }

    fn why(&mut self, context: &mut Context<'_>, failed: std::io::Error) -> Poll<std::io::Error> {
        let mut scratch = [0; 64];
        let read = Pin::new(&mut self.socket).poll_read(context, &mut ReadBuf::new(&mut scratch));
        match read {
            // A socket that cannot be written to can soon be read, to its end.
            Poll::Pending => {
                self.failed = Some(failed);
                Poll::Pending
            }
            Poll::Ready(Err(said)) if is_tls(&said) => Poll::Ready(said),
            Poll::Ready(_) => Poll::Ready(failed),
        }
    }

    /// The write that failed before, if one did.
    fn failed(&mut self, context: &mut Context<'_>) -> Option<Poll<std::io::Error>> {
        let failed = self.failed.take()?;
        Some(self.why(context, failed))
    }
}

fn is_tls(error: &std::io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let old = buffer.filled().len();
        let this = self.get_mut();
        let read = Pin::new(&mut this.socket).poll_read(context, buffer);
        this.complaints.look_at(&buffer.filled()[old..]);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        if let Some(failed) = this.failed(context) {
            return failed.map(Err);
        }
        let written = Pin::new(&mut this.socket).poll_write(context, bytes);
        this.explained(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        if let Some(failed) = this.failed(context) {
            return failed.map(Err);
        }
        let written = Pin::new(&mut this.socket).poll_write_vectored(context, slices);
        this.explained(context, written)
    }

    /// Yes, if the socket's are; but not when h2 asks for the first time. That is when it decides from
    /// which size on it writes a payload from where it lies, in a system call of its own: 256 bytes, or
    /// 1024 where writes are not vectored. Small messages that wait together are better copied together.
    /// Later it asks with each write, and larger payloads go with what is before them.
    fn is_write_vectored(&self) -> bool {
        self.was_flushed && self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if let Some(failed) = this.failed(context) {
            return failed.map(Err);
        }
        this.was_flushed = true;
        let written = Pin::new(&mut this.socket).poll_flush(context);
        this.explained(context, written)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Result};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use h2::client::{ResponseFuture, SendRequest, handshake};
    use http::Request;
    use tokio::io::DuplexStream;

    use super::*;

    /// Counts what would be system calls.
    #[derive(Debug)]
    struct Counted {
        socket: DuplexStream,
        writes: Arc<AtomicUsize>,
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            Pin::new(&mut self.socket).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.socket).poll_write(context, bytes)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.socket).poll_write_vectored(context, slices)
        }

        fn is_write_vectored(&self) -> bool {
            self.socket.is_write_vectored()
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.socket).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.socket).poll_shutdown(context)
        }
    }

    /// Its answer; a request whose answer nobody waits for is taken back.
    fn post(calls: &mut SendRequest<Bytes>, bytes: usize) -> ResponseFuture {
        let request = Request::post("http://a/").body(()).unwrap();
        let (answer, mut body) = calls.send_request(request, false).unwrap();
        body.send_data(vec![7; bytes].into(), true).unwrap();
        answer
    }

    #[tokio::test]
    async fn small_messages_are_written_together_and_large_ones_at_once() {
        let (socket, _server) = tokio::io::duplex(1 << 20);
        let writes = Arc::new(AtomicUsize::new(0));
        let count = || writes.swap(0, Ordering::Relaxed);
        let pings = Pings::every(Duration::from_secs(10));
        let connection = Connection {
            socket: Box::new(Counted {
                socket,
                writes: writes.clone(),
            }),
            is_secured: false,
            was_flushed: false,
            failed: None,
            complaints: Complaints::of(pings.clone(), pings.interval()),
            _made: Arc::<Line>::default().made(),
        };
        let (mut calls, mut connection) = handshake(connection).await.unwrap();
        assert!(futures::poll!(&mut connection).is_pending());
        count();
        let mut answers: Vec<_> = (0..20).map(|_| post(&mut calls, 500)).collect();
        assert!(futures::poll!(&mut connection).is_pending());
        assert_eq!(count(), 1, "20 messages of 500 bytes fit into one write");
        answers.push(post(&mut calls, 10_000));
        assert!(futures::poll!(&mut connection).is_pending());
        assert_eq!(count(), 1, "a head and its payload go together");
    }
}
