//! Elections: one of many leads, the others wait, and everybody can see who it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::queue::{Holding, Queue, held};
use crate::cache::{Cache, Changes};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::lease::Lease;
use crate::types::{IntoBytes, KeyRange, KeyValue, Revision};

/// A lease of a candidate who did not choose: how long nobody leads after a leader has died.
const TTL: Duration = Duration::from_secs(15);

/// An election by its name; settings, then [`Election::campaign`] or [`Election::run`].
#[derive(Debug, Clone)]
pub struct Election {
    queue: Queue,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// The leader's key.
    pub key: Bytes,
    /// What the leader has proclaimed.
    pub value: Bytes,
    /// The leader's fence: see [`Leadership::fence`].
    pub fence: Revision,
}

/// Whether somebody leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaderState {
    /// Somebody does.
    Led(Leader),
    /// Nobody does.
    Vacant,
}

impl From<&KeyValue> for Leader {
    fn from(kv: &KeyValue) -> Self {
        Self {
            key: kv.key.clone(),
            value: kv.value.clone(),
            fence: kv.create_revision,
        }
    }
}

impl Election {
    pub(crate) fn new(client: Client, name: Bytes) -> Self {
        Self {
            queue: Queue::new(client, "campaign", name, TTL),
        }
    }

    /// How long nobody leads after a leader has died. Default: 15 s.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.queue.ttl = ttl;
        self
    }

    /// Leads with this lease rather than with one of its own.
    #[must_use]
    pub fn lease(mut self, lease: &Lease) -> Self {
        self.queue.lease = Some(lease.clone());
        self
    }

    /// Waits until elected; `value` is what others see.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`]: the lease ended, or somebody deleted the key, while it waited. Else as
    /// any call.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the candidate withdraws.
    pub async fn campaign(&self, value: impl IntoBytes) -> Result<Leadership, Error> {
        let holding = self.queue.acquire(value.into_bytes()).await?;
        Ok(Leadership { holding })
    }

    /// Leads again and again, until `lead` ends while it still leads; what it returned.
    ///
    /// `lead` is called each time that this candidate is elected. When leadership is lost its
    /// [`Leadership::token`] is cancelled, and it should end soon: it is waited for, and only then
    /// the next campaign begins. So `lead` never runs twice at a time.
    ///
    /// # Errors
    ///
    /// As [`Election::campaign`], except for losses, after which there is another campaign.
    ///
    /// # Cancel safety
    ///
    /// Dropped, `lead` is dropped where it stands and leadership is resigned in the background.
    pub async fn run<T, F>(
        &self,
        value: impl IntoBytes,
        mut lead: impl FnMut(Arc<Leadership>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = T>,
    {
        let value = value.into_bytes();
        loop {
            let leadership = match self.campaign(&value).await {
                Ok(leadership) => Arc::new(leadership),
                Err(error) if *error.kind() == ErrorKind::Lost => continue,
                Err(error) => return Err(error),
            };
            let result = lead(leadership.clone()).await;
            if !leadership.is_held() {
                continue;
            }
            if let Some(leadership) = Arc::into_inner(leadership) {
                leadership.resign().await?;
            }
            return Ok(result);
        }
    }

    /// Who leads, as of now; none if nobody does.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        let contenders = self.queue.contenders().await?;
        Ok(contenders.first().map(Leader::from))
    }

    /// Follows who leads.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn observe(&self) -> Result<LeaderChanges, Error> {
        let range = KeyRange::prefix(&self.queue.prefix);
        let cache = self.queue.client.cache(range).await?;
        Ok(LeaderChanges {
            changes: cache.subscribe(),
            cache,
            told: None,
        })
    }
}

/// Who leads, and who next. A slow observer is told the newest only.
#[derive(Debug)]
pub struct LeaderChanges {
    cache: Cache,
    changes: Changes,
    /// What was told last; none before the first.
    told: Option<LeaderState>,
}

impl LeaderChanges {
    /// Who leads now, as far as is known here.
    pub fn current(&self) -> LeaderState {
        let snapshot = self.cache.snapshot();
        let first = snapshot.iter().min_by_key(|kv| kv.create_revision);
        first.map_or(LeaderState::Vacant, |kv| LeaderState::Led((&**kv).into()))
    }

    /// Who leads when that, or the leader's value, has changed; at first who leads now. None once
    /// the client is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Option<LeaderState> {
        loop {
            let now = self.current();
            if self.told.as_ref() != Some(&now) {
                self.told = Some(now.clone());
                return Some(now);
            }
            self.changes.next().await?;
        }
    }
}

/// Leadership that is held. Dropped, it is resigned in the background.
#[derive(Debug)]
#[must_use = "dropped, leadership is resigned"]
pub struct Leadership {
    holding: Holding,
}

impl Leadership {
    held!();

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
        self.holding.write("proclaim", value.into_bytes()).await
    }

    /// Lets the next one lead.
    ///
    /// # Errors
    ///
    /// As any call; then it is resigned in the background.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, it is resigned in the background.
    pub async fn resign(self) -> Result<(), Error> {
        self.holding.release().await
    }
}
