//! What a server says of itself.

use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::table::Rows;
use crate::output::{Page, Show, Style, json, text};

/// Asks one server.
pub(crate) async fn ask(server: &Connection) -> Result<(String, pb::StatusResponse), Failure> {
    let status = server
        .call(Repeat::Pointless, async |channel| {
            connection::maintenance(channel)
                .status(pb::StatusRequest {})
                .await
        })
        .await?;
    Ok((server.name().to_owned(), status))
}

/// The member that answered.
pub(crate) fn member_id(status: &pb::StatusResponse) -> u64 {
    status.header.as_ref().map_or(0, |header| header.member_id)
}

fn is_leader(status: &pb::StatusResponse) -> bool {
    status.leader != 0 && status.leader == member_id(status)
}

fn size(bytes: i64) -> String {
    text::size(u64::try_from(bytes).unwrap_or(0))
}

/// All servers that answered.
pub(super) struct Statuses(pub(super) Vec<(String, pb::StatusResponse)>);

impl Show for Statuses {
    fn human(&self, page: &mut Page) {
        self.simple(page);
    }

    fn simple(&self, page: &mut Page) {
        for (endpoint, status) in &self.0 {
            page.line(format!(
                "{endpoint}, {:x}, {}, {}, {}, {}, {}, {}, {}, {}",
                member_id(status),
                status.version,
                text::go_size(u64::try_from(status.db_size).unwrap_or(0)),
                is_leader(status),
                status.is_learner,
                status.raft_term,
                status.raft_index,
                status.raft_applied_index,
                status.errors.join(", ")
            ));
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        for (endpoint, status) in &self.0 {
            fields.header(status.header.as_ref());
            fields.quoted("Version", status.version.as_bytes());
            fields.add("DBSize", status.db_size);
            fields.add("DBSizeInUse", status.db_size_in_use);
            fields.add("Leader", status.leader);
            fields.add("IsLearner", status.is_learner);
            fields.add("RaftIndex", status.raft_index);
            fields.add("RaftTerm", status.raft_term);
            fields.add("RaftAppliedIndex", status.raft_applied_index);
            fields.add("Errors", format_args!("[{}]", status.errors.join(" ")));
            fields.quoted("Endpoint", endpoint.as_bytes());
            fields.gap();
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        let json = |(endpoint, status): &(String, pb::StatusResponse)| json::EndpointStatus {
            endpoint: endpoint.clone(),
            status: status.into(),
        };
        self.0.iter().map(json).collect::<Vec<_>>()
    }

    fn rows(&self, _: Style) -> Option<Rows> {
        let row = |(endpoint, status): &(String, pb::StatusResponse)| {
            vec![
                endpoint.clone(),
                format!("{:x}", member_id(status)),
                status.version.clone(),
                size(status.db_size),
                size(status.db_size_in_use),
                is_leader(status).to_string(),
                status.is_learner.to_string(),
                status.raft_term.to_string(),
                status.raft_index.to_string(),
                status.raft_applied_index.to_string(),
                status.errors.join(", "),
            ]
        };
        Some(Rows {
            heads: &[
                "ENDPOINT", "ID", "VERSION", "DB SIZE", "IN USE", "LEADER", "LEARNER", "TERM",
                "INDEX", "APPLIED", "ERRORS",
            ],
            rows: self.0.iter().map(row).collect(),
        })
    }
}
