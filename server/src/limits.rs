//! Every bound of the server that is not an option, with its unit and the reason for its size.

use std::time::Duration;

/// Commands joined into one log entry. 256 gave 1.6 to 2 times the throughput of one each, and more
/// brought nothing.
pub const BATCH_COMMANDS_MAX: usize = 256;

/// Bytes of commands joined into one log entry; a single larger command goes alone.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one command: the largest request a server may be configured to take, and some room for
/// the encoding.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most that `--max-request-bytes` may be set to. Larger values belong elsewhere: one of them holds
/// up everything behind it in the log.
pub const REQUEST_BYTES_MAX: usize = 60 * 1024 * 1024;

/// Log entries of one member that are handed to Raft and not applied yet. Only full ones, and those
/// held back for [`HELD_BACK_MAX`], follow before the one ahead is applied.
pub const IN_FLIGHT_MAX: usize = 4;

/// Turns of the runtime without a new command after which an entry is not waited for any longer. A
/// request takes one from its socket to the queue, that of its connection; the others are for
/// connections that another thread looks after.
pub const GATHER_TURNS: usize = 3;

/// How long an entry waits for callers that were answered and mostly come back at once. A timer may
/// take a millisecond more.
pub const RETURN_MAX: Duration = Duration::from_millis(2);

/// How long commands wait behind an entry that is on its way. Longer than a round of a local
/// cluster, where joining them costs nothing; short beside the round of a distant one, where they
/// would wait for nothing.
pub const HELD_BACK_MAX: Duration = Duration::from_millis(20);

/// Commands waiting to be joined into an entry. etcd refuses at 5,000 entries between commit and
/// apply; ours are waiting before the log, where a caller's place costs less.
pub const QUEUE_COMMANDS_MAX: usize = 20_000;

/// Bytes of commands waiting to be joined into an entry.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Pause before a batch that certainly was not proposed is tried again: a new leader refuses
/// writes for about 8 ms after its election.
pub const PROPOSAL_RETRY: Duration = Duration::from_millis(5);

/// How often callers are looked for that wait in vain: a caller of a leader that is gone is told at
/// most so long after the next one has begun.
pub const PROPOSAL_SWEEP: Duration = Duration::from_millis(100);

/// Pause before asking again for a read index that could not be had.
pub const READ_INDEX_RETRY: Duration = Duration::from_millis(20);

/// Reads that wait for the next read index. Far more than clients have in flight: it bounds what
/// piles up, a few dozen bytes each, while there is no leader.
pub const READS_WAITING_MAX: usize = 100_000;

/// How long a member that cannot be reached is left alone before it is tried again. One that comes
/// back waits so long for what it has missed.
pub const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// Log entries applied, written to the state's database and told to watchers in one go.
pub const APPLY_ENTRIES_MAX: usize = 64;

/// Bytes of log entries applied in one go.
pub const APPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Keys from which on a request is long: it takes some milliseconds of the state, and whoever wants
/// the state meanwhile may wait so long that his thread is needed elsewhere.
pub const LONG_KEYS: usize = 1000;

/// Bytes of recent history kept in memory for watchers and for reads of recent revisions, at most:
/// some seconds of full load. What is older is read from disk.
pub const HISTORY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of recent history that are kept however small the present is: as many changes as wait for
/// a watcher ([`MAILBOX_EVENTS_MAX`]), about.
pub const HISTORY_BYTES_MIN: usize = 6 * 1024 * 1024;

/// How many times smaller than the present recent history is kept, between these bounds.
pub const HISTORY_SHARE: usize = 4;

/// How long nothing must have been written before memtables go to their files.
pub const REST_AFTER: Duration = Duration::from_secs(5);

/// Bytes in memtables that are not worth a file.
pub const REST_BYTES_MIN: u64 = 1024 * 1024;

/// Bytes of one message between members: one batch of entries, each of which may hold one command
/// of the largest size.
pub const PEER_MESSAGE_BYTES_MAX: usize = COMMAND_BYTES_MAX + 4 * 1024 * 1024;

/// Bytes of one chunk of a snapshot on its way to a follower.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of applied entries in the log, past which it is shortened whatever their number. 15,000
/// entries of one small command each, which Raft keeps anyway, take a tenth of that.
pub const LOG_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Bytes of entries that are left then, for followers that are a little behind.
pub const LOG_BYTES_KEPT: u64 = 64 * 1024 * 1024;

const _: () = assert!(LOG_BYTES_KEPT < LOG_BYTES_MAX);

/// Copies of everything that clients read at once. Each may keep as much on disk as the data took
/// when it was made, and more clients than one must not have to wait for one that is slow.
pub const BACKUPS_MAX: usize = 4;

/// How long a client may take nothing of the copy that it reads: then it loses its turn.
pub const BACKUP_STALL_MAX: Duration = Duration::from_mins(1);

/// Append requests on their way to one follower.
pub const APPEND_PIPELINE_MAX: usize = 64;

/// Leases that are revoked in one second because their time is up, as etcd bounds it.
pub const LEASE_EXPIRIES_PER_SECOND: usize = 1000;

const _: () = assert!(HISTORY_BYTES_MIN <= HISTORY_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_MAX < COMMAND_BYTES_MAX);
const _: () = assert!(APPLY_BYTES_MAX > BATCH_BYTES_MAX);
const _: () = assert!(PEER_MESSAGE_BYTES_MAX > COMMAND_BYTES_MAX + BATCH_BYTES_MAX);

/// Pause before a member's name and client URLs are proposed again.
pub const PUBLISH_RETRY: Duration = Duration::from_millis(200);

/// Events that wait for one stream of watchers; what comes on top is read from history. At 24 bytes
/// each, a stalled client costs 400 KB beside the events themselves, which all streams share.
pub const MAILBOX_EVENTS_MAX: usize = 16 * 1024;

/// Events for which a mailbox keeps memory while it is empty: 24 KB a stream, twice.
pub const MAILBOX_EVENTS_KEPT: usize = 1024;

/// Bytes of events that wait for one stream of watchers.
pub const MAILBOX_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Changes read from history in one go for watchers that are behind. The state's lock is held that
/// long: 1,000 changes that are in memory take about 50 us.
pub const REPLAY_EVENTS_MAX: usize = 1000;

/// Changes read in the first go, before it is known how large they are.
pub const REPLAY_EVENTS_FIRST: usize = 32;

/// Bytes of changes past which fewer are read in the next go.
pub const REPLAY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Watchers of one stream that one read of history serves.
pub const REPLAY_WATCHERS_MAX: usize = 64;

/// Bytes of events in one message to a watcher, if that leaves its revisions whole: many clients
/// take no more than 4 MiB at once.
pub const WATCH_MESSAGE_BYTES: usize = 512 * 1024;

const _: () = assert!(REPLAY_EVENTS_FIRST <= REPLAY_EVENTS_MAX);
const _: () = assert!(MAILBOX_EVENTS_KEPT <= MAILBOX_EVENTS_MAX);

/// Pause between two pings of another member, about as in etcd.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(4);

/// Pause before the others are asked again whether a new member may take part.
pub const FOUNDING_RETRY: Duration = Duration::from_millis(100);

/// How long a new member waits for the others before it says so in the log: they are started one
/// after the other.
pub const FOUNDING_PATIENCE: Duration = Duration::from_secs(2);

/// How often a new member says that it still waits for the others.
pub const FOUNDING_REPORT: Duration = Duration::from_secs(30);

/// How long a ping may go unanswered: then the member counts as not there.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

const _: () = assert!(PROBE_TIMEOUT.as_millis() < PROBE_INTERVAL.as_millis());
