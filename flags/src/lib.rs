//! Feature flags: definitions are checked and compiled once, and evaluated without allocation.
//!
//! Everything here is a function of its arguments: no network, no disk, no clock (time is an
//! argument) and no chance. The same definition gives the same value to the same context on every
//! machine and in every version.

pub mod flagd;

mod bucket;
mod compile;
mod condition;
mod context;
mod definition;
mod eval;
mod fields;
mod moment;
mod outcome;
mod rollout;
mod set;
mod split;

pub use bucket::{ALGORITHM, Bucket, Percent, Seed};
pub use context::Context;
pub use definition::{DEFINITION_BYTES_MAX, Definition, Kind};
pub use eval::FlagValue;
pub use fields::DefinitionError;
pub use moment::Moment;
pub use outcome::{Details, ErrorCode, Reason};
pub use set::{FlagId, FlagSet, Locate, Problem, Refused};
pub use split::{NoRoom, Split};
