//! What went wrong, what to do next, and the exit code: everything that reaches standard error.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use tonic::{Code, Status};

/// What stands below `gonfalon --help`: variables and exit codes.
pub(crate) const AFTER_HELP: &str = "\
Each global option is also a variable: GONFALON_ENDPOINTS for --endpoints, and so on. etcdctl's
(ETCDCTL_ENDPOINTS, ...) are understood.

Exit codes:
  0    done
  1    the server refused, or the command failed
  2    the command line cannot be understood
  3    no endpoint could be reached, or none answered in time
  4    not healthy (endpoint health), or below the target (check perf)
  126  the command that `lock` or `watch` was to run cannot be run; 127: there is none
  n    the code of the command that `lock` or `watch` ran";

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    what: Option<String>,
    next: Option<String>,
}

impl Failure {
    /// The command could not be carried out.
    pub(crate) fn failed(what: impl Display) -> Self {
        Self {
            exit: 1,
            what: Some(what.to_string()),
            next: None,
        }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(what: impl Display) -> Self {
        Self {
            exit: 2,
            what: Some(what.to_string()),
            next: None,
        }
    }

    /// Something that has an exit code of its own.
    pub(crate) fn exits(exit: u8, what: impl Display) -> Self {
        Self {
            exit,
            what: Some(what.to_string()),
            next: None,
        }
    }

    /// Nobody answered.
    pub(crate) fn unreachable(what: impl Display) -> Self {
        Self {
            exit: 3,
            what: Some(what.to_string()),
            next: None,
        }
    }

    /// Everything was said on standard output already.
    pub(crate) fn unhealthy() -> Self {
        Self {
            exit: 4,
            what: None,
            next: None,
        }
    }

    /// A command that we ran ended with this code.
    pub(crate) fn child(exit: u8) -> Self {
        Self {
            exit,
            what: None,
            next: None,
        }
    }

    /// Adds what to do about it.
    pub(crate) fn next(self, next: impl Display) -> Self {
        Self {
            next: Some(next.to_string()),
            ..self
        }
    }

    /// With what to do about `status`, if that is known.
    pub(crate) fn advised(self, status: &Status) -> Self {
        match advice(status) {
            Some(next) => self.next(next),
            None => self,
        }
    }

    /// A server's answer that is an error.
    pub(crate) fn status(endpoint: &str, status: &Status) -> Self {
        let failure = match status.code() {
            Code::Unavailable if !status.message().starts_with("etcdserver:") => {
                Self::unreachable(format!("{endpoint}: {}", status.message()))
            }
            Code::Unimplemented if status.message().is_empty() => {
                Self::failed(format!("{endpoint} does not know this call"))
            }
            Code::Unimplemented => {
                let why = status.message();
                Self::failed(format!("{endpoint} does not know this call: {why}"))
            }
            _ => Self::failed(status.message()),
        };
        failure.advised(status)
    }

    /// Standard output could not be written. That it was closed (`gonfalon get ... | head -1`) is
    /// no failure: nobody wants to know more.
    pub(crate) fn output(err: &io::Error) -> Self {
        if err.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                exit: 0,
                what: None,
                next: None,
            };
        }
        Self::failed(format!("cannot write to standard output: {err}"))
    }

    /// Says it and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        if let Some(what) = self.what {
            note(format_args!("Error: {what}"));
        }
        if let Some(next) = self.next {
            note(format_args!("  {next}"));
        }
        ExitCode::from(self.exit)
    }

    /// What is wrong, for answers about several endpoints.
    pub(crate) fn what(&self) -> &str {
        self.what.as_deref().unwrap_or_default()
    }
}

/// A line on standard error. If that is closed there is nobody to tell.
pub(crate) fn note(line: impl Display) {
    use io::Write as _;
    drop(writeln!(io::stderr(), "{line}"));
}

/// What to do about a server's error, by a part of its text.
const ADVICE: [(&str, &str); 19] = [
    (
        "h2 protocol error",
        "What listens there does not speak gRPC: is it the port of a Gonfalon or an etcd?",
    ),
    (
        "grpc-status header missing",
        "What listens there answers HTTP and not gRPC: is it the port of a Gonfalon or an etcd?",
    ),
    (
        "required revision has been compacted",
        "That history is gone: use a later --rev, or none.",
    ),
    (
        "required revision is a future revision",
        "No such revision yet: `endpoint status` shows the current one.",
    ),
    (
        "requested lease not found",
        "It expired or was revoked; `lease list` shows those that exist.",
    ),
    ("lease already exists", "Choose another id, or none."),
    (
        "database space exceeded",
        "Make room: `compact REVISION`, `defrag`, then `alarm disarm`.",
    ),
    (
        "key is not provided",
        "Give a key; for all keys use --prefix with an empty one: get --prefix ''.",
    ),
    (
        "duplicate key given in txn request",
        "A transaction may change each key once.",
    ),
    (
        "too many operations in txn request",
        "Split it, or start the servers with a larger --max-txn-ops.",
    ),
    (
        "request is too large",
        "Split it, or start the servers with a larger --max-request-bytes.",
    ),
    (
        "not leader",
        "Only the leader can do this; `endpoint status --cluster` shows it.",
    ),
    (
        "bad leader transferee",
        "`member list` shows the members that may lead.",
    ),
    (
        "no leader",
        "No majority of members is up; `endpoint status --cluster` shows which are.",
    ),
    (
        "request timed out",
        "The cluster did not agree in time; the write may yet happen. Read before you retry.",
    ),
    (
        "user name is empty",
        "The server asks for a user; this command line cannot log in yet.",
    ),
    (
        "where members talk to each other",
        "Name the port of clients in --endpoints or GONFALON_ENDPOINTS.",
    ),
    (
        "to found the cluster",
        "Start those members; the server's log says which it cannot reach, and why.",
    ),
    (
        "corrupt cluster",
        "Members disagree about the data; `endpoint hashkv --cluster` shows which.",
    ),
];

/// What to do about a server's error.
fn advice(status: &Status) -> Option<&'static str> {
    let text = status.message();
    if let Some((_, next)) = ADVICE.iter().find(|(part, _)| text.contains(part)) {
        return Some(next);
    }
    match status.code() {
        Code::Unimplemented => Some("The server is older than this command, or leaves it out."),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_etcd_is_called_so() {
        for text in [
            "h2 protocol error: http2 error",
            "grpc-status header missing, mapped from HTTP status code 404",
        ] {
            let failure = Failure::unreachable("it broke").advised(&Status::unknown(text));
            let next = failure.next.expect("there is something to do");
            assert!(next.contains("is it the port of a Gonfalon"), "{next}");
        }
    }
}
