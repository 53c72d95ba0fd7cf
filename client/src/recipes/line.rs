//! A line of contenders for something that only so many may have at a time.
//!
//! A place in it is a key with a lease; the order is that of their creation. A contender's turn has
//! come when fewer than `width` of his rivals are before him. That stays so: nobody can come to be
//! before him later. Whoever waits watches the place before his own, his own, and his lease. Only
//! the first of those who wait for a line with a width above one watches all who are before him:
//! when his turn comes he says so, and the next one takes over.
//!
//! Invariants
//! - one transaction tells whether the place is still there and who is before it: whoever has lost
//!   his place is told so, and gets nothing;
//! - after the last of these the lease must still be held, by its own clock;
//! - who has a place keeps it while his lease is held: what fails for a passing reason, such as a
//!   cluster without a leader, is tried again until then.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::contender::Contender;
use super::hold::Holding;
use super::place::{Place, deleted_after, is_history_gone, lost, or_lost, patiently};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::lease::{Lease, LeaseStatus};
use crate::observe;
use crate::op::{Op, RangeOp, SortBy, SortOrder};
use crate::txn::{Compare, OpResult, TxnResult};
use crate::types::{KeyRange, KeyValue, Revision};
use crate::watch::{Overflow, Watch};

/// A lease of a contender who did not choose: how long others wait for one who has died.
const TTL: Duration = Duration::from_secs(15);

/// How much the first of those who wait lets pile up of the deletions before him; beyond that it
/// only matters that there were some.
const DELETIONS_BYTES: usize = 16 * 1024;

/// The settings of everybody who contends.
macro_rules! line_settings {
    ($($line:ident).+) => {
        /// How long others wait for somebody who has died with it. Default: 15 s.
        #[must_use]
        pub fn ttl(mut self, ttl: std::time::Duration) -> Self {
            self.$($line).+.ttl = ttl;
            self
        }

        /// Contends with this lease rather than with one of its own: all that goes with the lease
        /// is lost together. Clones of a lease contend with each other like anybody else.
        #[must_use]
        pub fn lease(mut self, lease: &$crate::Lease) -> Self {
            self.$($line).+.lease = Some(lease.clone());
            self
        }
    };
}
pub(super) use line_settings;

/// The same, and a name for people.
macro_rules! identity_setting {
    ($($line:ident).+) => {
        /// Who contends, for people who look: the value of the contender's key. Default: empty.
        #[must_use]
        pub fn identity(mut self, value: impl $crate::IntoBytes) -> Self {
            self.$($line).+.identity = value.into_bytes();
            self
        }
    };
}
pub(super) use identity_setting;

/// What somebody contends for, and with what.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) client: Client,
    /// For messages.
    pub(super) call: &'static str,
    /// A contender's key begins with it; ends with a slash.
    pub(super) prefix: Bytes,
    /// Whoever has one of these keys counts, if he came before.
    pub(super) rivals: KeyRange,
    /// So many can have it at a time.
    pub(super) width: u32,
    /// A key and what it must hold: what all contenders must be agreed on.
    pub(super) agreed: Option<(Bytes, Bytes)>,
    pub(super) ttl: Duration,
    pub(super) lease: Option<Lease>,
    pub(super) identity: Bytes,
}

/// Whose turn it is.
enum Turn {
    Mine,
    After(Before),
}

/// Who is before a place, as of `seen`.
struct Before {
    /// The last of them.
    nearest: Bytes,
    /// All of them, if every one of them has it: then the turn comes when any of them goes.
    holders: Vec<Bytes>,
    seen: Revision,
}

impl Line {
    /// One at a time has what is behind `name`.
    pub(super) fn new(client: Client, call: &'static str, name: &Bytes) -> Self {
        let prefix = below(name, "");
        Self {
            client,
            call,
            rivals: KeyRange::prefix(&prefix),
            prefix,
            width: 1,
            agreed: None,
            ttl: TTL,
            lease: None,
            identity: Bytes::new(),
        }
    }

    /// Waits for the turn.
    pub(super) async fn acquire(&self, value: Bytes) -> Result<Holding, Error> {
        let began = Instant::now();
        let (place, mut turn) = self.enter(&value).await?;
        if matches!(turn, Turn::Mine) {
            observe::recipe_waited(self.call, began.elapsed());
            return self.had(place, None);
        }
        let mut own = None;
        while let Turn::After(before) = turn {
            self.wait(&place, &mut own, &before).await?;
            let looked = patiently(&self.client, || self.look(&place));
            turn = place.unless_lost(self.call, &mut own, looked).await?;
        }
        if self.width > 1 {
            let told = patiently(&self.client, || self.step_up(&place, &value));
            place.unless_lost(self.call, &mut own, told).await?;
        }
        observe::recipe_waited(self.call, began.elapsed());
        self.had(place, own)
    }

    /// The same, for `time` at most.
    pub(super) async fn acquire_within(
        &self,
        time: Duration,
        value: Bytes,
    ) -> Result<Holding, Error> {
        let late = || Error::new(ErrorKind::Timeout, self.call, "its turn has not come");
        tokio::time::timeout(time, self.acquire(value))
            .await
            .map_err(|_| late())?
    }

    /// The turn, if it comes at once.
    pub(super) async fn try_acquire(&self, value: Bytes) -> Result<Option<Holding>, Error> {
        let (place, turn) = self.enter(&value).await?;
        match turn {
            Turn::Mine => self.had(place, None).map(Some),
            Turn::After(_) => {
                place.leave().await?;
                Ok(None)
            }
        }
    }

    /// Everybody who has a key behind the prefix, the first first.
    pub(super) async fn in_order(&self, all: KeyRange) -> Result<Vec<KeyValue>, Error> {
        let range = self.client.range(all);
        let page = range.sort(SortBy::CreateRevision, SortOrder::Ascending);
        Ok(page.await?.kvs)
    }

    pub(super) async fn contenders(&self) -> Result<Vec<Contender>, Error> {
        let kvs = self.in_order(KeyRange::prefix(&self.prefix)).await?;
        let width = self.width as usize;
        let contenders = kvs.into_iter().enumerate();
        let contenders = contenders.map(|(at, kv)| Contender::new(kv, at, at < width));
        Ok(contenders.collect())
    }

    /// Takes a place at the end, and looks who is before it.
    async fn enter(&self, value: &Bytes) -> Result<(Place, Turn), Error> {
        let mut place = self.place().await?;
        loop {
            // Nobody else has this name: an attempt that finds it taken finds the one before.
            let mut txn = self
                .client
                .txn()
                .when(Compare::absent(&place.key))
                .then(Op::put(&place.key, value).lease(&place.lease))
                .or_else(Op::get(&place.key));
            if let Some((key, value)) = &self.agreed {
                let is_agreed = Compare::value(key).eq(value);
                txn = txn.when(is_agreed).or_else(Op::get(key));
            }
            for read in self.reads(Revision::UNKNOWN) {
                txn = txn.then(read);
            }
            let entered = txn.repeatable().await.map_err(or_lost(self.call))?;
            place.cluster = entered.cluster;
            if entered.succeeded {
                place.revision = entered.revision;
                let turn = self.turn(&place, entered);
                return Ok((place, turn));
            }
            let mut found = entered.results.into_iter().filter_map(OpResult::into_range);
            let mut first = || found.next().and_then(|page| page.kvs.into_iter().next());
            if let Some(earlier) = first() {
                place.revision = earlier.create_revision;
                let turn = self.look(&place).await?;
                return Ok((place, turn));
            }
            self.agree(first()).await?;
        }
    }

    /// A place that nobody knows of yet.
    pub(super) async fn place(&self) -> Result<Place, Error> {
        let owns_lease = self.lease.is_none();
        let lease = match &self.lease {
            Some(lease) => lease.clone(),
            None => self.client.grant(self.ttl).await?,
        };
        Ok(Place::new(&self.client, &self.prefix, lease, owns_lease))
    }

    /// The contenders are not agreed: `current` is what was agreed before; none: it is proposed.
    async fn agree(&self, current: Option<KeyValue>) -> Result<(), Error> {
        let (key, value) = self.agreed.as_ref().expect("nothing else was compared");
        match current {
            Some(current) if current.value != *value => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let message = format!(
                    "{} holds {}, which others have agreed on, and not {}",
                    text(key),
                    text(&current.value),
                    text(value),
                );
                Err(Error::new(
                    ErrorKind::FailedPrecondition,
                    self.call,
                    message,
                ))
            }
            // Agreed in between.
            Some(_) => Ok(()),
            None => {
                let proposal = self.client.txn().when(Compare::absent(key));
                let proposal = proposal.then(Op::put(key, value)).repeatable();
                proposal.await.map(drop)
            }
        }
    }

    /// What tells who is before a place that was created at `revision`; unknown: just now.
    fn reads(&self, revision: Revision) -> impl Iterator<Item = RangeOp> + use<> {
        let is_new = revision == Revision::UNKNOWN;
        let last = Revision::new((revision.get() - 1).max(0));
        let earlier = Op::get(self.rivals.clone())
            .created(Revision::UNKNOWN, last)
            .keys_only();
        // The new one may be among them, and is the last then.
        let nearest = earlier
            .clone()
            .sort(SortBy::CreateRevision, SortOrder::Descending)
            .limit(if is_new { 2 } else { 1 });
        let first = earlier
            .sort(SortBy::CreateRevision, SortOrder::Ascending)
            .limit(self.width);
        std::iter::once(nearest).chain((self.width > 1).then_some(first))
    }

    /// What the reads have told.
    fn turn(&self, place: &Place, told: TxnResult) -> Turn {
        let seen = told.revision;
        let pages = told.results.into_iter().filter_map(OpResult::into_range);
        let mut pages = pages.map(|page| {
            let keys = page.kvs.into_iter().map(|kv| kv.key);
            keys.filter(|key| *key != place.key).collect::<Vec<_>>()
        });
        let nearest = pages.next().and_then(|keys| keys.into_iter().next());
        let mut holders = pages.next().unwrap_or_default();
        let Some(nearest) = nearest else {
            return Turn::Mine;
        };
        if self.width > 1 && holders.len() < self.width as usize {
            return Turn::Mine;
        }
        if !holders.contains(&nearest) {
            holders.clear();
        }
        Turn::After(Before {
            nearest,
            holders,
            seen,
        })
    }

    /// Whether the place is there, and who is before it.
    async fn look(&self, place: &Place) -> Result<Turn, Error> {
        let mut txn = self.client.txn().when(place.is_there());
        for read in self.reads(place.revision) {
            txn = txn.then(read);
        }
        let told = txn.await?;
        if told.succeeded {
            return Ok(self.turn(place, told));
        }
        Err(lost(self.call, place.lost_reason()))
    }

    /// Waits until it is worth looking again.
    async fn wait(
        &self,
        place: &Place,
        own: &mut Option<Watch>,
        before: &Before,
    ) -> Result<(), Error> {
        let moved = || async {
            if self.width == 1 {
                let gone = deleted_after(&self.client, &before.nearest, before.seen);
                return gone.await.map(drop);
            }
            match self.moved(before).await {
                // What it waited for may have happened before the history that is left.
                Err(error) if is_history_gone(&error) => Ok(()),
                moved => moved,
            }
        };
        let moved = patiently(&self.client, moved);
        place.unless_lost(self.call, own, moved).await
    }

    /// Returns when those before are no longer as they were.
    async fn moved(&self, before: &Before) -> Result<(), Error> {
        let is_head = !before.holders.is_empty();
        let watch = if is_head {
            self.client.watch(self.rivals.clone()).only_deletes()
        } else {
            // Whoever comes to have it says so by writing his key.
            self.client.watch(&before.nearest)
        };
        let watch = watch.after(before.seen).without_prev();
        let mut watch = watch.queue(DELETIONS_BYTES, Overflow::LatestOnly).await?;
        while let Some(batch) = watch.next().await {
            let batch = batch?;
            let mut keys = batch.events.iter().map(|event| &event.kv.key);
            if !is_head || batch.is_coalesced || keys.any(|key| before.holders.contains(key)) {
                return Ok(());
            }
        }
        Err(crate::transport::closed(self.call))
    }

    /// Tells the next one, who watches this place alone, that he is the first who waits.
    async fn step_up(&self, place: &Place, value: &Bytes) -> Result<(), Error> {
        let txn = self.client.txn().when(place.is_there());
        let told = txn
            .then(Op::put(&place.key, value).lease(&place.lease))
            .repeatable()
            .await
            .map_err(or_lost(self.call))?;
        if told.succeeded {
            return Ok(());
        }
        Err(lost(self.call, place.lost_reason()))
    }

    /// The turn has come, as the server has confirmed; the lease's own clock has the last word.
    pub(super) fn had(&self, place: Place, own: Option<Watch>) -> Result<Holding, Error> {
        match place.lease.status() {
            LeaseStatus::Held | LeaseStatus::Suspect => Ok(Holding::new(place, own)),
            LeaseStatus::Lost(reason) => Err(lost(self.call, reason)),
        }
    }
}

/// `name`, a slash, and `rest`.
pub(super) fn below(name: &[u8], rest: &str) -> Bytes {
    [name, b"/", rest.as_bytes()].concat().into()
}
