//! A double barrier: so many begin together and end together.
//!
//! The keys are where etcd's `DoubleBarrier` puts its own: `<name>/waiters/…` for everybody who is
//! in, and `<name>/ready`, which is written by the last who comes. On the way out the first who came
//! is the last to go: all others delete their keys and wait for his, and he waits for theirs. So a
//! participant who dies keeps nobody waiting for longer than his lease.

use bytes::Bytes;

use super::hold::{Holding, fencing, held};
use super::line::{Line, below, identity_setting, line_settings};
use super::place::{Place, deleted_after, is_history_gone, lost, or_lost, patiently};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::op::{Op, SortBy, SortOrder};
use crate::txn::{Compare, OpResult};
use crate::types::{KeyRange, Revision};
use crate::watch::Overflow;

/// A double barrier by its name and the number of participants; settings, then
/// [`DoubleBarrier::enter`].
#[derive(Debug, Clone)]
pub struct DoubleBarrier {
    line: Line,
    ready: Bytes,
    participants: u32,
}

/// Being between the two barriers. Dropped, it is left in the background, without waiting for the
/// others.
#[doc = ""]
#[doc = fencing!()]
#[derive(Debug)]
#[must_use = "dropped, it is left"]
pub struct DoubleBarrierGuard {
    holding: Holding,
    barrier: DoubleBarrier,
    /// When all were there: who has come later belongs to the next round.
    round: Revision,
}

impl DoubleBarrier {
    pub(crate) fn new(client: Client, name: &Bytes, participants: u32) -> Self {
        let line = Line::new(client, "double barrier", name);
        let prefix = below(name, "waiters/");
        Self {
            line: Line {
                rivals: KeyRange::prefix(&prefix),
                prefix,
                ..line
            },
            ready: below(name, "ready"),
            participants,
        }
    }

    line_settings!(line);
    identity_setting!(line);

    /// Waits until all participants have entered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FailedPrecondition`]: all participants have entered already, and not all of them
    /// have left. [`ErrorKind::Lost`]: the lease ended, or somebody deleted the key, while it
    /// waited. Else as any call; but once it waits, what passes (no connection, no leader) does not
    /// end it for as long as its lease is held.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, this participant has not come.
    pub async fn enter(&self) -> Result<DoubleBarrierGuard, Error> {
        let call = self.line.call;
        let (place, position) = self.arrive().await?;
        let last = (self.participants as usize).checked_sub(1);
        let (mut own, client) = (None, &self.line.client);
        let round = match position {
            Some(at) if Some(at) == last => {
                let ready = patiently(client, || self.all_are_there(&place));
                place.unless_lost(call, &mut own, ready).await?
            }
            Some(_) => {
                let ready = patiently(client, || self.ready_after(place.revision));
                place.unless_lost(call, &mut own, ready).await?
            }
            None => {
                place.leave().await?;
                let message = format!("{} have entered and not all have left", self.participants);
                return Err(Error::new(ErrorKind::FailedPrecondition, call, message));
            }
        };
        let ask = || {
            let txn = client.txn().when(place.is_there());
            txn.then(Op::get(&self.ready)).into_future()
        };
        let still = patiently(client, ask);
        let still = place.unless_lost(call, &mut own, still).await?;
        if !still.succeeded {
            return Err(lost(call, place.lost_reason()));
        }
        Ok(DoubleBarrierGuard {
            holding: self.line.had(place, own)?,
            barrier: self.clone(),
            round,
        })
    }

    /// Says that it has come, and looks how many came before; none: too many, or those of the round
    /// before have not all left.
    async fn arrive(&self) -> Result<(Place, Option<usize>), Error> {
        let mut place = self.line.place().await?;
        let in_order = Op::get(self.line.rivals.clone())
            .sort(SortBy::CreateRevision, SortOrder::Ascending)
            .limit(self.participants)
            .keys_only();
        let put = Op::put(&place.key, &self.line.identity).lease(&place.lease);
        // Nobody else has this name: an attempt that finds it taken finds the one before.
        let txn = self.line.client.txn().when(Compare::absent(&place.key));
        let arrived = txn
            .then(put)
            .then(in_order.clone())
            .then(Op::get(&self.ready))
            .or_else(in_order)
            .or_else(Op::get(&self.ready))
            .or_else(Op::get(&place.key))
            .repeatable()
            .await
            .map_err(or_lost(self.line.call))?;
        place.cluster = arrived.cluster;
        place.revision = arrived.revision;
        let read = arrived.results.into_iter().filter_map(OpResult::into_range);
        let mut read = read.map(|page| page.kvs);
        let (there, ready) = (
            read.next(),
            read.next().and_then(|kvs| kvs.into_iter().next()),
        );
        let there = there.unwrap_or_default();
        if let Some(earlier) = read.next().and_then(|kvs| kvs.into_iter().next()) {
            place.revision = earlier.create_revision;
        }
        // A round goes on while somebody is left of it. Nobody is if all have died before they left.
        let round = ready.map_or(Revision::UNKNOWN, |ready| ready.mod_revision);
        let is_late = round < place.revision && there.iter().any(|kv| kv.create_revision < round);
        let position = there.iter().position(|kv| kv.key == place.key);
        Ok((place, position.filter(|_| !is_late)))
    }

    /// Lets everybody go on.
    async fn all_are_there(&self, place: &Place) -> Result<Revision, Error> {
        let txn = self.line.client.txn().when(place.is_there());
        let told = txn.then(Op::put(&self.ready, "")).repeatable().await?;
        if told.succeeded {
            Ok(told.revision)
        } else {
            Err(lost(self.line.call, place.lost_reason()))
        }
    }

    /// Waits until the last has come after `revision`; when that was.
    async fn ready_after(&self, revision: Revision) -> Result<Revision, Error> {
        let client = &self.line.client;
        let mut seen = revision;
        loop {
            let watch = client.watch(&self.ready).after(seen).only_puts();
            let watch = watch.without_prev().queue(0, Overflow::LatestOnly);
            let event = match watch.await {
                Ok(mut watch) => watch.next().await,
                Err(error) => Some(Err(error)),
            };
            match event {
                Some(Ok(batch)) => return Ok(batch.revision),
                Some(Err(error)) if is_history_gone(&error) => {
                    let page = client.range(KeyRange::key(&self.ready)).await?;
                    seen = page.revision;
                    if let Some(kv) = page.kvs.first().filter(|kv| kv.mod_revision > revision) {
                        return Ok(kv.mod_revision);
                    }
                }
                Some(Err(error)) => return Err(error),
                None => return Err(crate::transport::closed(self.line.call)),
            }
        }
    }
}

impl DoubleBarrierGuard {
    held!(holding.tenure);

    /// Waits until all who have entered together want to leave, or are gone.
    ///
    /// # Errors
    ///
    /// As any call; it is left all the same.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, it is left in the background, without waiting for the others.
    pub async fn leave(self) -> Result<(), Error> {
        let own = self.key().clone();
        let Self {
            holding,
            barrier,
            round,
        } = self;
        let client = &barrier.line.client;
        let mut holding = Some(holding);
        loop {
            let page = client
                .range(barrier.line.rivals.clone())
                .created(Revision::UNKNOWN, round)
                .sort(SortBy::CreateRevision, SortOrder::Ascending)
                .keys_only()
                .await?;
            let (Some(first), Some(last)) = (page.kvs.first(), page.kvs.last()) else {
                return Ok(());
            };
            let awaited = if first.key != own {
                if let Some(holding) = holding.take() {
                    holding.release().await?;
                }
                first
            } else if last.key != own {
                last
            } else {
                return match holding.take() {
                    Some(holding) => {
                        let over: Op = Op::delete(&barrier.ready).into();
                        holding.release_with([over]).await.map(drop)
                    }
                    None => Ok(()),
                };
            };
            deleted_after(client, &awaited.key, page.revision).await?;
        }
    }
}
