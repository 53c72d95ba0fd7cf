//! Snapshots between members: a directory with a checkpoint of the state's database, sent file by
//! file with a checksum each.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use gonfalon_proto::peer as pb;
use prometheus::Histogram;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;

use crate::limits::SNAPSHOT_CHUNK_BYTES;

/// A directory that holds one checkpoint and is deleted with its last handle.
#[derive(Debug, Clone)]
pub struct SnapshotDir(Arc<Owned>);

/// An empty path stands for no directory.
#[derive(Debug)]
struct Owned(PathBuf);

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty()
            && let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "cannot delete a snapshot");
        }
    }
}

impl SnapshotDir {
    /// Takes over the directory.
    pub fn own(path: PathBuf) -> Self {
        Self(Arc::new(Owned(path)))
    }

    /// No directory: of a snapshot that nobody will read.
    pub fn empty() -> Self {
        Self::own(PathBuf::new())
    }

    /// Where it is. Whoever moves it away owns what was in it.
    pub fn path(&self) -> &Path {
        &self.0.0
    }
}

/// The messages that carry a snapshot: the header, then every file in pieces.
pub(super) fn chunks(
    header: pb::SnapshotHeader,
    snapshot: SnapshotDir,
) -> impl Stream<Item = pb::SnapshotChunk> + Send + 'static {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        let first = pb::SnapshotChunk {
            part: Some(pb::snapshot_chunk::Part::Header(header)),
        };
        if sender.send(first).await.is_ok()
            && let Err(error) = send_files(snapshot.path(), &sender).await
        {
            // The receiver sees the stream end before its last file is complete and refuses it.
            tracing::warn!(%error, "cannot read a snapshot");
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

async fn send_files(
    dir: &Path,
    to: &tokio::sync::mpsc::Sender<pb::SnapshotChunk>,
) -> std::io::Result<()> {
    let mut names = Vec::new();
    let mut entries = tokio::fs::read_dir(dir).await?;
    while let Some(entry) = entries.next_entry().await? {
        names.push(entry.file_name());
    }
    names.sort();
    let last = names.len();
    for (index, name) in names.iter().enumerate() {
        let mut file = File::open(dir.join(name)).await?;
        let mut name = Some(name.to_string_lossy().into_owned());
        let mut crc32c = 0;
        loop {
            let mut data = vec![0; SNAPSHOT_CHUNK_BYTES];
            let length = file.read(&mut data).await?;
            data.truncate(length);
            crc32c = crc32c::crc32c_append(crc32c, &data);
            let is_last = length == 0;
            let chunk = pb::SnapshotFile {
                name: name.take().unwrap_or_default(),
                data: Bytes::from(data),
                last: is_last,
                crc32c,
                last_file: is_last && index + 1 == last,
            };
            let part = Some(pb::snapshot_chunk::Part::File(chunk));
            if to.send(pb::SnapshotChunk { part }).await.is_err() {
                return Ok(());
            }
            if is_last {
                break;
            }
        }
    }
    Ok(())
}

/// Writes the files that arrive to a directory of their own.
#[derive(Debug)]
pub(super) struct Receiver {
    dir: SnapshotDir,
    file: Option<(File, String, u32)>,
    is_complete: bool,
    fsync_seconds: Histogram,
}

impl Receiver {
    /// Receives into `path`, which must not exist.
    pub(super) async fn create(path: PathBuf, fsync_seconds: Histogram) -> std::io::Result<Self> {
        tokio::fs::create_dir_all(&path).await?;
        Ok(Self {
            dir: SnapshotDir::own(path),
            file: None,
            is_complete: false,
            fsync_seconds,
        })
    }

    /// Takes one chunk.
    pub(super) async fn write(&mut self, chunk: pb::SnapshotFile) -> Result<(), Status> {
        if !chunk.name.is_empty() {
            self.begin(&chunk.name).await?;
        }
        let Some((file, name, crc32c)) = &mut self.file else {
            return Err(Status::invalid_argument(
                "snapshot data before a file's name",
            ));
        };
        file.write_all(&chunk.data).await.map_err(|e| disk(&e))?;
        *crc32c = crc32c::crc32c_append(*crc32c, &chunk.data);
        if chunk.last {
            if *crc32c != chunk.crc32c {
                return Err(Status::data_loss(format!(
                    "checksum of snapshot file {name} is wrong"
                )));
            }
            let timer = self.fsync_seconds.start_timer();
            file.sync_all().await.map_err(|e| disk(&e))?;
            drop(timer);
            self.file = None;
            self.is_complete = chunk.last_file;
        }
        Ok(())
    }

    async fn begin(&mut self, name: &str) -> Result<(), Status> {
        // A name is a plain file name: what a peer sends must not reach outside the directory.
        if Path::new(name).file_name() != Some(name.as_ref()) || self.file.is_some() {
            return Err(Status::invalid_argument(format!(
                "unexpected snapshot file {name:?}"
            )));
        }
        let file = File::create_new(self.dir.path().join(name))
            .await
            .map_err(|e| disk(&e))?;
        self.file = Some((file, name.to_owned(), 0));
        Ok(())
    }

    /// The directory, once every file has arrived whole.
    pub(super) fn finish(self) -> Result<SnapshotDir, Status> {
        if self.is_complete {
            Ok(self.dir)
        } else {
            Err(Status::aborted("the snapshot ended before its last file"))
        }
    }
}

fn disk(error: &std::io::Error) -> Status {
    Status::internal(format!("writing a snapshot: {error}"))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::metrics::Metrics;

    async fn receiver(path: PathBuf) -> Receiver {
        let fsync_seconds = Metrics::default().disk.snapshot_file_fsync_seconds;
        Receiver::create(path, fsync_seconds).await.unwrap()
    }

    async fn sent(dir: &Path) -> Vec<pb::SnapshotFile> {
        let (sender, receiver) = tokio::sync::mpsc::channel(100);
        send_files(dir, &sender).await.unwrap();
        drop(sender);
        tokio_stream::wrappers::ReceiverStream::new(receiver)
            .filter_map(async |chunk| match chunk.part {
                Some(pb::snapshot_chunk::Part::File(file)) => Some(file),
                _ => None,
            })
            .collect()
            .await
    }

    #[tokio::test]
    async fn a_snapshot_arrives_as_it_was_sent_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let source = temp.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("a.sst"), vec![7; 3 * SNAPSHOT_CHUNK_BYTES + 1]).unwrap();
        std::fs::write(source.join("empty"), b"").unwrap();
        let files = sent(&source).await;

        let mut whole = receiver(temp.path().join("whole")).await;
        for file in files.clone() {
            whole.write(file).await.unwrap();
        }
        let whole = whole.finish().unwrap();
        for name in ["a.sst", "empty"] {
            let (sent, got) = (source.join(name), whole.path().join(name));
            assert_eq!(
                std::fs::read(sent).unwrap(),
                std::fs::read(got).unwrap(),
                "{name}"
            );
        }

        let mut cut = receiver(temp.path().join("cut")).await;
        for file in files[..files.len() - 1].iter().cloned() {
            cut.write(file).await.unwrap();
        }
        assert_eq!(cut.finish().unwrap_err().code(), tonic::Code::Aborted);
        assert!(
            !temp.path().join("cut").exists(),
            "what arrived in part is deleted"
        );

        let mut flipped = receiver(temp.path().join("flipped")).await;
        let mut first = files.clone();
        first[0].data = Bytes::from(vec![8; SNAPSHOT_CHUNK_BYTES]);
        let mut result = Ok(());
        for file in first {
            result = result.and(flipped.write(file).await);
        }
        assert_eq!(result.unwrap_err().code(), tonic::Code::DataLoss);
    }

    #[tokio::test]
    async fn a_file_name_cannot_leave_the_directory() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["../evil", "/evil", "a/b", ".."] {
            let mut target = receiver(temp.path().join("in")).await;
            let file = pb::SnapshotFile {
                name: name.into(),
                ..pb::SnapshotFile::default()
            };
            assert!(target.write(file).await.is_err(), "{name}");
        }
    }
}
