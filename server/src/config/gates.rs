//! `--feature-gates=A=true,B=false`.

use super::error::{ConfigError, Origin};
use super::value::parse_bool;

/// What asking for a gate means here.
enum Gate {
    /// It makes no difference; why.
    Accepted(&'static str),
    /// Turning it on would promise something that is not done; what.
    Refused(&'static str),
}

/// etcd's gates.
const GATES: [(&str, Gate); 11] = [
    (
        "StopGRPCServiceOnDefrag",
        Gate::Accepted("defragmenting does not stop the service"),
    ),
    (
        "InitialCorruptCheck",
        Gate::Accepted("no check of the data against other members is made yet"),
    ),
    (
        "CompactHashCheck",
        Gate::Accepted("no check of the data against other members is made yet"),
    ),
    (
        "LeaseCheckpoint",
        Gate::Accepted("after an election leases last as long again, as in etcd"),
    ),
    (
        "LeaseCheckpointPersist",
        Gate::Accepted("after an election leases last as long again, as in etcd"),
    ),
    (
        "SetMemberLocalAddr",
        Gate::Refused("the local address of connections cannot be chosen"),
    ),
    (
        "PriorityRequest",
        Gate::Accepted("requests are served in the order in which they come"),
    ),
    (
        "TxnModeWriteWithSharedBuffer",
        Gate::Accepted("it tunes etcd's storage engine"),
    ),
    (
        "FastLeaseKeepAlive",
        Gate::Accepted("renewals never wait for writes here"),
    ),
    (
        "AllAlpha",
        Gate::Accepted("there are no features behind gates here"),
    ),
    (
        "AllBeta",
        Gate::Accepted("there are no features behind gates here"),
    ),
];

/// Checks the list of gates; returns what the user should read about those that are turned on.
pub(super) fn check(text: &str, origin: &Origin) -> Result<Vec<String>, ConfigError> {
    let bad = |why: String| ConfigError::BadValue {
        origin: origin.clone(),
        text: text.to_owned(),
        why,
    };
    let mut notes = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (name, value) = part
            .trim()
            .split_once('=')
            .ok_or_else(|| bad("write Gate=true,Gate=false".to_owned()))?;
        let on = parse_bool(value).map_err(&bad)?;
        let gate = GATES.iter().find(|(known, _)| *known == name);
        let (_, gate) = gate.ok_or_else(|| bad(format!("there is no feature gate {name}")))?;
        match gate {
            _ if !on => {}
            Gate::Accepted(why) => {
                notes.push(format!("feature gate {name} changes nothing: {why}"));
            }
            Gate::Refused(why) => return Err(bad(format!("{name}: {why}"))),
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(text: &str) -> Result<Vec<String>, String> {
        check(text, &Origin::Flag("feature-gates".to_owned())).map_err(|err| err.to_string())
    }

    #[test]
    fn known_gates_are_noted_and_unknown_ones_refused() {
        assert_eq!(
            gates("FastLeaseKeepAlive=true,PriorityRequest=false").unwrap(),
            [
                "feature gate FastLeaseKeepAlive changes nothing: renewals never wait for writes here"
            ]
        );
        assert_eq!(gates("").unwrap(), Vec::<String>::new());
        assert!(
            gates("Bogus=true")
                .unwrap_err()
                .contains("no feature gate Bogus")
        );
        assert!(
            gates("SetMemberLocalAddr=true")
                .unwrap_err()
                .contains("cannot be chosen")
        );
        assert!(
            gates("FastLeaseKeepAlive")
                .unwrap_err()
                .contains("write Gate=true")
        );
        assert!(
            gates("FastLeaseKeepAlive=maybe")
                .unwrap_err()
                .contains("true or false")
        );
    }
}
