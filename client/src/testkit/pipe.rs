//! Connections: pipes in memory, HTTP/2 and gRPC on them as on any other.

use std::future::{Ready, ready};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::front::Front;
use super::world::Shared;

/// What a pipe holds of what was not read yet, in bytes in each direction.
const PIPE_BYTES: usize = 64 * 1024;

/// What the name of a member's host begins with; then comes its number.
const HOST: &str = "member-";

/// Where the client finds the member with this number.
pub(super) fn endpoint(member: usize) -> String {
    format!("http://{HOST}{member}:2379")
}

/// Makes connections to a server that is in this process.
#[derive(Clone)]
pub(crate) struct Pipes(pub(super) Arc<Shared>);

impl std::fmt::Debug for Pipes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipes")
    }
}

impl Service<Uri> for Pipes {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        ready(self.connect(&uri).map(TokioIo::new))
    }
}

impl Pipes {
    fn connect(&self, uri: &Uri) -> io::Result<DuplexStream> {
        let number = uri.host().and_then(|host| host.strip_prefix(HOST));
        let number = number.and_then(|number| number.parse::<usize>().ok());
        let world = self.0.world();
        let Some((number, member)) = number
            .and_then(|number| Some((number, world.members.get(number)?)))
            .filter(|(_, member)| !member.is_stopped)
        else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let cut = member.cut.child_token();
        let front = Front::new(self.0.clone(), number, cut.clone());
        let is_paused = member.is_paused.subscribe();
        self.0.runtime.spawn(serve(far, front, is_paused, cut));
        Ok(near)
    }
}

/// Serves one connection until its end, or until it is cut.
async fn serve(
    far: DuplexStream,
    front: Front,
    mut is_paused: watch::Receiver<bool>,
    cut: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(None);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(far), front));
    loop {
        tokio::select! {
            biased;
            () = cut.cancelled() => return,
            _ = is_paused.wait_for(|paused| *paused) => {}
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
        }
        // A process that is stopped keeps its connections, and does nothing.
        tokio::select! {
            biased;
            () = cut.cancelled() => return,
            _ = is_paused.wait_for(|paused| !*paused) => {}
        }
    }
}
