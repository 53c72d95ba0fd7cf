//! Work that is done by the leader alone: begun when it is elected, cancelled and waited for when
//! it leads no more.

use std::time::Duration;

use bytes::Bytes;

use super::election::{Election, Leadership};
use super::hold::{Tenure, fencing, held};
use super::place::lost;
use crate::error::{Error, ErrorKind};
use crate::lease::LostReason;
use crate::types::{IntoBytes, Revision};

/// How long work may take to end when leadership is lost.
pub(super) const STOP_BUDGET: Duration = Duration::from_secs(10);

/// What work knows of the leadership that it is done under. Clones are of the same; they keep
/// nobody in office.
#[doc = ""]
#[doc = fencing!()]
#[derive(Debug, Clone)]
pub struct LeaderContext {
    tenure: Tenure,
}

/// How one time in office ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Led<T> {
    /// The work was done, under leadership to the end; it has been resigned.
    Done(T),
    /// Leadership was lost before the work was done.
    Lost {
        /// Why.
        reason: LostReason,
        /// What the work ended with when it was cancelled. None: it had not ended when its time to
        /// stop was up, and was dropped where it stood.
        work: Option<T>,
    },
}

impl LeaderContext {
    held!(tenure);

    /// Changes what others see.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`]: it leads no more, and nothing was written. Else as any write.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not have been written.
    pub async fn proclaim(&self, value: impl IntoBytes) -> Result<Revision, Error> {
        self.tenure.write("proclaim", value.into_bytes()).await
    }
}

impl Election {
    /// Leads again and again, until work ends while it still leads; what it ended with.
    ///
    /// `lead` is called each time that this candidate is elected. When leadership is lost,
    /// [`LeaderContext::token`] is cancelled, and the work should end soon. It is waited for, up to
    /// [`Election::stop_budget`]; then it is dropped where it stands, and a warning is logged. Only
    /// after that this candidate campaigns again: its work never runs twice at a time. What work
    /// ended with after a loss is dropped.
    ///
    /// Work that blocks its thread cannot be told of a loss, nor be dropped, and neither can tasks
    /// that it has spawned: these must watch the token themselves.
    ///
    /// What passes does not end it: while no server can be reached, the cluster has no leader, or a
    /// call is not answered in time, it campaigns again after the client's
    /// [pauses](crate::ClientBuilder::backoff), for ever.
    ///
    /// # Errors
    ///
    /// What another campaign cannot help: [`ErrorKind::PermissionDenied`],
    /// [`ErrorKind::InvalidArgument`], [`ErrorKind::Closed`] and all other kinds that are never
    /// [retryable](Error::is_retryable). [`ErrorKind::Lost`] only with a lease of the caller's that
    /// has ended: after other losses there is another campaign.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the work is dropped where it stands and then leadership is resigned in the
    /// background.
    pub async fn run<T, F>(
        &self,
        value: impl IntoBytes,
        mut lead: impl FnMut(LeaderContext) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = T>,
    {
        let value = value.into_bytes();
        let pauses = || self.line.client.transport().pauses();
        let mut left = pauses();
        loop {
            match self.run_once(&value, &mut lead).await {
                Ok(Led::Done(result)) => return Ok(result),
                Ok(Led::Lost { .. }) => left = pauses(),
                Err(error) if *error.kind() == ErrorKind::Lost => {}
                Err(error) if error.is_passing() => {
                    let pause = left.next().unwrap_or_default();
                    tracing::warn!(%error, ?pause, "a candidate could not campaign and tries again");
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
            // There is no use in another campaign with a lease that has ended.
            let lease = self.line.lease.as_ref();
            if let Some(reason) = lease.and_then(|lease| lease.standing().lost_reason()) {
                return Err(lost("campaign", reason));
            }
        }
    }

    /// Leads once, as [`Election::run`] does, and tells how that ended.
    ///
    /// # Errors
    ///
    /// As [`Election::campaign`].
    ///
    /// # Cancel safety
    ///
    /// As [`Election::run`].
    pub async fn run_once<T, F>(
        &self,
        value: impl IntoBytes,
        lead: impl FnOnce(LeaderContext) -> F,
    ) -> Result<Led<T>, Error>
    where
        F: Future<Output = T>,
    {
        let leadership = self.campaign(value).await?;
        let context = LeaderContext {
            tenure: leadership.holding.tenure.clone(),
        };
        // After `leadership`: dropped before it, so that nobody else leads while this goes on.
        let mut work = Box::pin(lead(context));
        let ended = tokio::select! {
            biased;
            reason = leadership.lost() => Err(reason),
            result = &mut work => Ok(result),
        };
        let lost = match ended {
            Ok(result) => match leadership.holding.tenure.lost_reason() {
                None => {
                    drop(work);
                    resign(leadership).await;
                    return Ok(Led::Done(result));
                }
                Some(reason) => Led::Lost {
                    reason,
                    work: Some(result),
                },
            },
            Err(reason) => {
                let stopped = tokio::time::timeout(self.stop_budget, &mut work).await;
                if stopped.is_err() {
                    let key = Bytes::clone(leadership.key());
                    tracing::warn!(?key, budget = ?self.stop_budget, "work under lost leadership did not end in time and is dropped");
                }
                Led::Lost {
                    reason,
                    work: stopped.ok(),
                }
            }
        };
        drop(work);
        resign(leadership).await;
        Ok(lost)
    }
}

/// Whether or not it is confirmed here: what fails goes on in the background.
async fn resign(leadership: Leadership) {
    if let Err(error) = leadership.resign().await {
        tracing::debug!(%error, "leadership is resigned in the background");
    }
}
