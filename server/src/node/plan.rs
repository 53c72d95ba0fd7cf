//! What a member was told about the cluster that it is to found, and how two of them differ.
//!
//! Members of different clusters refuse each other by their ids, in which names, URLs and the token
//! are no longer seen. So new members send along what they were told, for whoever reads the log.

use serde::{Deserialize, Serialize};
use tonic::metadata::{MetadataMap, MetadataValue};

use super::start::NodeConfig;

/// Metadata of an answer that has the plan of the member that answers.
const PLAN: &str = "gonfalon-plan-bin";

/// What a new member was told about its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// `--name`.
    name: String,
    /// `--initial-cluster-token`.
    token: String,
    /// `--initial-cluster`, in the order of the names.
    cluster: String,
}

impl Plan {
    /// What the flags say.
    pub(super) fn of(config: &NodeConfig) -> Self {
        let members = config.initial_members.iter().flat_map(|member| {
            let urls = member.peer_urls.iter();
            urls.map(|url| format!("{}={url}", member.name))
        });
        let mut members: Vec<_> = members.collect();
        members.sort_unstable();
        Self {
            name: config.name.clone(),
            token: config.initial_token.clone(),
            cluster: members.join(","),
        }
    }

    /// Adds it to an answer.
    pub(super) fn write(&self, metadata: &mut MetadataMap) {
        let text = serde_json::to_vec(self).expect("texts are JSON");
        metadata.insert_bin(PLAN, MetadataValue::from_bytes(&text));
    }

    /// Finds it in an answer; members that take part already send none.
    pub(super) fn read(metadata: &MetadataMap) -> Option<Self> {
        let text = metadata.get_bin(PLAN)?.to_bytes().ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// How another's flags differ from these, if they do; `name` is what these call it.
    pub(super) fn differences(&self, other: &Self, name: &str) -> Option<String> {
        let flags = [
            ("name", name, &*other.name),
            ("initial-cluster-token", &self.token, &other.token),
            ("initial-cluster", &self.cluster, &other.cluster),
        ];
        let differing = flags
            .iter()
            .filter(|(_, here, there)| here != there)
            .map(|(flag, here, there)| format!("--{flag} is {there} there and {here} here"));
        let differing: Vec<_> = differing.collect();
        (!differing.is_empty()).then(|| differing.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_that_differ_say_in_which_flags() {
        let plan = |name: &str, token: &str, cluster: &str| Plan {
            name: name.into(),
            token: token.into(),
            cluster: cluster.into(),
        };
        let own = plan("n1", "t", "n1=http://a:1,n2=http://b:1");
        let same = plan("n2", "t", "n1=http://a:1,n2=http://b:1");
        assert_eq!(own.differences(&same, "n2"), None);
        let other = plan("é2", "u", "n1=http://a:1,n2=http://b:1");
        let mut metadata = MetadataMap::new();
        other.write(&mut metadata);
        let read = Plan::read(&metadata).unwrap();
        assert_eq!(
            own.differences(&read, "n2").unwrap(),
            "--name is é2 there and n2 here; --initial-cluster-token is u there and t here"
        );
        assert_eq!(Plan::read(&MetadataMap::new()), None);
    }
}
