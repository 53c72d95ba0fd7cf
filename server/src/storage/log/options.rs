//! How the log's RocksDB is set up, and why.

use rocksdb::{ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel, Options};

/// Entries by index.
pub(super) const LOG: &str = "log";
/// Vote, committed, purged, witness, format.
pub(super) const META: &str = "meta";

/// One of these fills in about a second of full load, then goes to a file. Small, because the
/// write-ahead logs, which are read back at every start, are as large as the memtables.
const MEMTABLE_BYTES: usize = 8 << 20;
/// Filling, and up to three waiting to be written: a disk that is busy with fsyncs may take a while.
const MEMTABLES_MAX: i32 = 4;
/// Bounds what a start has to read. Above all memtables together, so that it never forces a flush.
const WAL_TOTAL_BYTES: u64 = 48 << 20;
const _: () = assert!(WAL_TOTAL_BYTES > MEMTABLE_BYTES as u64 * MEMTABLES_MAX as u64);
/// Files that are written over instead of created: their blocks exist, so fdatasync has no inode
/// to write. Measured up to 2.2 times faster on batched appends.
const WALS_RECYCLED: usize = 4;

/// Options of the database.
pub(super) fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // `kTolerateCorruptedTailRecords` would refuse damage in the middle, but RocksDB silently turns
    // recycling off with it. This mode stops at the damage; that nothing fsynced lay behind it is
    // proven by the witness and the mark.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_recycle_log_file_num(WALS_RECYCLED);
    options.set_max_total_wal_size(WAL_TOTAL_BYTES);
    // Appends stay in RocksDB's buffer until the sync thread writes and fsyncs them in one go.
    options.set_manual_wal_flush(true);
    options.set_track_and_verify_wals_in_manifest(true);
    // Both column families reach their files together, so that no write-ahead log is kept for the
    // sake of a few bytes of meta data.
    options.set_atomic_flush(true);
    // One flush and one compaction: two cores have other work.
    options.set_max_background_jobs(2);
    quiet(&mut options);
    options
}

/// The column families.
pub(super) fn families() -> [ColumnFamilyDescriptor; 2] {
    let mut options = Options::default();
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(MEMTABLES_MAX);
    // Entries arrive in order of their keys, so files move down without being rewritten.
    options.set_compression_type(DBCompressionType::None);
    let log = ColumnFamilyDescriptor::new(LOG, options);

    let mut options = Options::default();
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(MEMTABLES_MAX);
    options.set_compression_type(DBCompressionType::None);
    [log, ColumnFamilyDescriptor::new(META, options)]
}

/// Turns off the statistics threads and bounds RocksDB's own text log.
fn quiet(options: &mut Options) {
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
}
