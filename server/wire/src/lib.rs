//! What the etcd v3 API says, as commands of the state machine, and back.
//!
//! Requests become commands and reads ([`parse`]), what comes of them goes on the wire ([`render`])
//! or is refused with etcd's code and text ([`Refusal`]). Whoever answers clients does it with this:
//! the server, and the server in memory that the client's users test with.

pub mod parse;
mod refusal;
pub mod render;

pub use refusal::Refusal;
