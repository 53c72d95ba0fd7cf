//! `snapshot save`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::connection::{self, Connection};
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::{Out, Page, Show, text};

/// Bytes of the checksum that ends a snapshot.
const SUM_LEN: usize = 32;

/// Copies of the data
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Snapshot {
    /// Copy the data of one member into a file
    ///
    /// The file appears under its name when all of it is on disk and the checksum is right.
    Save {
        /// Where to; a file that is there is replaced
        file: PathBuf,
    },
}

impl Snapshot {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("snapshot save")?;
        let Self::Save { file } = self;
        let start = Instant::now();
        let (endpoint, channel) = connection.channel().await?;
        let refused = |status: tonic::Status| Failure::status(&endpoint, &status);
        let mut client = connection::maintenance(channel);
        let stream = client
            .snapshot(pb::SnapshotRequest {})
            .await
            .map_err(refused)?;
        let mut stream = stream.into_inner();
        let mut copy = Copy::create(&file)?;
        while let Some(piece) = stream.message().await.map_err(refused)? {
            copy.write(&piece.blob)?;
        }
        let bytes = copy.finish()?;
        let took = start.elapsed();
        out.show(&Saved {
            file: &file,
            endpoint: &endpoint,
            bytes,
            took,
        })
    }
}

/// A file that is being written under another name; it is removed unless it gets finished.
struct Copy<'a> {
    target: &'a Path,
    part: PathBuf,
    file: File,
    /// Over all but the last [`SUM_LEN`] bytes.
    sum: Sha256,
    /// The last bytes so far, at most [`SUM_LEN`]: the checksum, once the stream has ended.
    tail: Vec<u8>,
    bytes: u64,
    finished: bool,
}

impl<'a> Copy<'a> {
    fn create(target: &'a Path) -> Result<Self, Failure> {
        let mut name = target.file_name().map(ToOwned::to_owned).ok_or_else(|| {
            Failure::usage(format!("{} is not the name of a file", target.display()))
        })?;
        name.push(".part");
        let part = target.with_file_name(name);
        // It holds all of the data: only its owner may read it.
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part);
        let file = opened.map_err(|err| cannot("create", &part, &err))?;
        Ok(Self {
            target,
            part,
            file,
            sum: Sha256::new(),
            tail: Vec::with_capacity(SUM_LEN),
            bytes: 0,
            finished: false,
        })
    }

    fn write(&mut self, blob: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all(blob)
            .map_err(|err| cannot("write", &self.part, &err))?;
        self.bytes += blob.len() as u64;
        self.tail.extend_from_slice(blob);
        let summed = self.tail.len().saturating_sub(SUM_LEN);
        self.sum.update(&self.tail[..summed]);
        self.tail.drain(..summed);
        Ok(())
    }

    /// Checks the checksum, puts the file on disk and gives it its name.
    fn finish(mut self) -> Result<u64, Failure> {
        let sum = std::mem::take(&mut self.sum).finalize();
        if self.tail != sum[..] {
            let what = format!(
                "the copy of {} is damaged or cut short",
                text::size(self.bytes)
            );
            return Err(Failure::failed(format!("{what}: its checksum is wrong"))
                .next("Nothing was saved; try again, or ask another member with --endpoints."));
        }
        self.file
            .sync_all()
            .map_err(|err| cannot("write", &self.part, &err))?;
        let renamed = fs::rename(&self.part, self.target);
        renamed.map_err(|err| cannot("create", self.target, &err))?;
        self.finished = true;
        // The name is on disk only when its directory is.
        let parent = self
            .target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|directory| directory.sync_all());
        synced.map_err(|err| cannot("write", parent, &err))?;
        Ok(self.bytes)
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // If it cannot be removed, its name says what it is.
            drop(fs::remove_file(&self.part));
        }
    }
}

fn cannot(verb: &str, path: &Path, err: &io::Error) -> Failure {
    Failure::failed(format!("cannot {verb} {}: {err}", path.display()))
}

struct Saved<'a> {
    file: &'a Path,
    endpoint: &'a str,
    bytes: u64,
    took: std::time::Duration,
}

impl Show for Saved<'_> {
    fn human(&self, page: &mut Page) {
        let (file, endpoint) = (self.file.display(), self.endpoint);
        let (size, took) = (text::size(self.bytes), text::took(self.took));
        page.line(format!(
            "Snapshot of {endpoint} saved at {file}: {size}, checksum right, {took}"
        ));
    }

    fn simple(&self, page: &mut Page) {
        page.line(format!("Snapshot saved at {}", self.file.display()));
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.quoted("File", self.file.as_os_str().as_encoded_bytes());
        fields.quoted("Endpoint", self.endpoint.as_bytes());
        fields.add("Bytes", self.bytes);
        fields
    }

    fn json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Json {
            file: String,
            endpoint: String,
            bytes: u64,
        }
        Json {
            file: self.file.display().to_string(),
            endpoint: self.endpoint.to_owned(),
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(text: &[u8]) -> Vec<u8> {
        [text, &Sha256::digest(text)].concat()
    }

    #[test]
    fn a_copy_gets_its_name_when_its_checksum_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("s.db");
        let bytes = blob(&[7; 1000]);
        let mut copy = Copy::create(&target).unwrap();
        for piece in bytes.chunks(13) {
            copy.write(piece).unwrap();
            assert!(!target.exists(), "the name is there too early");
        }
        assert_eq!(copy.finish().unwrap(), 1032);
        assert_eq!(fs::read(&target).unwrap(), bytes);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "the part is left"
        );
    }

    #[test]
    fn a_damaged_copy_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("s.db");
        let mut flipped = blob(b"some data");
        flipped[3] ^= 1;
        let cut = blob(b"some data")[..40].to_vec();
        for bytes in [flipped, cut, Vec::new(), b"short".to_vec()] {
            let mut copy = Copy::create(&target).unwrap();
            copy.write(&bytes).unwrap();
            assert!(
                copy.finish().unwrap_err().what().contains("checksum"),
                "{bytes:?}"
            );
            assert_eq!(
                fs::read_dir(dir.path()).unwrap().count(),
                0,
                "{bytes:?} left something"
            );
        }
    }
}
