//! Feature flags: definitions are checked and compiled once, and evaluated without allocation.
//!
//! Everything here is a function of its arguments: no network, no disk, no clock (time is an
//! argument) and no chance. The same definition gives the same value to the same context on every
//! machine and in every version.

mod bucket;
mod context;
mod outcome;

pub use bucket::{ALGORITHM, Bucket, Percent, Seed};
pub use context::Context;
pub use outcome::{Details, ErrorCode, Reason};
