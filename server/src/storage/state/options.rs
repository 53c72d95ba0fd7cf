//! How the state's RocksDB is set up, and why.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType,
    LogLevel, Options,
};

/// Versions by key, newest first.
pub(super) const KV: &str = "kv";
/// Changes by revision.
pub(super) const REV: &str = "rev";
/// Leases by id.
pub(super) const LEASE: &str = "lease";
/// Applied log id, membership, revision, compactions, alarms, members, format.
pub(super) const META: &str = "meta";
/// All of them.
pub(super) const ALL: [&str; 4] = [KV, REV, LEASE, META];

/// All memtables together. When they are full everything is flushed, so this also bounds what a
/// start has to apply again.
const MEMTABLES_BYTES: usize = 16 << 20;
/// Blocks of files kept in memory. The present is in our own memory; this is for old revisions.
const CACHE_BYTES: usize = 16 << 20;

/// Options of the database.
pub(super) fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // Without a write-ahead log, column families that are flushed at different times would come
    // back from different times.
    options.set_atomic_flush(true);
    options.set_db_write_buffer_size(MEMTABLES_BYTES);
    // One flush and one compaction: two cores have other work.
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options
}

/// The column families.
pub(super) fn families() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    ALL.map(|name| ColumnFamilyDescriptor::new(name, family(name, &cache)))
        .into()
}

fn family(name: &str, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // Index and filter are read by pieces: as a whole, those of one large file (300 KB each) would
    // hardly fit into a shard of the cache, and each read of an old version would fetch them again.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);
    if name == KV {
        // Old versions are looked up one key at a time.
        table.set_bloom_filter(10.0, false);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(MEMTABLES_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}
