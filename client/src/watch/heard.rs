//! As of when all that a stream of watches had to tell has arrived.
//!
//! A quiet stream and a dead one look alike. So, while anybody wants to know, the member is asked
//! every second how far it is, over the connection that the stream is on. (The stream's own request
//! for progress will not do: servers leave it unanswered while a watch begins after the store's
//! revision, as each does that is resumed where nothing happens.) What counts is when it was asked,
//! because nobody knows how long the answer took.

use std::sync::Arc;
use std::time::Duration;

use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::sync::watch;

use crate::call::Call;
use crate::clock::Stamp;
use crate::transport::{Endpoint, Transport};
use crate::types::revision_of;

/// How often a member is asked. Cheap (one small call for all watches of a client), and often enough
/// for whoever accepts what is a few seconds old.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(1);

/// What a client has heard on the stream of its watches.
#[derive(Debug)]
pub(crate) struct Heard {
    /// When the last question was asked that was answered.
    as_of: watch::Sender<Option<Stamp>>,
}

/// As long as there is one, members are asked.
#[derive(Debug)]
pub(crate) struct Listener(watch::Receiver<Option<Stamp>>);

impl Default for Heard {
    fn default() -> Self {
        let as_of = watch::Sender::new(None);
        Self { as_of }
    }
}

impl Heard {
    /// Wants to know.
    pub(crate) fn listen(&self) -> Listener {
        Listener(self.as_of.subscribe())
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.as_of.receiver_count() > 0
    }

    /// A question of `asked` was answered.
    pub(super) fn answered(&self, asked: Stamp) {
        self.as_of.send_if_modified(|as_of| {
            let is_new = *as_of < Some(asked);
            *as_of = (*as_of).max(Some(asked));
            is_new
        });
    }
}

impl Listener {
    /// When the next question was asked that is answered, or the last of several. What a watch had to
    /// tell by then has been told before this returns.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(crate) async fn heard(&mut self) -> Option<Stamp> {
        // The client, which asks, outlives its caches.
        self.0.changed().await.ok()?;
        *self.0.borrow_and_update()
    }
}

/// Asks the member at `endpoint` how far it is; when that was, if it has applied all that this client
/// knew of by then.
///
/// # Cancel safety
///
/// Safe.
pub(super) async fn ask(transport: Arc<Transport>, endpoint: Arc<Endpoint>) -> Option<Stamp> {
    let (asked, seen) = (Stamp::now(), transport.seen());
    let call = Call::reads("status").local().beside_streams();
    let request = pb::StatusRequest::default();
    let answer = transport.ask(&endpoint, call, request, |channel, request| async move {
        MaintenanceClient::new(channel).status(request).await
    });
    let revision = revision_of(answer.await.ok()?.header.as_ref());
    // One that is behind has not told what had happened.
    (revision >= seen).then_some(asked)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_heard_never_goes_back() {
        let heard = Heard::default();
        let mut listener = heard.listen();
        let (first, second) = (Stamp::now(), Stamp::now());
        heard.answered(second);
        heard.answered(first);
        assert_eq!(listener.heard().await, Some(second));
        assert_eq!(listener.heard().now_or_never(), None, "it is no news");
    }

    #[test]
    fn nobody_is_asked_for_nobody() {
        let heard = Heard::default();
        assert!(!heard.is_wanted());
        let listener = heard.listen();
        assert!(heard.is_wanted());
        drop(listener);
        assert!(!heard.is_wanted());
    }
}
