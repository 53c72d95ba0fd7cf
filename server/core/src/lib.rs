//! The replicated state machine of Gonfalon.
//!
//! Every member applies the same commands in the same order and must end with the same bytes, so
//! nothing here waits, reads a clock, draws a random number or touches a disk. Identifiers and
//! deadlines are chosen by whoever proposes a command and travel inside it.
//!
//! [`State::apply`] is the only function that changes state. Reads go through [`State::range`] and
//! its neighbours; history that is no longer in memory is read through [`History`], which the
//! storage layer implements. [`watch::Hub`] is one member's view of its watchers: it is not
//! replicated, and lives here because it is as pure as the rest.

mod answer;
mod changes;
pub mod command;
mod error;
mod history;
mod kv;
mod lease;
mod load;
mod mvcc;
mod range;
mod revision;
mod state;
mod txn;
pub mod watch;
mod weight;

pub use answer::{
    Answer, Count, DeleteAnswer, OpAnswer, OpResult, Page, PutAnswer, RangeAnswer, Reply, TxnAnswer,
};
pub use changes::{Changes, Written};
pub use command::Command;
pub use error::Error;
pub use history::{History, HistoryError, NoHistory, RevisionEvents};
pub use kv::{Event, EventKind, KeyValue};
pub use lease::Lease;
pub use load::{LoadError, LoadedVersion, Loader};
pub use range::{KeyRange, RangeEnd, prefix_end};
pub use revision::{LeaseId, MemberId, Revision};
pub use state::{MemberInfo, State};
