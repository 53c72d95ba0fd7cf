//! What is the same for every call: its name, and what may be done when it fails.

use std::time::Duration;

/// Whether a call may be sent again when nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads.
    Reads,
    /// It writes, but twice is the same as once.
    Safe,
    /// Twice could do harm: only if the first attempt certainly did not take place.
    Never,
}

/// One kind of call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) repeat: Repeat,
    /// Whether a member that sees no leader should refuse rather than wait.
    pub(crate) needs_leader: bool,
    /// The client's default, if none.
    pub(crate) deadline: Option<Duration>,
}

impl Call {
    pub(crate) const fn new(name: &'static str, repeat: Repeat) -> Self {
        Self {
            name,
            repeat,
            needs_leader: true,
            deadline: None,
        }
    }

    pub(crate) const fn reads(name: &'static str) -> Self {
        Self::new(name, Repeat::Reads)
    }

    pub(crate) const fn writes(name: &'static str) -> Self {
        Self::new(name, Repeat::Never)
    }

    /// Answered by whichever member is asked, from what it has.
    pub(crate) const fn local(self) -> Self {
        Self {
            needs_leader: false,
            ..self
        }
    }

    pub(crate) const fn within(self, deadline: Option<Duration>) -> Self {
        Self { deadline, ..self }
    }
}
