//! The same calls to a reference and to the server under test, answers compared field by field.
//!
//! Calls are drawn from a seed ([`generate`]), sent to both systems in the same order ([`target`]),
//! and their answers stripped of what must differ: ids, terms, hashes, sizes ([`normal`]). What
//! differs between the reference's version and etcd 3.7 is a table ([`known`]) that rewrites the
//! reference's answer into the exact answer of 3.7; everything else must be equal ([`compare`]).

pub mod call;
pub mod compare;
pub mod generate;
pub mod known;
pub mod memory;
pub mod normal;
pub mod target;
pub mod watching;
