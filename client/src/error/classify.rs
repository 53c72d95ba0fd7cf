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
use crate::transport::NotSecured;
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

/// What a server said, in etcd's words: without what its layers put before them. Watches are refused
/// with a whole status as text, etcd 3.4's maintenance answers in the words of its store of users.
fn in_etcds_words(message: &str) -> Option<&str> {
    let message = match message.strip_prefix("rpc error: code = ") {
        Some(status) => status.split_once(" desc = ")?.1,
        None => message,
    };
    let layers = ["etcdserver: ", "auth: "];
    let said = layers.iter().find_map(|layer| message.strip_prefix(layer));
    // Of a watch, the store's own words are not put into others'.
    said.or_else(|| message.starts_with("mvcc: ").then_some(message))
}

/// etcd's texts whose kind or outcome the code does not give, or gives otherwise from version to
/// version.
fn known(text: &str) -> Option<(Kind, Outcome)> {
    Some(match text {
        "no leader" => (Kind::NoLeader, NotApplied),
        "not leader" => (Kind::NotLeader, NotApplied),
        "rpc not supported for learner" | "not supported for learner" => {
            (Kind::Unavailable, NotApplied)
        }
        "too many requests" => (Kind::TooManyRequests, NotApplied),
        "leader changed" => (Kind::NoLeader, Unknown),
        "request timed out"
        | "request timed out, possibly due to previous leader failure"
        | "request timed out, possibly due to connection lost"
        | "request timed out, waiting for the applied index took too long"
        | "context deadline exceeded" => (Kind::Timeout, Unknown),
        "server stopped" | "request cancelled" | "request canceled" => (Kind::Unavailable, Unknown),
        "unhealthy cluster" => (Kind::Unavailable, NotApplied),
        "invalid auth token"
        | "revision of auth store is old"
        | "revision in header is old"
        | "authentication failed, invalid user ID or password"
        | "authentication failed, password was given for no password user"
        | "user name is empty" => (Kind::Unauthenticated, NotApplied),
        "authentication is not enabled" => (Kind::AuthNotEnabled, NotApplied),
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
        "key not found"
        | "member not found"
        | "user name not found"
        | "role name not found"
        | "role is not granted to the user"
        | "permission is not granted to the role" => (Kind::NotFound, NotApplied),
        "user name already exists"
        | "role name already exists"
        | "member ID already exist"
        | "Peer URLs already exists" => (Kind::AlreadyExists, NotApplied),
        // Sent with the code of an unknown error.
        "re-configuration failed due to not enough started members" => {
            (Kind::FailedPrecondition, NotApplied)
        }
        // The version that the cluster has agreed on knows nothing of it.
        "not capable" => (Kind::Unimplemented, NotApplied),
        "corrupt cluster" => (Kind::Corrupt, NotApplied),
        "mvcc: duplicate watch ID provided on the WatchStream" | "mvcc: watcher range is empty" => {
            (Kind::InvalidArgument, NotApplied)
        }
        _ => return None,
    })
}

/// tonic's own texts: what it found wrong has happened here.
fn tonics(status: &Status) -> Option<(Kind, Outcome)> {
    let text = status.message();
    match status.code() {
        // Servers answer with a message when they have done their work.
        Code::OutOfRange if text.starts_with("Error, decoded message length too large") => {
            Some((Kind::TooLarge, Outcome::Applied))
        }
        Code::OutOfRange if text.starts_with("Error, encoded message length too large") => {
            Some((Kind::TooLarge, NotApplied))
        }
        Code::Cancelled if text == "Timeout expired" => Some((Kind::Timeout, Unknown)),
        _ => None,
    }
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
        // gRPC's own limit on requests, beyond which a server does not even read them.
        Code::ResourceExhausted => (Kind::TooLarge, NotApplied),
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
        if let Some(connect) = error.downcast_ref::<tonic::ConnectError>() {
            return Some(if connect.0.is::<NotSecured>() {
                Kind::Tls
            } else {
                Kind::Connect
            });
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.get_ref().is_some_and(is_refused_handshake)
        {
            return Some(Kind::Tls);
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>()
            && hyper.is_canceled()
        {
            // hyper gives a request back that its connection did not take any more.
            return Some(Kind::Unavailable);
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>()
            && (h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                // "I go away" fails only the requests that the server says it has not looked at.
                || h2.is_go_away() && h2.is_remote())
        {
            return Some(Kind::Unavailable);
        }
        cause = error.source();
    }
    None
}

/// Whether the server ended the handshake, which the client had done its part of: as TLS 1.3 has it,
/// a certificate is only looked at then. Alerts about certificates come at no other time.
///
/// h2 makes texts of the errors below it, so it is the text that is looked for.
fn is_refused_handshake(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    use tokio_rustls::rustls::{self, AlertDescription as Alert};
    const REFUSALS: [Alert; 10] = [
        Alert::CertificateRequired,
        Alert::NoCertificate,
        Alert::BadCertificate,
        Alert::UnsupportedCertificate,
        Alert::CertificateRevoked,
        Alert::CertificateExpired,
        Alert::CertificateUnknown,
        Alert::UnknownCA,
        Alert::AccessDenied,
        Alert::HandshakeFailure,
    ];
    let text = error.to_string();
    let said = |alert: Alert| rustls::Error::AlertReceived(alert).to_string();
    REFUSALS.iter().any(|&alert| said(alert) == text)
}

fn innermost(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// Whether a fresh token would help.
pub(crate) fn wants_token(status: &Status) -> bool {
    matches!(
        in_etcds_words(status.message()),
        Some(
            "invalid auth token"
                | "revision of auth store is old"
                | "revision in header is old"
                // Users came about after this client had learned that there are none.
                | "user name is empty"
        )
    )
}

/// What `status` means as the answer to `call`.
pub(crate) fn classify(call: &'static str, status: Status) -> Verdict {
    let said = in_etcds_words(status.message());
    let is_etcds = said.is_some();
    let (kind, outcome) = said
        .and_then(known)
        .or_else(|| tonics(&status))
        .unwrap_or_else(|| match never_sent(&status) {
            Some(kind) => (kind, NotApplied),
            None => by_code(status.code()),
        });
    let blames_endpoint = match kind {
        Kind::Connect | Kind::Tls | Kind::Unavailable | Kind::NoLeader => true,
        // A member that answers in etcd's words is alive.
        Kind::Timeout | Kind::Internal => !is_etcds,
        _ => false,
    };
    let wants_token = wants_token(&status);
    // tonic's own text of a broken connection says nothing.
    let message = match kind {
        Kind::Tls => innermost(&status),
        _ => status.message().to_owned(),
    };
    let error = Error::new(kind, call, message)
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
    use Outcome::Applied;

    const ANY: Revision = Revision::UNKNOWN;

    /// What servers say, with the code that they send, and what it means.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_text_of_etcd_has_the_kind_and_outcome_that_it_should() {
        let compacted = Kind::Compacted { oldest: ANY };
        for (code, text, kind, outcome) in [
            // Refused before anything was done: another member, another token, or later.
            (14, "etcdserver: no leader", Kind::NoLeader, NotApplied),
            (9, "etcdserver: not leader", Kind::NotLeader, NotApplied),
            (
                2,
                "etcdserver: too many requests",
                Kind::TooManyRequests,
                NotApplied,
            ),
            (
                8,
                "etcdserver: too many requests",
                Kind::TooManyRequests,
                NotApplied,
            ),
            (
                16,
                "etcdserver: invalid auth token",
                Kind::Unauthenticated,
                NotApplied,
            ),
            (
                2,
                "auth: invalid auth token",
                Kind::Unauthenticated,
                NotApplied,
            ),
            (
                3,
                "etcdserver: revision of auth store is old",
                Kind::Unauthenticated,
                NotApplied,
            ),
            (
                3,
                "etcdserver: user name is empty",
                Kind::Unauthenticated,
                NotApplied,
            ),
            (
                9,
                "etcdserver: rpc not supported for learner",
                Kind::Unavailable,
                NotApplied,
            ),
            (
                14,
                "etcdserver: unhealthy cluster",
                Kind::Unavailable,
                NotApplied,
            ),
            // Refused for good.
            (
                8,
                "etcdserver: mvcc: database space exceeded",
                Kind::QuotaExceeded,
                NotApplied,
            ),
            (
                3,
                "etcdserver: key is not provided",
                Kind::InvalidArgument,
                NotApplied,
            ),
            (3, "etcdserver: key not found", Kind::NotFound, NotApplied),
            (
                3,
                "etcdserver: too many operations in txn request",
                Kind::TooLarge,
                NotApplied,
            ),
            (
                3,
                "etcdserver: request is too large",
                Kind::TooLarge,
                NotApplied,
            ),
            (
                8,
                "grpc: received message larger than max (3 vs. 2)",
                Kind::TooLarge,
                NotApplied,
            ),
            (
                3,
                "etcdserver: duplicate key given in txn request",
                Kind::InvalidArgument,
                NotApplied,
            ),
            (
                7,
                "etcdserver: permission denied",
                Kind::PermissionDenied,
                NotApplied,
            ),
            (
                2,
                "auth: permission denied",
                Kind::PermissionDenied,
                NotApplied,
            ),
            (
                11,
                "etcdserver: mvcc: required revision has been compacted",
                compacted,
                NotApplied,
            ),
            (
                11,
                "etcdserver: mvcc: required revision is a future revision",
                Kind::FutureRevision,
                NotApplied,
            ),
            (
                5,
                "etcdserver: requested lease not found",
                Kind::LeaseNotFound,
                NotApplied,
            ),
            (
                9,
                "etcdserver: lease already exists",
                Kind::LeaseExists,
                NotApplied,
            ),
            (
                11,
                "etcdserver: too large lease TTL",
                Kind::InvalidArgument,
                NotApplied,
            ),
            (
                5,
                "etcdserver: member not found",
                Kind::NotFound,
                NotApplied,
            ),
            (
                9,
                "etcdserver: member ID already exist",
                Kind::AlreadyExists,
                NotApplied,
            ),
            (
                9,
                "etcdserver: Peer URLs already exists",
                Kind::AlreadyExists,
                NotApplied,
            ),
            (
                2,
                "etcdserver: re-configuration failed due to not enough started members",
                Kind::FailedPrecondition,
                NotApplied,
            ),
            (
                9,
                "etcdserver: can only promote a learner member which is in sync with leader",
                Kind::FailedPrecondition,
                NotApplied,
            ),
            (
                3,
                "etcdserver: authentication failed, invalid user ID or password",
                Kind::Unauthenticated,
                NotApplied,
            ),
            (
                2,
                "auth: authentication failed, password was given for no password user",
                Kind::Unauthenticated,
                NotApplied,
            ),
            (
                9,
                "etcdserver: authentication is not enabled",
                Kind::AuthNotEnabled,
                NotApplied,
            ),
            (
                9,
                "etcdserver: root user does not exist",
                Kind::FailedPrecondition,
                NotApplied,
            ),
            (
                9,
                "etcdserver: user name already exists",
                Kind::AlreadyExists,
                NotApplied,
            ),
            (
                9,
                "etcdserver: role name not found",
                Kind::NotFound,
                NotApplied,
            ),
            (
                9,
                "etcdserver: role is not granted to the user",
                Kind::NotFound,
                NotApplied,
            ),
            (
                3,
                "etcdserver: invalid auth management",
                Kind::InvalidArgument,
                NotApplied,
            ),
            (
                9,
                "etcdserver: not capable",
                Kind::Unimplemented,
                NotApplied,
            ),
            (
                12,
                "unknown method AuthStatus for service Auth",
                Kind::Unimplemented,
                NotApplied,
            ),
            (15, "etcdserver: corrupt cluster", Kind::Corrupt, NotApplied),
            // Proposed, and nobody knows how that ended.
            (14, "etcdserver: leader changed", Kind::NoLeader, Unknown),
            (14, "etcdserver: request timed out", Kind::Timeout, Unknown),
            (
                14,
                "etcdserver: request timed out, possibly due to previous leader failure",
                Kind::Timeout,
                Unknown,
            ),
            (
                14,
                "etcdserver: request timed out, possibly due to connection lost",
                Kind::Timeout,
                Unknown,
            ),
            (
                14,
                "etcdserver: request timed out, waiting for the applied index took too long",
                Kind::Timeout,
                Unknown,
            ),
            (14, "etcdserver: server stopped", Kind::Unavailable, Unknown),
            (
                1,
                "etcdserver: request canceled",
                Kind::Unavailable,
                Unknown,
            ),
            (4, "context deadline exceeded", Kind::Timeout, Unknown),
            (14, "error reading a body", Kind::Unavailable, Unknown),
            (13, "h2 protocol error", Kind::Internal, Unknown),
            (
                2,
                "something that nobody has written down",
                Kind::Unavailable,
                Unknown,
            ),
            // What tonic says.
            (1, "Timeout expired", Kind::Timeout, Unknown),
            (
                11,
                "Error, decoded message length too large: found 9 bytes, the limit is: 1 bytes",
                Kind::TooLarge,
                Applied,
            ),
            // A watch is refused with a status as text.
            (
                2,
                "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
                Kind::PermissionDenied,
                NotApplied,
            ),
        ] {
            let error = classify("put", Status::new(Code::from_i32(code), text)).error;
            let got = (error.kind(), error.outcome());
            assert_eq!(got, (&kind, outcome), "{code} {text}");
        }
    }

    fn caused_by(cause: impl std::error::Error + Send + Sync + 'static) -> Verdict {
        classify("put", Status::from_error(Box::new(cause)))
    }

    #[test]
    fn a_connection_that_never_was_carried_no_write() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let verdict = caused_by(tonic::ConnectError(Box::new(refused)));
        assert_eq!(verdict.error.kind(), &Kind::Connect);
        assert_eq!(verdict.error.outcome(), NotApplied);
        assert!(verdict.blames_endpoint && verdict.error.is_retryable());
    }

    #[test]
    fn a_stream_that_the_server_did_not_look_at_carried_no_write() {
        let verdict = caused_by(h2::Error::from(h2::Reason::REFUSED_STREAM));
        assert_eq!(verdict.error.kind(), &Kind::Unavailable);
        assert_eq!(verdict.error.outcome(), NotApplied);
        let verdict = caused_by(h2::Error::from(h2::Reason::CANCEL));
        assert_eq!(verdict.error.outcome(), Unknown);
    }

    #[test]
    fn only_what_a_new_token_can_mend_asks_for_one() {
        for (text, wanted) in [
            ("etcdserver: invalid auth token", true),
            ("etcdserver: revision of auth store is old", true),
            ("etcdserver: user name is empty", true),
            ("etcdserver: permission denied", false),
            (
                "etcdserver: authentication failed, invalid user ID or password",
                false,
            ),
        ] {
            let verdict = classify("put", Status::unknown(text));
            assert_eq!(verdict.wants_token, wanted, "{text}");
        }
    }

    #[test]
    fn a_member_that_refuses_in_etcds_words_is_not_blamed() {
        for (status, blamed) in [
            (Status::unavailable("etcdserver: request timed out"), false),
            (Status::failed_precondition("etcdserver: not leader"), false),
            (Status::unavailable("etcdserver: no leader"), true),
            (Status::deadline_exceeded("context deadline exceeded"), true),
        ] {
            let text = status.message().to_owned();
            let verdict = classify("put", status);
            assert_eq!(verdict.blames_endpoint, blamed, "{text}");
        }
    }
}
