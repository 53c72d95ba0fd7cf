//! Before a new member takes part: its data directory, and what the others know of it.
//!
//! A member that lost its data has forgotten what it voted for and what it acknowledged. If it began
//! again as the founder it once was, it and another that was down meanwhile would be a quorum that
//! knows nothing of the latest writes. So a member without data asks the others first, and answers
//! nothing but the same question of theirs until a quorum (itself included) has not heard of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gonfalon_core::MemberId;
use gonfalon_core::command::Batch;
use openraft::entry::EntryPayload;
use openraft::storage::RaftLogReader;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::identity::{DataDir, Identity, cluster_id, is_started, member_id};
use super::peer_service::PeerService;
use super::peers::{Peers, SharedPeers};
use super::plan::Plan;
use super::start::{InitialMember, NodeConfig, OpenError};
use super::{IdentityError, Node};
use crate::limits::{FOUNDING_PATIENCE, FOUNDING_REPORT, FOUNDING_RETRY};
use crate::raft::{Payload, PeerNode};
use crate::storage::LogStore;
use crate::store::Store;

/// A member whose data directory is claimed, and that takes part in nothing yet.
#[derive(Debug)]
pub struct Opening {
    pub(super) config: NodeConfig,
    pub(super) dir: DataDir,
    pub(super) identity: Identity,
    pub(super) peers: SharedPeers,
    service: Arc<PeerService>,
    plan: Plan,
    /// Why clients cannot be served yet.
    waits: watch::Sender<String>,
    /// Whether the directory has no identity yet.
    is_nameless: bool,
    /// Whether it has no log: it never took part, or has lost all.
    is_new: bool,
}

impl Opening {
    /// Claims the data directory; writes nothing but its lock.
    ///
    /// # Errors
    ///
    /// The directory cannot be used.
    pub fn claim(config: NodeConfig) -> Result<Self, OpenError> {
        let ids = founders(&config).into_keys().map(MemberId::new);
        let wanted = Identity {
            cluster_id: cluster_id(ids),
            member_id: member_id(&config.peer_urls, &config.initial_token),
            name: config.name.clone(),
        };
        if !config.is_founder && !is_started(&config.data_dir) {
            return Err(IdentityError::CannotJoin(config.data_dir).into());
        }
        let dir = DataDir::open(&config.data_dir)?;
        let found = dir.identity()?;
        let is_nameless = found.is_none();
        let identity = match found {
            Some(found) => {
                if config.check_identity {
                    dir.check(&found, &wanted)?;
                }
                if found.name != wanted.name {
                    tracing::warn!(
                        name = wanted.name,
                        founded_as = found.name,
                        dir = %config.data_dir.display(),
                        "--name is not the one that this data directory was made with: is it the \
                         right directory?"
                    );
                }
                Identity {
                    name: wanted.name,
                    ..found
                }
            }
            None => wanted,
        };
        let is_new = config.is_founder && !dir.has_log();
        tracing::info!(
            dir = %config.data_dir.display(),
            member = %identity.member_id,
            name = identity.name,
            is_new,
            "opening the data directory"
        );
        let plan = Plan::of(&config);
        let (timeout, metrics) = (config.request_timeout(), config.metrics.clone());
        let peers = Arc::new(Peers::new(&identity, timeout, metrics));
        let told = is_new.then(|| plan.clone());
        let service = PeerService::new(identity.clone(), told, dir.join("incoming"));
        if is_new {
            // Before they can call: what is answered to a stranger is not counted.
            for (id, node) in others(&config, &identity) {
                if let Err(error) = peers.learn(id, &node.peer_urls) {
                    tracing::error!(%error, "a member cannot be reached");
                }
            }
        }
        let names = others(&config, &identity).into_keys();
        let waits = watch::Sender::new(waits_for(names.map(|id| name_of(&config, id))));
        Ok(Self {
            config,
            dir,
            identity,
            peers,
            service: Arc::new(service),
            plan,
            waits,
            is_nameless,
            is_new,
        })
    }

    /// What answers the other members, from now on and for as long as this one runs.
    pub fn peer_service(&self) -> Arc<PeerService> {
        self.service.clone()
    }

    /// Why clients cannot be served yet, if others are asked first.
    pub fn waits(&self) -> Option<watch::Receiver<String>> {
        let asks = self.is_new && !others(&self.config, &self.identity).is_empty();
        asks.then(|| self.waits.subscribe())
    }

    /// Where everything is counted.
    pub fn metrics(&self) -> &Arc<crate::metrics::Metrics> {
        &self.config.metrics
    }

    /// Opens the member and starts its tasks; a new one asks the others first. The [peer
    /// service](Self::peer_service) must be served by then: they ask too.
    ///
    /// # Errors
    ///
    /// The others know this member, whose data is gone; or what it has cannot be used.
    ///
    /// # Cancel safety
    ///
    /// Safe while it asks: nothing is written before.
    pub async fn open(self, tasks: &mut crate::tasks::Tasks) -> Result<Node, OpenError> {
        if self.is_new {
            self.ask().await?;
        }
        if self.is_nameless {
            self.dir.write_identity(&self.identity)?;
        }
        let service = self.service.clone();
        let node = Node::open(self, tasks).await?;
        service.answer_for(node.clone());
        Ok(node)
    }

    /// Returns when a quorum of the founders does not know this one as started.
    async fn ask(&self) -> Result<(), OpenError> {
        let others = others(&self.config, &self.identity);
        let quorum = others.len().div_ceil(2) + 1;
        let mut next_report = Instant::now() + FOUNDING_PATIENCE;
        let mut told = Vec::new();
        loop {
            // All of them each time, even if fewer would do: whoever knows is heard.
            let asked = others.keys().map(|&id| self.peers.is_started(id));
            let answers = futures::future::join_all(asked).await;
            let answers: Vec<_> = others.keys().copied().zip(answers).collect();
            if let Some((knower, _)) = answers.iter().find(|(_, a)| matches!(a, Ok((true, _)))) {
                return Err(IdentityError::Lost {
                    dir: self.config.data_dir.clone(),
                    member: self.identity.member_id,
                    knower: MemberId::new(*knower),
                }
                .into());
            }
            let answered = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
            let is_enough = answered + 1 >= quorum;
            let is_due = Instant::now() >= next_report;
            let differing = self.differing(&answers);
            if is_due || differing != told {
                report_differing(&differing);
                told = differing;
            }
            if is_enough {
                return Ok(());
            }
            if is_due {
                next_report = Instant::now() + FOUNDING_REPORT;
                self.report_silent(&answers);
            }
            let silent = answers.iter().filter(|(_, answer)| answer.is_err());
            let names = silent.map(|(id, _)| name_of(&self.config, *id));
            self.waits.send_replace(waits_for(names));
            tokio::time::sleep(FOUNDING_RETRY).await;
        }
    }

    /// Who was told something else about the cluster, by name, and what.
    fn differing(&self, answers: &[(u64, Started)]) -> Vec<(String, String)> {
        let differing = answers.iter().filter_map(|(id, answer)| {
            let plan = match answer {
                Ok((_, plan)) => plan.clone(),
                Err(status) => Plan::read(status.metadata()),
            };
            let name = name_of(&self.config, *id);
            let differences = self.plan.differences(&plan?, &name)?;
            Some((name, differences))
        });
        differing.collect()
    }

    /// Says for whom a new member waits.
    fn report_silent(&self, answers: &[(u64, Started)]) {
        for (id, answer) in answers {
            if let Err(status) = answer {
                let (name, error) = (name_of(&self.config, *id), innermost(status));
                tracing::warn!(
                    name,
                    error,
                    "this member is new and waits for another member to found the cluster"
                );
            }
        }
    }
}

fn report_differing(differing: &[(String, String)]) {
    for (name, differences) in differing {
        tracing::warn!(
            name,
            differences,
            "another member was started with other flags than this one"
        );
    }
}

/// Whether this member was started before, as another knows it, and what that one was told.
type Started = Result<(bool, Option<Plan>), Status>;

/// What clients are told meanwhile.
fn waits_for(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    let members = if names.len() == 1 {
        "member"
    } else {
        "members"
    };
    format!(
        "waiting for {members} {} to found the cluster",
        names.join(", ")
    )
}

/// What the flags call a founder.
fn name_of(config: &NodeConfig, id: u64) -> String {
    let is_meant =
        |member: &&InitialMember| member_id(&member.peer_urls, &config.initial_token).get() == id;
    let found = config.initial_members.iter().find(is_meant);
    found.map_or_else(|| format!("{id:x}"), |member| member.name.clone())
}

/// What a person wants to know of a failed call: that the connection was refused, say.
fn innermost(status: &Status) -> String {
    let mut inner: Option<&dyn std::error::Error> = std::error::Error::source(status);
    while let Some(source) = inner.and_then(std::error::Error::source) {
        inner = Some(source);
    }
    inner.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

/// The members of the first membership.
pub(super) fn founders(config: &NodeConfig) -> BTreeMap<u64, PeerNode> {
    let members = config.initial_members.iter().map(|member| {
        let id = member_id(&member.peer_urls, &config.initial_token);
        let peer_urls = member.peer_urls.clone();
        (id.get(), PeerNode { peer_urls })
    });
    members.collect()
}

/// The founders but this one.
fn others(config: &NodeConfig, own: &Identity) -> BTreeMap<u64, PeerNode> {
    let mut others = founders(config);
    others.remove(&own.member_id.get());
    others
}

/// Members that have proposed something which is in the log and was not applied yet. The state
/// knows of everything before; it may be far behind the log after a crash.
pub(super) async fn proposers(
    log: &mut LogStore,
    store: &Store,
) -> Result<BTreeSet<MemberId>, OpenError> {
    let mut found = BTreeSet::new();
    let (applied, membership) = store.applied_state();
    let is_published =
        |id: &u64| store.read(|state, _| state.members().any(|(known, _)| known.get() == *id));
    let mut members = membership.nodes().map(|(id, _)| id);
    // Without a membership nothing was applied.
    if applied.is_some() && members.all(is_published) {
        return Ok(found);
    }
    let unreadable = |error: String| OpenError::Raft(format!("the log: {error}"));
    let end = log.last_log_id().map_or(0, |last| last.index + 1);
    let purged = log.purged_log_id().map_or(0, |purged| purged.index + 1);
    let mut next = applied.map_or(0, |id| id.index + 1).max(purged);
    while next < end {
        let read = log.limited_get_log_entries(next, end).await;
        let entries = read.map_err(|error| unreadable(error.to_string()))?;
        let Some(last) = entries.last() else {
            return Err(unreadable(format!("entry {next} is missing")));
        };
        next = last.log_id.index + 1;
        for entry in entries {
            if let EntryPayload::Normal(Payload(bytes)) = entry.payload {
                let batch = Batch::decode(bytes).map_err(|error| unreadable(error.to_string()))?;
                found.insert(batch.origin);
            }
        }
    }
    Ok(found)
}

impl NodeConfig {
    /// How long a request may take, as etcd has it.
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }
}

impl Node {
    /// Whether `member` took part before, as far as is known here.
    pub(super) fn is_started(&self, member: MemberId) -> bool {
        let is_published = |id| {
            self.store()
                .read(|state, _| state.members().any(|(m, _)| m == id))
        };
        self.inner.proposers.contains(&member) || is_published(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::raft::{Entry, LogId, StoredMembership, TypeConfig, log_id_from_pb};
    use crate::storage::{Durability, FailStop, Pace};
    use gonfalon_core::command::Command;
    use gonfalon_proto::peer as pb;
    use openraft::storage::{IOFlushed, RaftLogStorage};
    use openraft::type_config::TypeConfigExt;

    fn id(index: u64) -> LogId {
        log_id_from_pb(pb::LogId { term: 1, index })
    }

    /// What member `origin` proposes first.
    fn publication(origin: u64) -> Batch {
        let id = MemberId::new(origin);
        let publish = Command::PublishMember {
            id,
            name: format!("n{origin}"),
            client_urls: Vec::new(),
        };
        Batch {
            origin: id,
            sequence: 1,
            commands: vec![publish],
        }
    }

    #[tokio::test]
    async fn whoever_proposed_is_known_while_it_is_only_in_the_log() {
        let temp = tempfile::tempdir().unwrap();
        let (metrics, fail_stop) = (Arc::new(Metrics::default()), FailStop::new());
        let wal = metrics.disk.wal.clone();
        let log = temp.path().join(crate::node::identity::LOG);
        let mut log = LogStore::open(&log, fail_stop.clone(), Durability::Disk, wal).unwrap();
        let (state, outgoing) = (
            temp.path().join(crate::node::identity::STATE),
            temp.path().join("outgoing"),
        );
        let store = Store::open(&state, outgoing, fail_stop, Pace::default(), metrics).unwrap();
        assert!(proposers(&mut log, &store).await.unwrap().is_empty(), "new");

        let entries = [7, 8].map(|origin| {
            let mut bytes = Vec::new();
            publication(origin).encode(&mut bytes);
            Entry {
                log_id: id(origin - 7),
                payload: EntryPayload::Normal(Payload(bytes.into())),
            }
        });
        let (sender, receiver) = TypeConfig::oneshot();
        log.append(entries, IOFlushed::signal(sender))
            .await
            .unwrap();
        receiver.await.unwrap().unwrap();
        let both = BTreeSet::from([7, 8].map(MemberId::new));
        assert_eq!(proposers(&mut log, &store).await.unwrap(), both);

        // The state knows the first now; the second is only in the log still.
        let nodes = [7, 8].map(|id| (id, PeerNode::default()));
        let membership =
            crate::raft::Membership::new(vec![[7, 8].into()], BTreeMap::from(nodes)).unwrap();
        let membership = StoredMembership::new(Some(id(0)), membership);
        store
            .apply(&[publication(7)], id(0), Some(membership), |_| ())
            .unwrap();
        let second = BTreeSet::from([MemberId::new(8)]);
        assert_eq!(proposers(&mut log, &store).await.unwrap(), second);
        store.apply(&[publication(8)], id(1), None, |_| ()).unwrap();
        assert!(proposers(&mut log, &store).await.unwrap().is_empty());
    }
}
