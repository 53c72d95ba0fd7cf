//! A checkpoint as one file: what `Maintenance.Snapshot` streams.
//!
//! A line that names the format, then for each file its name's length (4 bytes, little-endian), the
//! name, its size (8 bytes), its contents and their CRC-32C (4 bytes). A name's length of 0 ends it;
//! zeros may follow.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::StorageError;

/// What a bundle begins with.
pub const MAGIC: &[u8] = b"gonfalon snapshot 1\n";

/// Read and written at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes the files in `dir` into the new file `to`.
pub fn write(dir: &Path, to: &Path) -> Result<(), StorageError> {
    let failed = |error| StorageError::io(to, "writing a snapshot", error);
    let result = write_files(dir, to);
    if result.is_err() {
        // What was written of it is of no use; that it is in the way shows at the next attempt.
        let _ = std::fs::remove_file(to);
    }
    result.map_err(failed)
}

fn write_files(dir: &Path, to: &Path) -> std::io::Result<()> {
    let mut names = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<Vec<_>, _>>()?;
    names.sort();
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(to)?);
    out.write_all(MAGIC)?;
    for name in names {
        let file = File::open(dir.join(&name))?;
        let name = name.to_string_lossy();
        let length = u32::try_from(name.len()).map_err(std::io::Error::other)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(name.as_bytes())?;
        write_contents(file, &mut out)?;
    }
    out.write_all(&0u32.to_le_bytes())?;
    out.flush()
}

fn write_contents(file: File, out: &mut impl Write) -> std::io::Result<()> {
    let size = file.metadata()?.len();
    out.write_all(&size.to_le_bytes())?;
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file.take(size));
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut crc, mut written) = (0, 0);
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        crc = crc32c::crc32c_append(crc, &buffer[..length]);
        out.write_all(&buffer[..length])?;
        written += length as u64;
    }
    if written != size {
        return Err(std::io::Error::other(
            "a checkpoint's file changed its size",
        ));
    }
    out.write_all(&crc.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_holds_every_file_with_its_checksum() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("checkpoint");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("b"), b"second").unwrap();
        std::fs::write(dir.join("a"), b"").unwrap();
        let to = temp.path().join("bundle");
        write(&dir, &to).unwrap();
        let mut want = MAGIC.to_vec();
        for (name, contents) in [("a", &b""[..]), ("b", &b"second"[..])] {
            want.extend(1u32.to_le_bytes());
            want.extend(name.as_bytes());
            want.extend((contents.len() as u64).to_le_bytes());
            want.extend(contents);
            want.extend(crc32c::crc32c(contents).to_le_bytes());
        }
        want.extend(0u32.to_le_bytes());
        assert_eq!(std::fs::read(&to).unwrap(), want);
        assert!(
            write(&dir, &to).is_err(),
            "a file that exists is not overwritten"
        );
    }
}
