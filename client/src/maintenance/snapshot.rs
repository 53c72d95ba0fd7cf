//! A member's whole store as one file, in pieces.
//!
//! The pieces put together are the file: the store, then the SHA-256 of it, 32 bytes. The last of
//! them is only handed over when it is the hash of those before.

use std::fs::OpenOptions;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use gonfalon_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::call::Call;
use crate::client::Client;
use crate::error::{Error, ErrorKind, classify};

const CALL: &str = "snapshot";

/// A member writes the file before it sends the first piece.
const OPEN_DEADLINE: Duration = Duration::from_mins(2);

const HASH_BYTES: usize = 32;

/// A snapshot on its way; see [`Maintenance::snapshot`](crate::Maintenance::snapshot). It has a
/// connection of its own: whoever takes his time delays nobody else.
#[must_use = "nothing is received until it is polled"]
pub struct SnapshotStream {
    stream: Streaming<pb::SnapshotResponse>,
    /// The first piece, which says how many bytes there are.
    first: Option<Bytes>,
    endpoint: std::sync::Arc<str>,
    began: Instant,
    version: String,
    total: u64,
    received: u64,
    hash: Option<Sha256>,
    is_over: bool,
}

/// What was written by [`SnapshotStream::save_to`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedSnapshot {
    /// The file's size.
    pub bytes: u64,
    /// The hash of the store in it, which is also its end.
    pub sha256: [u8; HASH_BYTES],
    /// The version of the store; empty: the server is older than etcd 3.6, and does not say.
    pub version: String,
}

impl SnapshotStream {
    pub(super) async fn open(client: &Client) -> Result<Self, Error> {
        let call = Call::reads(CALL)
            .local()
            .alone()
            .within(Some(OPEN_DEADLINE));
        let limit = client.response_bytes_max();
        let send = move |channel, request| async move {
            let mut stream = MaintenanceClient::new(channel)
                .max_decoding_message_size(limit)
                .snapshot(request)
                .await?;
            let first = stream.get_mut().message().await?;
            let ended = || Status::unavailable("the server ended the stream");
            let first = first.ok_or_else(ended)?;
            Ok(tonic::Response::new((stream.into_inner(), first)))
        };
        let began = Instant::now();
        let request = pb::SnapshotRequest::default();
        let ((stream, first), endpoint) = client.transport().answer(call, request, send).await?;
        Ok(Self {
            total: first.remaining_bytes + first.blob.len() as u64,
            version: first.version,
            first: Some(first.blob),
            stream,
            endpoint: endpoint.name(),
            began,
            received: 0,
            hash: Some(Sha256::new()),
            is_over: false,
        })
    }

    /// How large the file will be, its hash included.
    pub fn total_bytes(&self) -> u64 {
        self.total + HASH_BYTES as u64
    }

    /// The version of the store; empty: the server is older than etcd 3.6, and does not say.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The next piece; none after the last. It ends after its first error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`]: the hash is not that of what was received;
    /// [`ErrorKind::Unavailable`]: the member, or the way to it, failed. Begin again.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if self.is_over {
            return None;
        }
        let piece = self.receive().await;
        let is_hash = self.hash.is_none();
        self.is_over = piece.is_err() || is_hash;
        Some(piece)
    }

    async fn receive(&mut self) -> Result<Bytes, Error> {
        let blob = match self.first.take() {
            Some(blob) => blob,
            None => match self.stream.message().await {
                Ok(Some(message)) => message.blob,
                Ok(None) => {
                    let message = format!("it ended after {} bytes", self.received);
                    return Err(self.error(ErrorKind::Unavailable, message));
                }
                Err(status) => {
                    let error = classify(CALL, status).error;
                    return Err(self.about(error));
                }
            },
        };
        let left = self.total - self.received;
        if left > 0 {
            let bytes = blob.len() as u64;
            if bytes > left {
                let message = format!("{bytes} bytes came where {left} were left");
                return Err(self.error(ErrorKind::Corrupt, message));
            }
            self.received += bytes;
            if let Some(hash) = &mut self.hash {
                hash.update(&blob);
            }
            return Ok(blob);
        }
        let hash = self.hash.take().map(Sha256::finalize);
        if hash.is_some_and(|hash| hash[..] == blob[..]) {
            Ok(blob)
        } else {
            let message = "what was received is not what was sent: the hashes differ";
            Err(self.error(ErrorKind::Corrupt, message.into()))
        }
    }

    fn error(&self, kind: ErrorKind, message: String) -> Error {
        self.about(Error::new(kind, CALL, message))
    }

    fn about(&self, error: Error) -> Error {
        let error = error.at(self.endpoint.clone());
        error.after(1, self.began.elapsed())
    }

    /// Writes the rest into the file `path`, all or nothing: into another beside it, which takes its
    /// name when everything is on disk and the hash is right. Only the owner may read it.
    ///
    /// # Errors
    ///
    /// As [`SnapshotStream::next`]; [`ErrorKind::File`]: the file cannot be written.
    ///
    /// # Panics
    ///
    /// If a piece was taken before.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped, what was at `path` is still there, or the whole of the new, and nothing is
    /// beside it.
    pub async fn save_to(mut self, path: impl AsRef<Path>) -> Result<SavedSnapshot, Error> {
        assert!(self.first.is_some(), "the file begins with the first piece");
        let path = path.as_ref();
        let written = self.write(path).await;
        written.map_err(|failed| match failed {
            Failed::Receiving(error) => error,
            Failed::Writing(why) => self
                .error(ErrorKind::File, format!("{}: {why}", path.display()))
                .because(why),
        })
    }

    async fn write(&mut self, path: &Path) -> Result<SavedSnapshot, Failed> {
        let (part, mut file) = Part::create(path)?;
        let mut sha256 = [0; HASH_BYTES];
        let mut bytes = 0;
        while let Some(piece) = self.next().await {
            let piece = piece.map_err(Failed::Receiving)?;
            file.write_all(&piece).await?;
            bytes += piece.len() as u64;
            if self.is_over {
                sha256.copy_from_slice(&piece);
            }
        }
        file.flush().await?;
        file.into_inner().sync_all().await?;
        part.becomes(path).await?;
        Ok(SavedSnapshot {
            bytes,
            sha256,
            version: self.version.clone(),
        })
    }
}

enum Failed {
    Receiving(Error),
    Writing(std::io::Error),
}

impl From<std::io::Error> for Failed {
    fn from(why: std::io::Error) -> Self {
        Self::Writing(why)
    }
}

impl std::fmt::Debug for SnapshotStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotStream")
            .field("total", &self.total)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

/// The file beside, gone unless it was given its name.
struct Part(Option<PathBuf>);

/// Larger than a piece: one write of the file for many of them.
const BUFFER_BYTES: usize = 1024 * 1024;

impl Part {
    /// Not in the background, where it would go on when this is given up.
    fn create(path: &Path) -> std::io::Result<(Self, tokio::io::BufWriter<File>)> {
        let Some(name) = path.file_name() else {
            return Err(IoErrorKind::InvalidInput.into());
        };
        let mut beside = name.to_owned();
        beside.push(format!(".{:016x}.part", fastrand::u64(..)));
        let beside = path.with_file_name(beside);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = File::from_std(options.open(&beside)?);
        let file = tokio::io::BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok((Self(Some(beside)), file))
    }

    async fn becomes(mut self, path: &Path) -> std::io::Result<()> {
        let part = self.0.as_ref().expect("only this takes it");
        std::fs::rename(part, path)?;
        self.0 = None;
        // The name is on disk only when the directory is.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = File::open(dir.unwrap_or(Path::new("."))).await?;
        dir.sync_all().await
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(part) = self.0.take() {
            // Whoever cannot remove it could not write it either.
            let _ = std::fs::remove_file(part);
        }
    }
}
