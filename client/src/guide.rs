//! What to know before relying on this crate: no code, only its rules in one place.
//!
//! # What a failure means
//!
//! Every [`Error`](crate::Error) answers three questions. [`kind`](crate::Error::kind) says what
//! happened; [`outcome`](crate::Error::outcome) whether a write took place;
//! [`is_retryable`](crate::Error::is_retryable) whether the same call can simply be made again.
//! [`code`](crate::Error::code) is the kind as a number that never changes.
//!
//! | outcome | what is known | what to do |
//! |---|---|---|
//! | [`NotApplied`](crate::Outcome::NotApplied) | it did not happen and will not | again, if it is retryable |
//! | [`Applied`](crate::Outcome::Applied) | it happened; what failed came after | read what came of it |
//! | [`Unknown`](crate::Outcome::Unknown) | it was sent and not answered; it may still happen | read first, or write with a comparison that the second time fails |
//!
//! The client itself sends a call again only if that is harmless: reads, writes that were certainly
//! not sent, and those for which twice is the same as once (revocations, renewals, grants under an id
//! that nobody else has, alarms, what enables or disables users, gives them a password, a role or a
//! permission, a member's addresses). There is a budget for it, so that a cluster in trouble is not
//! buried in repetitions.
//!
//! | kind | code | what to do |
//! |---|--:|---|
//! | [`Connect`](crate::ErrorKind::Connect) | 1 | again: nothing was sent. Check addresses and whether servers run |
//! | [`Unavailable`](crate::ErrorKind::Unavailable) | 2 | again if it is retryable; else read first |
//! | [`NoLeader`](crate::ErrorKind::NoLeader) | 3 | wait: the cluster elects, or has no majority |
//! | [`Timeout`](crate::ErrorKind::Timeout) | 4 | read first if the outcome is unknown; a longer deadline |
//! | [`Closed`](crate::ErrorKind::Closed) | 5 | nothing: this client has ended |
//! | [`TooManyRequests`](crate::ErrorKind::TooManyRequests) | 6 | later, and less |
//! | [`Tls`](crate::ErrorKind::Tls) | 7 | renew the certificate that the message speaks of, theirs or ours |
//! | [`NotLeader`](crate::ErrorKind::NotLeader) | 8 | ask the leader: give the client every endpoint |
//! | [`Unauthenticated`](crate::ErrorKind::Unauthenticated) | 10 | correct the name or the password |
//! | [`PermissionDenied`](crate::ErrorKind::PermissionDenied) | 11 | have the role changed |
//! | [`AuthNotEnabled`](crate::ErrorKind::AuthNotEnabled) | 12 | enable authentication, or do without users |
//! | [`NotFound`](crate::ErrorKind::NotFound) | 20 | create it, or live without |
//! | [`AlreadyExists`](crate::ErrorKind::AlreadyExists) | 21 | use what is there |
//! | [`LeaseNotFound`](crate::ErrorKind::LeaseNotFound) | 22 | grant another; its keys are gone |
//! | [`LeaseExists`](crate::ErrorKind::LeaseExists) | 23 | choose another id, or let the client choose |
//! | [`Compacted`](crate::ErrorKind::Compacted) | 30 | read the present, and watch from there |
//! | [`FutureRevision`](crate::ErrorKind::FutureRevision) | 31 | again: that member is behind |
//! | [`Restored`](crate::ErrorKind::Restored) | 32 | forget what was read, and read the present |
//! | [`QuotaExceeded`](crate::ErrorKind::QuotaExceeded) | 40 | compact, defragment, delete; then disarm the alarm |
//! | [`TooLarge`](crate::ErrorKind::TooLarge) | 41 | smaller pieces |
//! | [`InvalidArgument`](crate::ErrorKind::InvalidArgument) | 42 | correct the call |
//! | [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) | 43 | bring the cluster into the state that the message names |
//! | [`Unimplemented`](crate::ErrorKind::Unimplemented) | 44 | a newer server, or do without |
//! | [`WouldBlock`](crate::ErrorKind::WouldBlock) | 45 | await instead |
//! | [`Lost`](crate::ErrorKind::Lost) | 51 | stop what depended on it, and begin anew |
//! | [`Lagged`](crate::ErrorKind::Lagged) | 50 | read faster, ask for a larger queue or another policy; watch again from its revision |
//! | [`Internal`](crate::ErrorKind::Internal) | 60 | report it |
//! | [`Corrupt`](crate::ErrorKind::Corrupt) | 61 | write nothing more; compare the members, restore the one that differs |
//! | [`File`](crate::ErrorKind::File) | 70 | look at the file that the message names |
//!
//! # What happens when a future is dropped
//!
//! Every public async function says it under "Cancel safety"; these are the rules behind it. *Safe*
//! means that the call can be made again as if it had not been made, as in a branch of
//! `tokio::select!`.
//!
//! | what is dropped | what happens |
//! |---|---|
//! | reads: `get`, `range`, pages, `lease_info`, `leases`, `members`, `status`, `leader`, `contenders` | safe |
//! | waiting: [`Watch::next`](crate::Watch::next), changes of caches and leaders, `lost`, [`Cache::at_least`](crate::Cache::at_least), [`Cache::linearizable`](crate::Cache::linearizable) | safe; what would have come comes next time |
//! | beginning: `watch`, `cache`, `cached`, `observe`, [`Client::connect`](crate::Client::connect) | safe; nothing is left behind |
//! | writes: `put`, `put_if_absent`, `compare_and_swap`, `delete`, `txn`, `compact`, `proclaim`, `enqueue`, `dequeue`, adding to a counter, `stm` | unknown: it may have happened, or happen later |
//! | [`grant`](crate::Client::grant) | safe; a lease that was granted all the same is revoked in the background, unless its id was chosen |
//! | [`renew`](crate::Client::renew), [`renew_now`](crate::Lease::renew_now), [`adopt`](crate::Client::adopt) | safe; the lease may have been renewed once |
//! | [`revoke`](crate::Lease::revoke) | it is lost here; on the server it may go on until its time is up |
//! | acquiring a lock or a permit, campaigning, claiming an item of a queue | safe; the place, or what was claimed, is given up in the background |
//! | releasing, resigning, giving an item back | safe; goes on in the background |
//! | [`close`](crate::Client::close) | safe; goes on in the background |
//!
//! # When a lease is lost
//!
//! A [`Lease`](crate::Lease) is held until a moment that is computed here, from before the last
//! renewal was sent, on a clock that goes on while the machine sleeps; the server's own count ends
//! later. So as long as [`is_held`](crate::Lease::is_held) is true no server has ended it. When it is
//! lost, it is lost for good:
//!
//! 1. Stop what needs it. [`Lease::token`](crate::Lease::token) is cancelled, and
//!    [`lost`](crate::Lease::lost) returns; guards of locks and leaderships have the same two.
//! 2. Do not write what depends on it, not even "quickly": between any check and the write the
//!    process may be stopped for longer than the lease. Write with the guard's `txn()`, which takes
//!    place only while it is held, or hand the `fence()` to a resource that refuses lower ones.
//! 3. Begin anew: another [`grant`](crate::Client::grant), another campaign. Keys that went with the
//!    lease are gone, or about to be.
//!
//! | [`LeaseStatus`](crate::LeaseStatus) | meaning for a TTL of 30 s |
//! |---|---|
//! | `Held` | the last renewal was sent less than 15 s ago |
//! | `Suspect` | it was sent 15 s to 28.47 s ago: still safe, and the moment to stop taking new work |
//! | `Lost` | from then on, or from when the server said that it is gone |
//!
//! A renewal is sent each third of the TTL; when its answer takes longer than a sixth, it is sent on
//! a second connection too, to another member if there is one. The thread that does this is not the
//! application's, which may block its own as it likes; an application that wants to lose its leases
//! when it hangs says so with [`Grant::health`](crate::Grant::health). Should that
//! thread panic, in a recorder of metrics for example, it begins anew with the leases that it had;
//! should it die, they are lost at once, and another [`grant`](crate::Client::grant) fails with
//! `Internal`.
//!
//! # While the cluster is away
//!
//! A call fails when its deadline is over or too many were repeated; watches, caches and leases go on
//! by themselves. So do recipes that wait: once a contender has his place in a line, what passes
//! (`Connect`, `Unavailable`, `NoLeader`, `Timeout`, `TooManyRequests`, `FutureRevision`) does not
//! end the wait for as long as his lease is held, and [`Election::run`](crate::Election::run)
//! campaigns again for ever. All else ends them at once.
//!
//! # Quiet, cut off, or gone
//!
//! | what is seen | meaning |
//! |---|---|
//! | [`WatchState::Live`](crate::WatchState::Live) and no batches | nothing happened |
//! | [`WatchState::Resuming`](crate::WatchState::Resuming) | no member reports changes now; nothing will be lost or repeated |
//! | [`ConnectionState::NoLeader`](crate::ConnectionState::NoLeader) | a member answers, but is cut off from the others, or these are too few |
//! | [`ConnectionState::Failing`](crate::ConnectionState::Failing) | no answer |
//! | [`CacheStatus::age`](crate::CacheStatus::age) up to about a second | a member reports changes, and has just answered |
//! | an age that grows, of a cache that is [`Live`](crate::CacheSource::Live) | nothing is heard of the member any more; after 15 s ([`keep_alive`](crate::ClientBuilder::keep_alive)) the connection is given up, and the cache is [`Resuming`](crate::CacheSource::Resuming) |
//! | [`CacheStatus::cut_off_since`](crate::CacheStatus::cut_off_since) | the cache shows what was true then |
//!
//! [`Watch::state_changes`](crate::Watch::state_changes), [`Cache::status_changes`](crate::Cache::status_changes)
//! and [`Client::state`](crate::Client::state) tell of changes.
//!
//! Watches demand a leader of the member that they ask, so that one that is partitioned ends them
//! rather than stay silent.
//!
//! # Limits and defaults
//!
//! | what | default | set by |
//! |---|---|---|
//! | a connection may take | 3 s | [`connect_timeout`](crate::ClientBuilder::connect_timeout) |
//! | a call may take, all attempts together | 5 s | [`ClientBuilder::deadline`](crate::ClientBuilder::deadline), or the call's own `deadline` |
//! | pause before an attempt | random, up to 50 ms, doubling to 5 s | [`backoff`](crate::ClientBuilder::backoff) |
//! | attempts beyond the first, of all calls | 20 %, and ten at once | [`retry_share`](crate::ClientBuilder::retry_share) |
//! | a silent connection is pinged every | 10 s, given up after 5 s more | [`keep_alive`](crate::ClientBuilder::keep_alive) |
//! | an answer, or a message of a watch, may have | 64 MiB | [`response_bytes_max`](crate::ClientBuilder::response_bytes_max) |
//! | a request may have | what the server allows; etcd: 1.5 MiB, 128 operations | the server |
//! | a watch's queue holds | 16 MiB, then the watch fails | [`WatchBuilder::queue`](crate::WatchBuilder::queue) |
//! | a member whose changes a cache shows is asked whether it is there | every second | |
//! | a cache lists | 10,000 keys at a time | [`CacheBuilder::page_keys`](crate::CacheBuilder::page_keys) |
//! | a lock's or a candidate's own lease | 15 s | `ttl` |
//! | closing may take | the deadline of calls | [`close_within`](crate::Client::close_within) |
//! | connections | two for each endpoint in use, and one for leases, a second while one is slow; one for each snapshot that is read | |
//! | threads | none of its own; one with the first lease, and for [health checks](crate::Grant::health) while they run; two for all of [`blocking`](crate::blocking) | |
//!
//! # Watching a client at work
//!
//! Metrics go to whatever recorder of the crate `metrics` the application has installed; the table of
//! them is `docs/client-metrics.md`. Without a recorder they cost next to nothing.
//!
//! Every call has a span of the level `debug`, named `call`, with OpenTelemetry's names where they
//! exist (`rpc.service`, `rpc.method`, `server.address`, `error.type`) and `call`, `attempts` and
//! `outcome` beside them. What happens to watches is told at `debug`, what goes wrong with leases at
//! `warn`. Neither values nor passwords are in any of it.
