//! A checkpoint as one file: what `Maintenance.Snapshot` streams.
//!
//! A line that names the format, then for each file its name's length (4 bytes, little-endian), the
//! name, its size (8 bytes), its contents and their CRC-32C (4 bytes). A name's length of 0 ends it;
//! zeros may follow.
//!
//! The file is never written here: it is put together while it is read, since a copy would need as
//! much disk as the data. How long it will be is known before.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Cursor, Error, ErrorKind, Read, Result};
use std::path::{Path, PathBuf};

/// What a bundle begins with.
pub const MAGIC: &[u8] = b"gonfalon snapshot 1\n";

/// Bytes around the contents of a file, but its name: two lengths and a checksum.
const AROUND_BYTES: u64 = 4 + 8 + 4;

/// The files of a directory as one.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    size_bytes: u64,
    /// Names and sizes of the files that are still to come, in their order.
    files: VecDeque<(String, u64)>,
    /// What is read before anything else.
    next: Cursor<Vec<u8>>,
    /// What is read after that.
    contents: Option<Contents>,
    is_ended: bool,
}

/// What is left of one file.
#[derive(Debug)]
struct Contents {
    file: File,
    left_bytes: u64,
    crc32c: u32,
}

impl Bundle {
    /// Of the files in `dir`, which must not change any more. Blocks.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            let name =
                name.map_err(|name| Error::other(format!("a file is called {}", name.display())))?;
            files.push((name, entry.metadata()?.len()));
        }
        files.sort();
        let of_file = |(name, size): &(String, u64)| AROUND_BYTES + name.len() as u64 + size;
        let end_bytes = 4;
        Ok(Self {
            dir: dir.to_owned(),
            size_bytes: MAGIC.len() as u64 + files.iter().map(of_file).sum::<u64>() + end_bytes,
            files: files.into(),
            next: Cursor::new(MAGIC.to_vec()),
            contents: None,
            is_ended: false,
        })
    }

    /// Bytes of all of it, whatever of it was read already.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Opens the next file; what stands before its contents is read next.
    fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        let length = u32::try_from(name.len()).map_err(Error::other)?;
        let mut head = length.to_le_bytes().to_vec();
        head.extend(name.as_bytes());
        head.extend(size.to_le_bytes());
        self.next = Cursor::new(head);
        self.contents = Some(Contents {
            file: File::open(self.dir.join(name))?,
            left_bytes: size,
            crc32c: 0,
        });
        Ok(())
    }
}

impl Read for Bundle {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        loop {
            let length = self.next.read(to)?;
            if length > 0 {
                return Ok(length);
            }
            if let Some(contents) = &mut self.contents {
                if contents.left_bytes > 0 {
                    return contents.read(to);
                }
                self.next = Cursor::new(contents.crc32c.to_le_bytes().to_vec());
                self.contents = None;
            } else if let Some((name, size)) = self.files.pop_front() {
                self.begin(&name, size)?;
            } else if self.is_ended {
                return Ok(0);
            } else {
                self.next = Cursor::new(0u32.to_le_bytes().to_vec());
                self.is_ended = true;
            }
        }
    }
}

impl Contents {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        let room = usize::try_from(self.left_bytes).map_or(to.len(), |left| left.min(to.len()));
        let length = self.file.read(&mut to[..room])?;
        if length == 0 {
            let why = "a checkpoint's file is shorter than it was";
            return Err(Error::new(ErrorKind::UnexpectedEof, why));
        }
        self.crc32c = crc32c::crc32c_append(self.crc32c, &to[..length]);
        self.left_bytes -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_holds_every_file_with_its_checksum() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("b"), b"second").unwrap();
        std::fs::write(temp.path().join("a"), b"").unwrap();
        let mut want = MAGIC.to_vec();
        for (name, contents) in [("a", &b""[..]), ("b", &b"second"[..])] {
            want.extend(1u32.to_le_bytes());
            want.extend(name.as_bytes());
            want.extend((contents.len() as u64).to_le_bytes());
            want.extend(contents);
            want.extend(crc32c::crc32c(contents).to_le_bytes());
        }
        want.extend(0u32.to_le_bytes());
        for piece in [1, 7, 4096] {
            let mut bundle = Bundle::open(temp.path()).unwrap();
            let (mut got, mut buffer) = (Vec::<u8>::new(), vec![0; piece]);
            loop {
                let length = bundle.read(&mut buffer).unwrap();
                if length == 0 {
                    break;
                }
                got.extend(&buffer[..length]);
            }
            assert_eq!(got, want, "read {piece} bytes at a time");
            assert_eq!(bundle.size_bytes(), want.len() as u64, "known before");
        }
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a"), b"contents").unwrap();
        let mut bundle = Bundle::open(temp.path()).unwrap();
        std::fs::write(temp.path().join("a"), b"cont").unwrap();
        let error = bundle.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
