//! From what a server or the network said to a kind and an outcome.
//!
//! The code of gRPC alone says too little: etcd sends `Unavailable` both for "there is no leader,
//! nothing was done" and for "it was proposed and the leader changed", and tonic invents codes for
//! failed connections. So etcd's texts are looked up first, then the chain of causes is searched for
//! a proof that nothing was sent; only then does the code decide, and then a write is `Unknown`.

use tonic::{Code, Status};

use super::Error;
use super::ErrorKind as Kind;
use super::Outcome::{self, NotApplied, Unknown};
use crate::types::Revision;

/// What follows from a failed attempt.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) error: Error,
    /// Whether the endpoint itself is at fault: others should be tried before it.
    pub(crate) blames_endpoint: bool,
    /// Whether a fresh token would help.
    pub(crate) wants_token: bool,
}

impl Verdict {
    /// For what the client itself refuses: no endpoint is to blame.
    pub(crate) fn refuse(error: Error) -> Self {
        Self {
            error,
            blames_endpoint: false,
            wants_token: false,
        }
    }
}

/// What tonic says when a call's time is up, with the code `Cancelled`.
const OUT_OF_TIME: &str = "Timeout expired";

/// etcd's texts whose kind or outcome the code does not give, without "etcdserver: " before them.
fn known(text: &str) -> Option<(Kind, Outcome)> {
    let text = text.strip_prefix("etcdserver: ")?;
    Some(match text {
        "no leader" | "not leader" => (Kind::NoLeader, NotApplied),
        "rpc not supported for learner" | "not supported for learner" => {
            (Kind::Unavailable, NotApplied)
        }
        "too many requests" => (Kind::TooManyRequests, NotApplied),
        "leader changed" => (Kind::NoLeader, Unknown),
        "request timed out"
        | "request timed out, possibly due to previous leader failure"
        | "request timed out, possibly due to connection lost"
        | "request timed out, waiting for the applied index took too long" => {
            (Kind::Timeout, Unknown)
        }
        "server stopped" | "request cancelled" => (Kind::Unavailable, Unknown),
        "unhealthy cluster" => (Kind::Unavailable, NotApplied),
        "invalid auth token"
        | "revision of auth store is old"
        | "authentication failed, invalid user ID or password"
        | "user name is empty" => (Kind::Unauthenticated, NotApplied),
        "permission denied" => (Kind::PermissionDenied, NotApplied),
        "requested lease not found" => (Kind::LeaseNotFound, NotApplied),
        "lease already exists" => (Kind::LeaseExists, NotApplied),
        "mvcc: required revision has been compacted" => {
            let oldest = Revision::UNKNOWN;
            (Kind::Compacted { oldest }, NotApplied)
        }
        "mvcc: required revision is a future revision" => (Kind::FutureRevision, NotApplied),
        "mvcc: database space exceeded" => (Kind::QuotaExceeded, NotApplied),
        "request is too large" | "too many operations in txn request" => {
            (Kind::TooLarge, NotApplied)
        }
        "key not found" | "member not found" | "user name not found" | "role name not found" => {
            (Kind::NotFound, NotApplied)
        }
        "user name already exists"
        | "role name already exists"
        | "member ID already exist"
        | "Peer URLs already exists" => (Kind::AlreadyExists, NotApplied),
        _ => return None,
    })
}

/// What a code means when the text is not one of etcd's.
fn by_code(code: Code) -> (Kind, Outcome) {
    match code {
        Code::DeadlineExceeded => (Kind::Timeout, Unknown),
        Code::Unauthenticated => (Kind::Unauthenticated, NotApplied),
        Code::PermissionDenied => (Kind::PermissionDenied, NotApplied),
        Code::NotFound => (Kind::NotFound, NotApplied),
        Code::AlreadyExists => (Kind::AlreadyExists, NotApplied),
        Code::InvalidArgument | Code::OutOfRange => (Kind::InvalidArgument, NotApplied),
        Code::FailedPrecondition => (Kind::FailedPrecondition, NotApplied),
        // gRPC's own limits on messages: a request beyond them is refused, but a response beyond
        // ours is refused after the server has done its work.
        Code::ResourceExhausted => (Kind::TooLarge, Unknown),
        Code::Unimplemented => (Kind::Unimplemented, NotApplied),
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Aborted | Code::Unavailable => {
            (Kind::Unavailable, Unknown)
        }
        Code::Internal | Code::DataLoss => (Kind::Internal, Unknown),
    }
}

/// How far a request got, if the chain of causes proves it.
fn never_sent(status: &Status) -> Option<Kind> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return Some(Kind::Connect);
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>()
            && hyper.is_canceled()
        {
            // hyper gives a request back that its connection did not take any more.
            return Some(Kind::Unavailable);
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>()
            && h2.reason() == Some(h2::Reason::REFUSED_STREAM)
        {
            return Some(Kind::Unavailable);
        }
        cause = error.source();
    }
    None
}

/// What `status` means as the answer to `call`.
pub(crate) fn classify(call: &'static str, status: Status) -> Verdict {
    let known = known(status.message());
    let is_etcds = known.is_some() || status.message().starts_with("etcdserver: ");
    let (kind, outcome) = known.unwrap_or_else(|| match never_sent(&status) {
        Some(kind) => (kind, NotApplied),
        None if status.message() == OUT_OF_TIME => (Kind::Timeout, Unknown),
        // tonic's own limit on responses, under a code that etcd has for revisions of the future.
        None if status
            .message()
            .starts_with("Error, decoded message length too large") =>
        {
            (Kind::TooLarge, Unknown)
        }
        None => by_code(status.code()),
    });
    let blames_endpoint = match kind {
        Kind::Connect | Kind::Unavailable | Kind::NoLeader => true,
        // A member that answers in etcd's words is alive.
        Kind::Timeout | Kind::Internal => !is_etcds,
        _ => false,
    };
    let wants_token = matches!(
        status.message(),
        "etcdserver: invalid auth token" | "etcdserver: revision of auth store is old"
    );
    let error = Error::new(kind, call, status.message())
        .outcome_is(outcome)
        .because(status);
    Verdict {
        error,
        blames_endpoint,
        wants_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_unknown_unless_something_proves_that_it_was_not_done() {
        for (code, text, kind, outcome) in [
            (
                Code::Unavailable,
                "etcdserver: no leader",
                Kind::NoLeader,
                NotApplied,
            ),
            (
                Code::Unavailable,
                "etcdserver: leader changed",
                Kind::NoLeader,
                Unknown,
            ),
            (
                Code::Unavailable,
                "etcdserver: request timed out",
                Kind::Timeout,
                Unknown,
            ),
            (
                Code::Unavailable,
                "error reading a body",
                Kind::Unavailable,
                Unknown,
            ),
            (
                Code::DeadlineExceeded,
                "context deadline exceeded",
                Kind::Timeout,
                Unknown,
            ),
            (
                Code::Unknown,
                "etcdserver: too many requests",
                Kind::TooManyRequests,
                NotApplied,
            ),
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                Kind::LeaseNotFound,
                NotApplied,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: key is not provided",
                Kind::InvalidArgument,
                NotApplied,
            ),
            (Code::Internal, "h2 protocol error", Kind::Internal, Unknown),
            (Code::Cancelled, "Timeout expired", Kind::Timeout, Unknown),
        ] {
            let error = classify("put", Status::new(code, text)).error;
            assert_eq!(
                (error.kind(), error.outcome()),
                (&kind, outcome),
                "{code:?} {text}"
            );
        }
    }

    #[test]
    fn a_connection_that_never_was_carried_no_write() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(tonic::ConnectError(Box::new(refused))));
        let verdict = classify("put", status);
        assert_eq!(verdict.error.kind(), &Kind::Connect);
        assert_eq!(verdict.error.outcome(), NotApplied);
        assert!(verdict.blames_endpoint && verdict.error.is_retryable());
    }

    #[test]
    fn a_member_that_refuses_in_etcds_words_is_not_blamed() {
        let verdict = classify("put", Status::unavailable("etcdserver: request timed out"));
        assert!(!verdict.blames_endpoint);
        let verdict = classify(
            "put",
            Status::deadline_exceeded("context deadline exceeded"),
        );
        assert!(verdict.blames_endpoint);
    }
}
