//! A snapshot on the wire: blobs of 32 KiB, then their SHA-256.
//!
//! etcd's tools demand that the whole is 32 bytes more than a multiple of 512, the size of a page
//! being such a multiple there. Zeros fill up what our file is short of it.
//!
//! A thread that may block reads some blobs ahead of the client, and gives the file up if the client
//! takes none for [`BACKUP_STALL_MAX`]: others wait for their turn.

use std::io::{self, Read};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use gonfalon_proto::etcdserverpb as pb;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::Status;

use crate::api::status::{self, Refusal};
use crate::limits::BACKUP_STALL_MAX;
use crate::store::Backup;
use crate::version;

const BLOB_BYTES: usize = 32 * 1024;
/// Blobs read ahead of the client: the disk works while the network does.
const READ_AHEAD: usize = 8;
/// The size of what precedes the checksum is a multiple of this.
const UNIT_BYTES: u64 = 512;

const _: () = assert!(
    (BLOB_BYTES as u64).is_multiple_of(UNIT_BYTES),
    "only the last blob is filled up"
);

/// The messages of the snapshot, which goes with the stream, however that ends.
pub(super) fn blobs(backup: Backup) -> BoxStream<'static, Result<pb::SnapshotResponse, Status>> {
    let size = backup.size_bytes();
    messages(backup, size)
}

/// The messages of a file of `size` bytes.
fn messages(
    file: impl Read + Send + 'static,
    size: u64,
) -> BoxStream<'static, Result<pb::SnapshotResponse, Status>> {
    let sending = Sending {
        file,
        remaining: size.next_multiple_of(UNIT_BYTES),
        hash: Sha256::new(),
    };
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let runtime = Handle::current();
    // Reading blocks, and a checksum of so much takes a while. Ends with its reader.
    let reading = tokio::task::spawn_blocking(move || sending.send(&sender, &runtime));
    stream::unfold(Some((receiver, reading)), |rest| async {
        let (mut receiver, reading) = rest?;
        if let Some(message) = receiver.recv().await {
            return Some((Ok(message), Some((receiver, reading))));
        }
        // Nothing more comes: whether that was all is known now.
        let end = reading
            .await
            .unwrap_or_else(|error| Err(status::storage(error)));
        end.err().map(|refusal| (Err(refusal.into()), None))
    })
    .boxed()
}

/// What is still to be sent.
struct Sending<R> {
    file: R,
    /// Bytes, with those that fill up the last unit.
    remaining: u64,
    hash: Sha256,
}

impl<R: Read> Sending<R> {
    /// Sends all messages as fast as they are taken, or as many as somebody takes. Blocks.
    fn send(
        self,
        to: &mpsc::Sender<pb::SnapshotResponse>,
        runtime: &Handle,
    ) -> Result<(), Refusal> {
        let mut rest = Some(self);
        while let Some(sending) = rest {
            let (message, next) = sending.next().map_err(status::storage)?;
            let taken = async { tokio::time::timeout(BACKUP_STALL_MAX, to.send(message)).await };
            match runtime.block_on(taken) {
                Ok(Ok(())) => rest = next,
                // The client has gone away.
                Ok(Err(_)) => return Ok(()),
                Err(_) => {
                    tracing::warn!("a client does not read the snapshot that it asked for");
                    return Err(Refusal::SnapshotStalled);
                }
            }
        }
        Ok(())
    }

    /// The next message, and what comes after it.
    fn next(mut self) -> io::Result<(pb::SnapshotResponse, Option<Self>)> {
        if self.remaining == 0 {
            let checksum = self.hash.finalize();
            return Ok((message(Bytes::copy_from_slice(&checksum), 0), None));
        }
        let blob = self.blob()?;
        self.hash.update(&blob);
        self.remaining -= blob.len() as u64;
        Ok((message(blob, self.remaining), Some(self)))
    }

    /// Reads as much as a blob holds; zeros stand for what lies behind the end of the file.
    fn blob(&mut self) -> io::Result<Bytes> {
        let size = usize::try_from(self.remaining).map_or(BLOB_BYTES, |left| left.min(BLOB_BYTES));
        let mut blob = Vec::with_capacity(size);
        (&mut self.file).take(size as u64).read_to_end(&mut blob)?;
        let missing = size - blob.len();
        if missing as u64 >= UNIT_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the snapshot is cut short",
            ));
        }
        blob.resize(size, 0);
        Ok(blob.into())
    }
}

fn message(blob: Bytes, remaining_bytes: u64) -> pb::SnapshotResponse {
    pb::SnapshotResponse {
        header: None,
        remaining_bytes,
        blob,
        version: version::STORAGE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(content: &[u8]) -> Vec<pb::SnapshotResponse> {
        let file = io::Cursor::new(content.to_vec());
        let stream = messages(file, content.len() as u64);
        stream.map(Result::unwrap).collect().await
    }

    /// Zeros without end, and word of when nobody has them any more.
    struct Watched(Option<tokio::sync::oneshot::Sender<()>>);

    impl Read for Watched {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            to.fill(0);
            Ok(to.len())
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            let given_up = self.0.take().expect("it is dropped once");
            // A test that has ended does not want to know.
            let _ = given_up.send(());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_nobody_reads_is_given_up_and_its_reader_is_told() {
        let (sender, mut given_up) = tokio::sync::oneshot::channel();
        let mut stream = messages(Watched(Some(sender)), 1 << 40);
        stream.next().await.unwrap().expect("a first blob");
        let began = tokio::time::Instant::now();
        while given_up.try_recv().is_err() {
            assert!(began.elapsed() < 100 * BACKUP_STALL_MAX, "it is kept");
            // The thread that reads does not see that time passes, and needs some of its own.
            tokio::time::advance(BACKUP_STALL_MAX / 4).await;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(began.elapsed() >= BACKUP_STALL_MAX);
        let mut read = 0;
        let status = loop {
            match stream.next().await.expect("an end that says why") {
                Ok(_) => read += 1,
                Err(status) => break status,
            }
        };
        assert_eq!(read, READ_AHEAD, "what was read ahead");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_snapshot_is_its_blobs_zeros_and_a_checksum() {
        for size in [
            0,
            1,
            511,
            512,
            513,
            BLOB_BYTES,
            BLOB_BYTES + 1,
            3 * BLOB_BYTES + 700,
        ] {
            let content: Vec<u8> = (0..=250).cycle().take(size).collect();
            let mut messages = sent(&content).await;
            let checksum = messages.pop().expect("a checksum comes last");

            let total: usize = messages.iter().map(|message| message.blob.len()).sum();
            assert_eq!((total + checksum.blob.len()) % 512, 32, "{size} bytes");
            let mut left = total as u64;
            for message in &messages {
                assert!(message.blob.len() <= BLOB_BYTES, "{size} bytes");
                left -= message.blob.len() as u64;
                assert_eq!(message.remaining_bytes, left, "{size} bytes");
            }
            let whole: Vec<u8> = messages
                .iter()
                .flat_map(|message| message.blob.to_vec())
                .collect();
            assert_eq!(whole[..size], content);
            assert!(whole[size..].iter().all(|byte| *byte == 0), "{size} bytes");
            assert_eq!(
                checksum.blob,
                Sha256::digest(&whole).as_slice(),
                "{size} bytes"
            );
            assert_eq!(checksum.remaining_bytes, 0);
            assert!(
                messages.iter().all(|message| message.header.is_none()),
                "no headers"
            );
        }
    }
}
