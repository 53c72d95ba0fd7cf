//! Who a member is: the ids, and the file that ties a data directory to them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use gonfalon_core::MemberId;
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// Format of the data directory; raised when an older version could not read it.
const FORMAT: u32 = 1;

/// The member and the cluster that a data directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: MemberId,
    /// The member's name.
    pub name: String,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Another process uses it.
    #[error(
        "data directory {0} is in use by another process; stop that one, or use another --data-dir"
    )]
    InUse(PathBuf),
    /// It belongs to another member or cluster.
    #[error(
        "data directory {dir} belongs to member {found_member} of cluster {found_cluster:x}, but \
         --initial-cluster makes this member {want_member} of cluster {want_cluster:x}; use another \
         --data-dir, or the flags this one was made with"
    )]
    Mismatch {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found_member: MemberId,
        /// Its cluster.
        found_cluster: u64,
        /// Who the flags say this is.
        want_member: MemberId,
        /// The flags' cluster.
        want_cluster: u64,
    },
    /// A later version wrote it.
    #[error(
        "data directory {dir} has format {found}; this version reads up to {FORMAT}. Use a newer version"
    )]
    TooNew {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The identity file is gone, the data is not.
    #[error(
        "data directory {0} has data but no identity file; restore it from where it was copied"
    )]
    Missing(PathBuf),
    /// Raft's log is gone, the state that was made of it is not.
    #[error(
        "data directory {0} has a state but no log: what was in its raft directory is missing; \
         restore it from where it was copied"
    )]
    LogMissing(PathBuf),
    /// It is empty, and the member was started before.
    #[error(
        "member {member} has already been bootstrapped, says member {knower}, but data directory \
         {dir} has none of its data; restore the directory: without it the cluster could lose \
         writes that this member has acknowledged"
    )]
    Lost {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        member: MemberId,
        /// Who knows it.
        knower: MemberId,
    },
    /// It is new, and the member was not to found a cluster.
    #[error(
        "data directory {0} is new, and joining a cluster that runs (--initial-cluster-state existing) \
         is not there yet; restore the member's directory, or found a new cluster with `new`"
    )]
    CannotJoin(PathBuf),
    /// It holds the data of an etcd.
    #[error(
        "data directory {0} holds the data of an etcd, which Gonfalon does not read; use another \
         --data-dir"
    )]
    Etcds(PathBuf),
    /// It is no directory.
    #[error("data directory {0} is not a directory; use another --data-dir")]
    NotADirectory(PathBuf),
    /// The identity file cannot be understood.
    #[error("{path} is damaged: {why}; restore it from a copy of the data directory")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The operating system refused.
    #[error("data directory {dir}: {why}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why.
        why: std::io::Error,
    },
}

/// A member's id: the first eight bytes of the SHA-1 of its sorted peer URLs and the cluster's
/// token, as etcd makes it, so that the same flags name the same members.
pub fn member_id(peer_urls: &[String], token: &str) -> MemberId {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let digest = Sha1::new()
        .chain_update(urls.concat())
        .chain_update(token)
        .finalize();
    MemberId::new(first_eight(&digest))
}

/// A cluster's id: the first eight bytes of the SHA-1 of its first members' sorted ids, as etcd
/// makes it.
pub fn cluster_id(members: impl IntoIterator<Item = MemberId>) -> u64 {
    let mut ids: Vec<u64> = members.into_iter().map(MemberId::get).collect();
    ids.sort_unstable();
    let digest = ids
        .iter()
        .fold(Sha1::new(), |sha, id| sha.chain_update(id.to_be_bytes()));
    first_eight(&digest.finalize())
}

fn first_eight(digest: &[u8]) -> u64 {
    let first = digest.first_chunk::<8>().expect("a SHA-1 has twenty bytes");
    u64::from_be_bytes(*first)
}

/// Whether `path` is the data directory of a member that has been started before.
pub fn is_started(path: &Path) -> bool {
    path.join(IDENTITY).exists()
}

/// The file's name.
const IDENTITY: &str = "identity.json";
/// Raft's log, below the directory.
pub(super) const LOG: &str = "raft";
/// The state that the log makes, below the directory.
pub(super) const STATE: &str = "state";

#[derive(Debug, Serialize, Deserialize)]
struct OnDisk {
    format: u32,
    cluster_id: String,
    member_id: String,
    name: String,
}

/// A data directory that this process alone may use.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    /// Held for its lock.
    _lock: File,
}

impl DataDir {
    /// Opens or makes the directory and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, IdentityError> {
        let io = |why| IdentityError::Io {
            dir: path.to_owned(),
            why,
        };
        // Where etcd keeps its own; nothing must be written beside it.
        if !is_started(path) && path.join("member").is_dir() {
            return Err(IdentityError::Etcds(path.to_owned()));
        }
        if path.exists() && !path.is_dir() {
            return Err(IdentityError::NotADirectory(path.to_owned()));
        }
        make_private_dir(path).map_err(io)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(std::fs::TryLockError::WouldBlock) => Err(IdentityError::InUse(path.to_owned())),
            Err(std::fs::TryLockError::Error(why)) => Err(io(why)),
        }
    }

    /// Where something of the member is kept.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether the member ever had a log: until then it took part in nothing.
    pub(super) fn has_log(&self) -> bool {
        // In every RocksDB directory that was completely created.
        self.join(LOG).join("CURRENT").exists()
    }

    /// The identity in the directory; none if it is new.
    pub(super) fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        let path = self.join(IDENTITY);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return if self.join(LOG).exists() || self.join(STATE).exists() {
                    Err(IdentityError::Missing(self.path.clone()))
                } else {
                    Ok(None)
                };
            }
            Err(why) => {
                return Err(IdentityError::Io {
                    dir: self.path.clone(),
                    why,
                });
            }
        };
        let unreadable = |why: String| IdentityError::Unreadable {
            path: path.clone(),
            why,
        };
        let found: OnDisk = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
        if found.format > FORMAT {
            return Err(IdentityError::TooNew {
                dir: self.path.clone(),
                found: found.format,
            });
        }
        // The log is made first: a member that died between the two has no state.
        if !self.has_log() && self.join(STATE).exists() {
            return Err(IdentityError::LogMissing(self.path.clone()));
        }
        let id = |text: &str| {
            u64::from_str_radix(text, 16).map_err(|e| unreadable(format!("id {text:?}: {e}")))
        };
        Ok(Some(Identity {
            cluster_id: id(&found.cluster_id)?,
            member_id: MemberId::new(id(&found.member_id)?),
            name: found.name,
        }))
    }

    /// Writes the identity of a new directory, durably, before anything else is in it.
    pub(super) fn write_identity(&self, identity: &Identity) -> Result<(), IdentityError> {
        let on_disk = OnDisk {
            format: FORMAT,
            cluster_id: format!("{:x}", identity.cluster_id),
            member_id: identity.member_id.to_string(),
            name: identity.name.clone(),
        };
        let text = serde_json::to_string_pretty(&on_disk).expect("strings and a number are JSON");
        let write = || {
            let new = self.join("identity.json.new");
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, self.join(IDENTITY))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|why| IdentityError::Io {
            dir: self.path.clone(),
            why,
        })
    }

    /// Refuses a directory that is not of the member the flags describe.
    pub(super) fn check(&self, found: &Identity, want: &Identity) -> Result<(), IdentityError> {
        if (found.cluster_id, found.member_id) == (want.cluster_id, want.member_id) {
            return Ok(());
        }
        Err(IdentityError::Mismatch {
            dir: self.path.clone(),
            found_member: found.member_id,
            found_cluster: found.cluster_id,
            want_member: want.member_id,
            want_cluster: want.cluster_id,
        })
    }
}

/// A directory that only its owner may read: it holds everybody's data.
fn make_private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster_id: 0xc,
            member_id: MemberId::new(0xa),
            name: "n1".into(),
        }
    }

    #[test]
    fn ids_are_those_that_etcd_makes_of_the_same_flags() {
        // What etcd 3.4.23 answers with its default flags.
        let id = member_id(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(id.to_string(), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id([id])), "cdf818194e3a8c32");
    }

    #[test]
    fn a_directory_keeps_its_identity_and_serves_one_process() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        assert_eq!(dir.identity().unwrap(), None);
        dir.write_identity(&identity()).unwrap();
        assert!(matches!(
            DataDir::open(temp.path()),
            Err(IdentityError::InUse(_))
        ));
        drop(dir);
        let dir = DataDir::open(temp.path()).unwrap();
        assert_eq!(dir.identity().unwrap(), Some(identity()));
        let other = Identity {
            cluster_id: 0xd,
            ..identity()
        };
        assert!(matches!(
            dir.check(&identity(), &other),
            Err(IdentityError::Mismatch { .. })
        ));
    }

    #[test]
    fn data_without_an_identity_is_not_taken_for_a_new_member() {
        for data in [LOG, STATE] {
            let temp = tempfile::tempdir().unwrap();
            std::fs::create_dir(temp.path().join(data)).unwrap();
            let dir = DataDir::open(temp.path()).unwrap();
            assert!(matches!(dir.identity(), Err(IdentityError::Missing(_))));
        }
    }

    #[test]
    fn a_state_without_its_log_is_not_taken_for_a_new_member() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        dir.write_identity(&identity()).unwrap();
        assert_eq!(dir.identity().unwrap(), Some(identity()), "died early");
        // A directory alone is not a log.
        std::fs::create_dir(dir.join(LOG)).unwrap();
        assert_eq!(dir.identity().unwrap(), Some(identity()), "died early");
        std::fs::create_dir(dir.join(STATE)).unwrap();
        assert!(matches!(dir.identity(), Err(IdentityError::LogMissing(_))));
        std::fs::write(dir.join(LOG).join("CURRENT"), "").unwrap();
        assert_eq!(dir.identity().unwrap(), Some(identity()));
    }
}
