//! What can go wrong, by what the caller can do about it.
//!
//! Three questions are answered for every failure: what happened ([`Error::kind`]), whether a write
//! took place ([`Error::outcome`]), and whether asking again can help ([`Error::is_retryable`]).
//! `classify.rs` derives them from what a server or the network said.

mod classify;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::types::Revision;

pub(crate) use classify::{Verdict, classify, wants_token};

/// Whether a write took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did not, and will not.
    NotApplied,
    /// It did; what failed came after.
    Applied,
    /// Nobody can tell: it was sent and not answered. It may still happen. Read before you write
    /// again, or write with a comparison that a repetition fails.
    Unknown,
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident $({ $field:ident: $type:ty })? = $code:literal, $text:literal;)*) => {
        /// What went wrong.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$meta])* $name $({
                /// See above.
                $field: $type
            })?,)*
        }

        impl ErrorKind {
            /// A number that never changes its meaning; C and Python have the same.
            pub fn code(&self) -> i32 {
                match self { $(Self::$name $({ $field: _ })? => $code,)* }
            }

            /// Every kind there is: its name, its number, and a few words. C and Python are made of it.
            pub const TABLE: &[(&str, i32, &str)] = &[$((stringify!($name), $code, $text)),*];

            /// A few words for people.
            pub fn text(&self) -> &'static str {
                match self { $(Self::$name $({ $field: _ })? => $text,)* }
            }

            /// Its name here, as metrics and spans have it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name $({ $field: _ })? => stringify!($name),)* }
            }
        }
    };
}

kinds! {
    /// No connection to any endpoint came about.
    Connect = 1, "no endpoint can be reached";
    /// A server, or the way to it, failed while it was asked.
    Unavailable = 2, "the server is not available";
    /// The cluster has no leader, or the member that was asked does not see one.
    NoLeader = 3, "the cluster has no leader";
    /// There was no answer within the call's deadline.
    Timeout = 4, "no answer in time";
    /// The client was closed.
    Closed = 5, "the client is closed";
    /// The server answers no more requests for now.
    TooManyRequests = 6, "the server is overloaded";
    /// The member that was asked does not lead the cluster, and only the leader can do this.
    NotLeader = 8, "the member is not the leader";
    /// No encrypted connection came about: the server could not be trusted, or did not trust the
    /// client. Its certificates, or ours, must be changed.
    Tls = 7, "the connection cannot be secured";

    /// The user is unknown, the password is wrong, or the token is no longer valid.
    Unauthenticated = 10, "not authenticated";
    /// The user may not do this.
    PermissionDenied = 11, "permission denied";
    /// The cluster knows no users: authentication was not enabled.
    AuthNotEnabled = 12, "authentication is not enabled";

    /// The key, member, user or role does not exist.
    NotFound = 20, "not found";
    /// The member, user or role exists already.
    AlreadyExists = 21, "exists already";
    /// There is no such lease: it has expired, was revoked, or never was.
    LeaseNotFound = 22, "the lease does not exist";
    /// The lease id is taken.
    LeaseExists = 23, "the lease exists already";

    /// The history before `oldest` is gone: read the present and watch from there.
    Compacted { oldest: Revision } = 30, "the revision has been compacted";
    /// The revision has not happened yet, at least not on the member that was asked.
    FutureRevision = 31, "the revision is in the future";
    /// The store is another one, or the same at an earlier time: it was restored from a backup.
    /// Everything known of it is void; read the present and watch from there.
    Restored = 32, "the store was restored to an earlier state";

    /// The store is full: only deletions, compaction and defragmentation can help.
    QuotaExceeded = 40, "the store's space is used up";
    /// The request is larger, or has more operations, than the server allows.
    TooLarge = 41, "the request is too large";
    /// The request makes no sense; the message says why.
    InvalidArgument = 42, "invalid argument";
    /// The cluster is not in the state that this needs; the message says which.
    FailedPrecondition = 43, "the cluster is not in the state for this";
    /// The server does not know this call.
    Unimplemented = 44, "not implemented by the server";
    /// A call that waits ([`blocking`](crate::blocking)) was made inside of an async runtime, where
    /// it is awaited instead.
    WouldBlock = 45, "a thread of an async runtime must not wait";

    /// The lease ended, or the key that stood for a lock or for leadership was deleted.
    Lost = 51, "lost";
    /// A watcher's queue was full and its policy is to fail; nothing before `from` was lost.
    Lagged { from: Revision } = 50, "the watcher fell behind";
    /// The server broke its own protocol, or lost data.
    Internal = 60, "internal error";
    /// Members differ in what they hold, or data is not what was written: an operator must look.
    Corrupt = 61, "the data is corrupt";
    /// A file of this machine cannot be read or written; the message says which and why.
    File = 70, "a file cannot be read or written";
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted { oldest } => {
                write!(
                    f,
                    "{}; the oldest that can be read is {oldest}",
                    self.text()
                )
            }
            Self::Lagged { from } => write!(f, "{}; resume from {from}", self.text()),
            _ => f.write_str(self.text()),
        }
    }
}

/// Why a call failed. Cheap to clone.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    call: &'static str,
    message: String,
    endpoint: Option<Arc<str>>,
    attempts: u32,
    elapsed: Duration,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Nothing was sent.
    pub(crate) fn new(kind: ErrorKind, call: &'static str, message: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                outcome: Outcome::NotApplied,
                call,
                message: message.into(),
                endpoint: None,
                attempts: 0,
                elapsed: Duration::ZERO,
                source: None,
            }),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    pub(crate) fn outcome_is(self, outcome: Outcome) -> Self {
        self.with(|inner| inner.outcome = outcome)
    }

    pub(crate) fn at(self, endpoint: Arc<str>) -> Self {
        self.with(|inner| inner.endpoint = Some(endpoint))
    }

    pub(crate) fn after(self, attempts: u32, elapsed: Duration) -> Self {
        self.with(|inner| (inner.attempts, inner.elapsed) = (attempts, elapsed))
    }

    pub(crate) fn because(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.with(|inner| inner.source = Some(Arc::new(source)))
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.inner.kind
    }

    /// Whether a write took place. For calls that only read it is [`Outcome::NotApplied`].
    pub fn outcome(&self) -> Outcome {
        self.inner.outcome
    }

    /// Whether the same call may succeed later, without harm: what failed is passing, and the call
    /// did not take place.
    pub fn is_retryable(&self) -> bool {
        self.inner.outcome == Outcome::NotApplied && self.is_passing()
    }

    /// Whether what failed is passing, whatever became of this call: for somebody who can find that
    /// out, or begins anew.
    pub(crate) fn is_passing(&self) -> bool {
        match self.inner.kind {
            ErrorKind::Connect
            | ErrorKind::Unavailable
            | ErrorKind::NoLeader
            | ErrorKind::Timeout
            | ErrorKind::TooManyRequests
            | ErrorKind::FutureRevision => true,
            ErrorKind::Closed
            | ErrorKind::NotLeader
            | ErrorKind::Tls
            | ErrorKind::Unauthenticated
            | ErrorKind::PermissionDenied
            | ErrorKind::AuthNotEnabled
            | ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::LeaseNotFound
            | ErrorKind::LeaseExists
            | ErrorKind::Compacted { .. }
            | ErrorKind::Restored
            | ErrorKind::QuotaExceeded
            | ErrorKind::TooLarge
            | ErrorKind::InvalidArgument
            | ErrorKind::FailedPrecondition
            | ErrorKind::Unimplemented
            | ErrorKind::WouldBlock
            | ErrorKind::Lagged { .. }
            | ErrorKind::Lost
            | ErrorKind::Internal
            | ErrorKind::Corrupt
            | ErrorKind::File => false,
        }
    }

    /// How long to wait before the same call is worth another attempt; none if it is not
    /// [retryable](Error::is_retryable). The client has made its own attempts before it failed: this
    /// is what it takes for things to change.
    pub fn retry_after(&self) -> Option<Duration> {
        let pause = match self.inner.kind {
            // A member that is behind catches up within heartbeats.
            ErrorKind::FutureRevision => Duration::from_millis(100),
            // An election takes one to two seconds.
            ErrorKind::NoLeader => Duration::from_secs(1),
            // A queue of 5,000 entries must become shorter.
            ErrorKind::TooManyRequests => Duration::from_secs(2),
            _ => Duration::from_millis(500),
        };
        self.is_retryable().then_some(pause)
    }

    /// The kind's number, see [`ErrorKind::code`].
    pub fn code(&self) -> i32 {
        self.inner.kind.code()
    }

    /// The call that failed, as in `"put"`.
    pub fn call(&self) -> &'static str {
        self.inner.call
    }

    /// What the server or the network said; may be empty.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// Who was asked last.
    pub fn endpoint(&self) -> Option<&str> {
        self.inner.endpoint.as_deref()
    }

    /// How often the call was sent, or tried to be.
    pub fn attempts(&self) -> u32 {
        self.inner.attempts
    }

    /// How long the call took.
    pub fn elapsed(&self) -> Duration {
        self.inner.elapsed
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        write!(f, "{}: {}", inner.call, inner.kind)?;
        if !inner.message.is_empty() {
            write!(f, ": {}", inner.message)?;
        }
        if let Some(endpoint) = &inner.endpoint {
            write!(f, " ({endpoint}")?;
            if inner.attempts > 1 {
                write!(f, ", {} attempts, {:?}", inner.attempts, inner.elapsed)?;
            }
            f.write_str(")")?;
        }
        if inner.outcome == Outcome::Unknown {
            f.write_str("; it may have taken place")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.inner.source.as_deref()?;
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_says_what_to_do_about_every_kind() {
        let guide = include_str!("guide.rs");
        for (name, code, _) in ErrorKind::TABLE {
            let row = format!("| [`{name}`](crate::ErrorKind::{name}) | {code} | ");
            assert!(
                guide.contains(&row),
                "the table of errors has no row {row:?}"
            );
        }
        let mut codes: Vec<i32> = ErrorKind::TABLE.iter().map(|(_, code, _)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(
            codes.len(),
            ErrorKind::TABLE.len(),
            "a number stands for one kind"
        );
    }

    #[test]
    fn an_error_says_what_where_and_whether_it_may_have_happened() {
        let error = Error::new(ErrorKind::Timeout, "put", "")
            .outcome_is(Outcome::Unknown)
            .at("http://a:2379".into())
            .after(2, Duration::from_secs(5));
        assert_eq!(
            error.to_string(),
            "put: no answer in time (http://a:2379, 2 attempts, 5s); it may have taken place"
        );
        assert!(!error.is_retryable(), "a repetition could do it twice");
        assert_eq!(error.code(), 4);
    }

    #[test]
    fn the_numbers_never_change() {
        let at = Revision::new(7);
        let numbers = [
            (ErrorKind::Connect, 1),
            (ErrorKind::Unavailable, 2),
            (ErrorKind::NoLeader, 3),
            (ErrorKind::Timeout, 4),
            (ErrorKind::Closed, 5),
            (ErrorKind::TooManyRequests, 6),
            (ErrorKind::Tls, 7),
            (ErrorKind::NotLeader, 8),
            (ErrorKind::Unauthenticated, 10),
            (ErrorKind::PermissionDenied, 11),
            (ErrorKind::AuthNotEnabled, 12),
            (ErrorKind::NotFound, 20),
            (ErrorKind::AlreadyExists, 21),
            (ErrorKind::LeaseNotFound, 22),
            (ErrorKind::LeaseExists, 23),
            (ErrorKind::Compacted { oldest: at }, 30),
            (ErrorKind::FutureRevision, 31),
            (ErrorKind::Restored, 32),
            (ErrorKind::QuotaExceeded, 40),
            (ErrorKind::TooLarge, 41),
            (ErrorKind::InvalidArgument, 42),
            (ErrorKind::FailedPrecondition, 43),
            (ErrorKind::Unimplemented, 44),
            (ErrorKind::WouldBlock, 45),
            (ErrorKind::Lagged { from: at }, 50),
            (ErrorKind::Lost, 51),
            (ErrorKind::Internal, 60),
            (ErrorKind::Corrupt, 61),
            (ErrorKind::File, 70),
        ];
        let all: Vec<i32> = numbers.iter().map(|(_, number)| *number).collect();
        let table = ErrorKind::TABLE.iter();
        let mut known: Vec<i32> = table.map(|&(_, number, _)| number).collect();
        known.sort_unstable();
        assert_eq!(known, all, "every kind has its line here");
        for (kind, number) in numbers {
            assert_eq!(kind.code(), number, "{kind:?}");
        }
    }

    #[test]
    fn only_what_is_worth_another_attempt_says_when() {
        let error = Error::new(ErrorKind::NoLeader, "put", "");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
        let unknown = error.outcome_is(Outcome::Unknown);
        assert_eq!(unknown.retry_after(), None, "it would do it twice");
        let refused = Error::new(ErrorKind::PermissionDenied, "put", "");
        assert_eq!(refused.retry_after(), None);
    }

    #[test]
    fn a_clone_is_not_changed_by_what_is_added_to_the_other() {
        let error = Error::new(ErrorKind::NoLeader, "get", "etcdserver: no leader");
        let asked = error.clone().at("http://a:2379".into());
        assert_eq!(error.endpoint(), None);
        assert_eq!(asked.endpoint(), Some("http://a:2379"));
    }
}
