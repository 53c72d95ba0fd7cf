//! etcdctl's `fields` format: `"Name" : value`, one field a line.

use std::fmt;

use gonfalon_proto::etcdserverpb::ResponseHeader;
use gonfalon_proto::mvccpb::KeyValue;

use super::text::go_quote;

/// Fields in the order in which they are added.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    lines: String,
}

impl Fields {
    /// Begins with the fields of a header; a missing one counts as empty.
    pub(crate) fn headed(header: Option<&ResponseHeader>) -> Self {
        let mut fields = Self::default();
        fields.header(header);
        fields
    }

    pub(crate) fn header(&mut self, header: Option<&ResponseHeader>) {
        let header = header.copied().unwrap_or_default();
        self.add("ClusterID", header.cluster_id);
        self.add("MemberID", header.member_id);
        self.add("Revision", header.revision);
        self.add("RaftTerm", header.raft_term);
    }

    /// Adds a number or a boolean.
    pub(crate) fn add(&mut self, name: &str, value: impl fmt::Display) {
        self.lines
            .extend(["\"", name, "\" : ", &value.to_string(), "\n"]);
    }

    /// Adds text between quotes.
    pub(crate) fn quoted(&mut self, name: &str, value: &[u8]) {
        self.add(name, go_quote(value));
    }

    /// Adds a key with all that belongs to it; each name begins with `prefix`.
    pub(crate) fn kv(&mut self, prefix: &str, kv: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &kv.key);
        self.add(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.add(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.add(&format!("{prefix}Version"), kv.version);
        self.quoted(&format!("{prefix}Value"), &kv.value);
        self.add(&format!("{prefix}Lease"), kv.lease);
    }

    /// Adds the fields of another answer.
    pub(crate) fn append(&mut self, other: &Self) {
        self.lines.push_str(&other.lines);
    }

    /// Adds an empty line, which ends one of several answers.
    pub(crate) fn gap(&mut self) {
        self.lines.push('\n');
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines)
    }
}
