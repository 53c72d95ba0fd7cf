//! Elections: one of many leads, the others wait, and everybody can see who it is.

use std::time::Duration;

use bytes::Bytes;

use super::contender::Contender;
use super::hold::{Holding, fencing, held};
use super::leading::STOP_BUDGET;
use super::line::{Line, line_settings};
use crate::cache::{Cache, Changes};
use crate::client::Client;
use crate::error::Error;
use crate::op::{SortBy, SortOrder};
use crate::types::{IntoBytes, KeyRange, KeyValue, Revision};

/// An election by its name; settings, then [`Election::campaign`] or [`Election::run`].
#[derive(Debug, Clone)]
pub struct Election {
    pub(super) line: Line,
    pub(super) stop_budget: Duration,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// The leader's key.
    pub key: Bytes,
    /// What the leader has proclaimed.
    pub value: Bytes,
    /// The revision of the leader's fence: see [`Leadership::fence`].
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
    pub(crate) fn new(client: Client, name: &Bytes) -> Self {
        Self {
            line: Line::new(client, "campaign", name),
            stop_budget: STOP_BUDGET,
        }
    }

    line_settings!(line);

    /// How long work may go on after leadership was lost, before it is dropped where it stands: see
    /// [`Election::run`]. Default: 10 s.
    #[must_use]
    pub fn stop_budget(mut self, budget: Duration) -> Self {
        self.stop_budget = budget;
        self
    }

    /// Waits until elected; `value` is what others see.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost): the lease ended, or somebody deleted the key,
    /// while it waited. Else as any call; but once it waits, what passes (no connection, no leader)
    /// does not end it for as long as its lease is held.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, the candidate withdraws.
    pub async fn campaign(&self, value: impl IntoBytes) -> Result<Leadership, Error> {
        let holding = self.line.acquire(value.into_bytes()).await?;
        Ok(Leadership { holding })
    }

    /// Waits until elected, for `time` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout): not by then, and the candidate has
    /// withdrawn. Else as [`Election::campaign`].
    ///
    /// # Cancel safety
    ///
    /// As [`Election::campaign`].
    pub async fn campaign_within(
        &self,
        time: Duration,
        value: impl IntoBytes,
    ) -> Result<Leadership, Error> {
        let holding = self.line.acquire_within(time, value.into_bytes()).await?;
        Ok(Leadership { holding })
    }

    /// Leads if nobody does.
    ///
    /// # Errors
    ///
    /// As [`Election::campaign`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn try_campaign(&self, value: impl IntoBytes) -> Result<Option<Leadership>, Error> {
        let holding = self.line.try_acquire(value.into_bytes()).await?;
        Ok(holding.map(|holding| Leadership { holding }))
    }

    /// Who leads, as of now; none if nobody does.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        let range = self.line.client.range(self.line.rivals.clone());
        let first = range
            .sort(SortBy::CreateRevision, SortOrder::Ascending)
            .limit(1);
        Ok(first.await?.kvs.first().map(Leader::from))
    }

    /// Who leads (first) and who waits, in order.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn contenders(&self) -> Result<Vec<Contender>, Error> {
        self.line.contenders().await
    }

    /// Follows who leads.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn observe(&self) -> Result<LeaderChanges, Error> {
        let range = KeyRange::prefix(&self.line.prefix);
        let cache = self.line.client.cache(range).await?;
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
#[doc = ""]
#[doc = fencing!()]
#[derive(Debug)]
#[must_use = "dropped, leadership is resigned"]
pub struct Leadership {
    pub(super) holding: Holding,
}

impl Leadership {
    held!(holding.tenure);

    /// Changes what others see.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost): it leads no more, and nothing was written. Else
    /// as any write.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not have been written.
    pub async fn proclaim(&self, value: impl IntoBytes) -> Result<Revision, Error> {
        let tenure = &self.holding.tenure;
        tenure.write("proclaim", value.into_bytes()).await
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
