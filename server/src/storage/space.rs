//! Room on the disk: what is about to need much of it asks first.
//!
//! A disk that runs full under a write ends the member; a request that may be refused must not be
//! what fills it.

use std::path::Path;

use super::StorageError;

/// Fails unless the disk that holds `dir` has `needed` bytes left.
pub(super) fn require(dir: &Path, needed: u64) -> Result<(), StorageError> {
    let disk = rustix::fs::statvfs(dir)
        .map_err(|error| StorageError::io(dir, "asking for free space", error))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed {
        return Err(StorageError::NoSpace {
            dir: dir.to_owned(),
            needed,
            free,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fits_on_the_disk_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        require(dir.path(), 1).expect("a byte fits");
        match require(dir.path(), u64::MAX) {
            Err(StorageError::NoSpace { needed, free, .. }) => assert!(free < needed),
            other => panic!("no disk is so large, but: {other:?}"),
        }
    }
}
