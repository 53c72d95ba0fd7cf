//! What all connections share: the store, the members, what is to go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use gonfalon_core::watch::Hub;
use gonfalon_core::{Command, Reply, Revision};
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_wire::Refusal;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fault::Faults;
use super::outbox::Outbox;
use super::store::{Store, read};

/// What a test has chosen, and the world that it changes.
pub(super) struct Shared {
    /// A message about a watch is as large as this, in bytes, or has one revision; one that is
    /// larger goes out in fragments.
    pub(super) frame_bytes: usize,
    pub(super) runtime: Handle,
    world: Mutex<World>,
}

pub(super) struct World {
    pub(super) store: Store,
    /// Which store it is: others have been restored over.
    pub(super) epoch: u64,
    pub(super) cluster_id: u64,
    pub(super) term: u64,
    pub(super) members: Vec<Member>,
    pub(super) faults: Faults,
    /// Passwords by name; if there is none, everybody may do everything.
    pub(super) users: BTreeMap<String, String>,
    pub(super) tokens: BTreeSet<String>,
    pub(super) tokens_made: u64,
    /// The keys that may be read; none if all may.
    pub(super) readable: Option<(Bytes, Bytes)>,
    /// Counts the wishes to report progress.
    pub(super) progress: watch::Sender<u64>,
}

/// One member, as far as it differs from the others.
pub(super) struct Member {
    /// Its watchers. What it has told them is what it has applied.
    pub(super) hub: Hub<Outbox>,
    /// So many revisions are not applied yet.
    pub(super) lag: i64,
    pub(super) is_stopped: bool,
    pub(super) is_paused: watch::Sender<bool>,
    /// Cancelled while it sees no leader.
    pub(super) leaderless: CancellationToken,
    /// Cancelled to break its connections.
    pub(super) cut: CancellationToken,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the passwords.
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(members: usize, frame_bytes: usize, users: BTreeMap<String, String>) -> Self {
        assert!(members > 0, "a cluster has a member");
        let store = Store::new();
        let members = (0..members).map(|_| Member::new(store.revision()));
        Self {
            frame_bytes,
            runtime: Handle::current(),
            world: Mutex::new(World {
                members: members.collect(),
                store,
                epoch: 0,
                cluster_id: 1,
                term: 1,
                faults: Faults::default(),
                users,
                tokens: BTreeSet::new(),
                tokens_made: 0,
                readable: None,
                progress: watch::Sender::new(0),
            }),
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world
            .lock()
            .expect("nothing panics while it holds this lock")
    }
}

impl Member {
    fn new(applied: Revision) -> Self {
        Self {
            hub: Hub::new(applied),
            lag: 0,
            is_stopped: false,
            is_paused: watch::Sender::new(false),
            leaderless: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Up to where it has applied.
    pub(super) fn applied(&self) -> Revision {
        self.hub.revision()
    }

    /// Breaks every connection to it.
    pub(super) fn cut(&mut self) {
        std::mem::take(&mut self.cut).cancel();
    }

    pub(super) fn sees_leader(&self) -> bool {
        !self.leaderless.is_cancelled()
    }

    pub(super) fn see_leader(&mut self, sees: bool) {
        if !sees {
            self.leaderless.cancel();
        } else if !self.sees_leader() {
            self.leaderless = CancellationToken::new();
        }
    }

    /// Applies what it has not applied up to `revision`, and tells its watchers.
    fn apply_to(&mut self, store: &Store, revision: Revision) {
        let applied = self.applied();
        if revision <= applied {
            return;
        }
        let all = usize::MAX;
        let events = store.state().events(
            applied.next(),
            revision,
            all,
            true,
            &gonfalon_core::NoHistory,
        );
        let events = read(events).expect("whoever compacts applies what is compacted first");
        self.hub.publish(revision, &events);
    }
}

impl World {
    /// Carries out a command, on every member as soon as its lag allows.
    pub(super) fn apply(
        &mut self,
        command: Command,
    ) -> Result<(Revision, gonfalon_core::Answer), Refusal> {
        if let Command::Compact { revision } = command {
            // In the log everything before the compaction is applied before it.
            let up_to = revision.min(self.store.revision());
            for member in &mut self.members {
                member.apply_to(&self.store, up_to);
            }
        }
        let (Reply { revision, result }, _) = self.store.apply(command);
        self.catch_up();
        Ok((revision, result?))
    }

    /// Brings each member to where its lag allows it to be.
    pub(super) fn catch_up(&mut self) {
        let now = self.store.revision().get();
        for member in &mut self.members {
            member.apply_to(&self.store, Revision::new(now - member.lag));
        }
    }

    /// Makes the store what it was at `revision`, and breaks every connection.
    pub(super) fn restore(&mut self, revision: Revision) {
        self.store = self.store.as_of(revision);
        self.epoch += 1;
        self.term += 1;
        for member in &mut self.members {
            member.cut();
            member.hub = Hub::new(self.store.revision());
        }
    }

    /// The header of an answer of a member about `revision`.
    pub(super) fn header(&self, member: usize, revision: Revision) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: member_id(member),
            revision: revision.get(),
            raft_term: self.term,
        }
    }
}

/// The id of the member with this number: one more, since 0 is nobody's.
pub(super) fn member_id(member: usize) -> u64 {
    member as u64 + 1
}
