//! A cache's copy on disk: with it an application starts while the cluster is away.
//!
//! What is in the file, and how it is read and written as a whole; when that happens is in `save.rs`.
//! A file is used in full or not at all: a checksum is over every byte, and what does not fit the
//! cache (another range, namespace or cluster, too old) is refused with the reason.
//!
//! The file, version 1; numbers are little-endian, texts are their length (u32) and their bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `GFNCACHE` |
//! | u32 | version |
//! | u64 | cluster id |
//! | u64 | when it was surely current, in milliseconds since 1970 |
//! | i64 | revision |
//! | text, text | first key and end of the range as the wire has them, behind the namespace |
//! | u64 | number of keys |
//! | each: text, text, 4 × i64 | key, value, create and mod revision, version, lease |
//! | u32 | CRC-32C of everything before |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::snapshot::{Listing, Snapshot};
use crate::types::{KeyValue, LeaseId, Revision};

const MAGIC: &[u8] = b"GFNCACHE";
const VERSION: u32 = 1;
const CHECKSUM_BYTES: usize = 4;

/// A clock that was set back by no more than this makes a file that was just written no riddle.
const FUTURE_MAX: Duration = Duration::from_mins(1);

/// Which keys of which cluster a file has; a cache takes none but its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// First key and end, as the wire has them.
    pub(super) range: (Bytes, Bytes),
    /// 0: not known, and any will do.
    pub(super) cluster: u64,
}

/// What a file has.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    pub(super) cluster: u64,
    /// When the snapshot was surely what the store had.
    pub(super) current_at: SystemTime,
    pub(super) snapshot: std::sync::Arc<Snapshot>,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is not a cache's copy")]
    Foreign,
    #[error("it is of version {0}; {VERSION} is known")]
    Version(u32),
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it has other keys: those from {0:?} to {1:?}")]
    OtherRange(Bytes, Bytes),
    #[error("it is of the cluster {found:x}, and this is {wanted:x}")]
    OtherCluster { found: u64, wanted: u64 },
    #[error("it is {age:?} old, and {age_max:?} is allowed")]
    TooOld { age: Duration, age_max: Duration },
    #[error("it is from the future: the clock was set back")]
    FromTheFuture,
}

/// Reads the file at `path` if it is whole, of `identity`, and no older than `age_max`; also says
/// how old it is.
pub(super) fn load(
    path: &Path,
    identity: &Identity,
    age_max: Duration,
    now: SystemTime,
) -> Result<(Contents, Duration), Refusal> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let copy = decode(bytes.into(), identity)?;
    let age = match now.duration_since(copy.current_at) {
        Ok(age) => age,
        Err(ahead) if ahead.duration() <= FUTURE_MAX => Duration::ZERO,
        Err(_) => return Err(Refusal::FromTheFuture),
    };
    if age > age_max {
        return Err(Refusal::TooOld { age, age_max });
    }
    Ok((copy, age))
}

/// Writes the file at `path`, so that at any time either the old one or the new one is there in
/// full. Only its owner can read it.
pub(super) fn save(path: &Path, identity: &Identity, copy: &Contents) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file")
    })?;
    // Two processes with the same path must not write into one file.
    let mut temporary = name.to_owned();
    temporary.push(format!(
        ".{}-{:x}.new",
        std::process::id(),
        fastrand::u32(..)
    ));
    let temporary = folder.join(temporary);
    let written = write(&temporary, &encode(identity, copy)).and_then(|()| {
        fs::rename(&temporary, path)?;
        // The name is durable with its folder.
        File::open(folder)?.sync_all()
    });
    if written.is_err() {
        // It may not even be there; what counts is the first error.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn encode(identity: &Identity, copy: &Contents) -> BytesMut {
    let snapshot = &copy.snapshot;
    let mut out = BytesMut::new();
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    out.put_u64_le(copy.cluster);
    let at = copy.current_at.duration_since(SystemTime::UNIX_EPOCH);
    let at = at.unwrap_or_default().as_millis();
    out.put_u64_le(u64::try_from(at).unwrap_or(u64::MAX));
    out.put_i64_le(snapshot.revision().get());
    put_text(&mut out, &identity.range.0);
    put_text(&mut out, &identity.range.1);
    out.put_u64_le(snapshot.len() as u64);
    for kv in snapshot.iter() {
        put_text(&mut out, &kv.key);
        put_text(&mut out, &kv.value);
        out.put_i64_le(kv.create_revision.get());
        out.put_i64_le(kv.mod_revision.get());
        out.put_i64_le(kv.version);
        out.put_i64_le(kv.lease.map_or(0, LeaseId::get));
    }
    let checksum = crc32c::crc32c(&out);
    out.put_u32_le(checksum);
    out
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    let len = u32::try_from(text.len()).expect("servers refuse keys and values of gigabytes");
    out.put_u32_le(len);
    out.put_slice(text);
}

fn decode(bytes: Bytes, identity: &Identity) -> Result<Contents, Refusal> {
    const SHORT: Refusal = Refusal::Damaged("it ends too early");
    let header = MAGIC.len() + size_of::<u32>();
    if bytes.len() < header + CHECKSUM_BYTES || !bytes.starts_with(MAGIC) {
        return Err(Refusal::Foreign);
    }
    // The version first: what another one has at its end is not known.
    let version = (&bytes[MAGIC.len()..]).get_u32_le();
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let (body, mut checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    if crc32c::crc32c(body) != checksum.get_u32_le() {
        return Err(Refusal::Damaged("its checksum is wrong"));
    }
    let mut body = bytes.slice(header..bytes.len() - CHECKSUM_BYTES);
    let cluster = body.try_get_u64_le().map_err(|_| SHORT)?;
    let at = body.try_get_u64_le().map_err(|_| SHORT)?;
    let revision = body.try_get_i64_le().map_err(|_| SHORT)?;
    let range = (text(&mut body).ok_or(SHORT)?, text(&mut body).ok_or(SHORT)?);
    if range != identity.range {
        return Err(Refusal::OtherRange(range.0, range.1));
    }
    if identity.cluster != 0 && cluster != identity.cluster {
        let (found, wanted) = (cluster, identity.cluster);
        return Err(Refusal::OtherCluster { found, wanted });
    }
    let keys = body.try_get_u64_le().map_err(|_| SHORT)?;
    let mut listing = Listing::new(std::sync::Arc::default());
    for _ in 0..keys {
        listing.add(&key_value(&mut body).ok_or(SHORT)?);
    }
    if !body.is_empty() {
        return Err(Refusal::Damaged("there is more than its keys"));
    }
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at));
    Ok(Contents {
        cluster,
        current_at: at.ok_or(Refusal::FromTheFuture)?,
        snapshot: std::sync::Arc::new(listing.end(Revision::new(revision))),
    })
}

fn text(body: &mut Bytes) -> Option<Bytes> {
    let len = body.try_get_u32_le().ok()? as usize;
    (len <= body.len()).then(|| body.split_to(len))
}

fn key_value(body: &mut Bytes) -> Option<KeyValue> {
    let (key, value) = (text(body)?, text(body)?);
    let mut number = || body.try_get_i64_le().ok();
    Some(KeyValue {
        key,
        value,
        create_revision: Revision::new(number()?),
        mod_revision: Revision::new(number()?),
        version: number()?,
        lease: LeaseId::from_wire(number()?),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::*;

    fn identity() -> Identity {
        Identity {
            range: (Bytes::from("n/a"), Bytes::from("n/b")),
            cluster: 7,
        }
    }

    fn copy(keys: u8) -> Contents {
        let mut listing = Listing::new(Arc::default());
        for number in 0..keys {
            listing.add(&KeyValue {
                key: Bytes::from(vec![b'a', number]),
                value: Bytes::from(vec![number; number.into()]),
                create_revision: Revision::new(2),
                mod_revision: Revision::new(i64::from(number) + 2),
                version: 1,
                lease: LeaseId::from_wire(i64::from(number % 2)),
            });
        }
        Contents {
            cluster: 7,
            // The file has whole milliseconds.
            current_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            snapshot: Arc::new(listing.end(Revision::new(99))),
        }
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_copy_is_read_as_it_was_written_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        for keys in [3, 0, 40] {
            let written = copy(keys);
            save(&path, &identity(), &written).unwrap();
            let now = written.current_at + Duration::from_secs(5);
            let (read, age) = load(&path, &identity(), HOUR, now).unwrap();
            assert_eq!((read.cluster, read.current_at), (7, written.current_at));
            assert_eq!(age, Duration::from_secs(5));
            assert_eq!(read.snapshot.revision(), Revision::new(99));
            let all = |copy: &Contents| copy.snapshot.iter().cloned().collect::<Vec<_>>();
            assert_eq!(all(&read), all(&written));
        }
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing else is left: {left:?}");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others cannot read it");
    }

    #[test]
    fn a_copy_that_cannot_be_written_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        // A folder is in the way.
        fs::create_dir(&path).unwrap();
        assert!(save(&path, &identity(), &copy(1)).is_err());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "the new file is gone: {left:?}");
    }

    /// A file that was cut anywhere, or with any one bit turned, or longer than it was.
    #[test]
    fn a_copy_that_is_not_whole_is_refused() {
        let whole = encode(&identity(), &copy(5)).freeze();
        assert!(decode(whole.clone(), &identity()).is_ok());
        for len in 0..whole.len() {
            let torn = decode(whole.slice(..len), &identity());
            assert!(torn.is_err(), "the first {len} of {} bytes", whole.len());
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(flipped.into(), &identity()).is_err(), "bit {bit}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(decode(longer.into(), &identity()).is_err());
    }

    #[test]
    fn a_copy_of_something_else_is_refused_and_the_reason_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        let written = copy(2);
        save(&path, &identity(), &written).unwrap();
        let at = written.current_at;
        let cluster = |cluster| Identity {
            cluster,
            ..identity()
        };
        let others = Identity {
            range: (Bytes::from("n/a"), Bytes::new()),
            cluster: 7,
        };
        for (identity, now, age_max, why) in [
            (cluster(0), at, HOUR, None),
            (
                cluster(8),
                at,
                HOUR,
                Some("of the cluster 7, and this is 8"),
            ),
            (others, at, HOUR, Some("other keys")),
            (cluster(7), at + HOUR, HOUR, None),
            (cluster(7), at + HOUR * 2, HOUR, Some("old")),
            (cluster(7), at - FUTURE_MAX, HOUR, None),
            (
                cluster(7),
                at - FUTURE_MAX * 2,
                HOUR,
                Some("from the future"),
            ),
        ] {
            let loaded = load(&path, &identity, age_max, now).map(|(_, age)| age);
            match (loaded, why) {
                (Ok(_), None) => {}
                (Err(refusal), Some(why)) => {
                    assert!(refusal.to_string().contains(why), "{refusal}");
                }
                (loaded, why) => panic!("{loaded:?}, wanted {why:?}"),
            }
        }
        let mut newer = encode(&identity(), &written).to_vec();
        newer[MAGIC.len()] = 2;
        let refusal = decode(newer.into(), &identity()).unwrap_err();
        assert_eq!(refusal.to_string(), "it is of version 2; 1 is known");
    }
}
