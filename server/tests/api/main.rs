//! The API's services over real members: what cannot be seen from one file of them alone.
#![allow(clippy::unwrap_used, reason = "what cannot go on fails its test here")]

mod election;
mod grpc;
mod leaderless;
mod lock;
mod member;
mod range;
mod snapshot;
mod watch;
