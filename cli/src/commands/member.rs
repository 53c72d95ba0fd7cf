//! `member list`.

use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::commands::get::Consistency;
use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::table::Rows;
use crate::output::{Out, Page, Show, Style, json};

/// The members of the cluster
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Member {
    /// Show all members
    List {
        /// l: as the cluster has it; s: as the member that is asked has it
        #[arg(long, value_enum, default_value_t = Consistency::L)]
        consistency: Consistency,
    },
}

impl Member {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        let Self::List { consistency } = self;
        out.show(&Members(
            &list(connection, consistency == Consistency::L).await?,
        ))
    }
}

/// Asks for the members.
pub(crate) async fn list(
    connection: &Connection,
    linearizable: bool,
) -> Result<pb::MemberListResponse, Failure> {
    let request = pb::MemberListRequest { linearizable };
    connection
        .call(Repeat::Safe, async |channel| {
            connection::cluster(channel).member_list(request).await
        })
        .await
}

struct Members<'a>(&'a pb::MemberListResponse);

/// A member that was added and has not started yet has no name.
fn standing(member: &pb::Member) -> &'static str {
    if member.name.is_empty() {
        "unstarted"
    } else {
        "started"
    }
}

impl Show for Members<'_> {
    fn human(&self, page: &mut Page) {
        self.simple(page);
    }

    fn simple(&self, page: &mut Page) {
        for member in &self.0.members {
            page.line(format!(
                "{:x}, {}, {}, {}, {}, {}",
                member.id,
                standing(member),
                member.name,
                member.peer_ur_ls.join(","),
                member.client_ur_ls.join(","),
                member.is_learner
            ));
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.0.header.as_ref());
        for member in &self.0.members {
            fields.add("ID", member.id);
            fields.quoted("Name", member.name.as_bytes());
            for url in &member.peer_ur_ls {
                fields.quoted("PeerURL", url.as_bytes());
            }
            for url in &member.client_ur_ls {
                fields.quoted("ClientURL", url.as_bytes());
            }
            fields.add("IsLearner", member.is_learner);
            fields.gap();
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        json::Members::from(self.0)
    }

    fn rows(&self, _: Style) -> Option<Rows> {
        let row = |member: &pb::Member| {
            vec![
                format!("{:x}", member.id),
                standing(member).to_owned(),
                member.name.clone(),
                member.peer_ur_ls.join(","),
                member.client_ur_ls.join(","),
                member.is_learner.to_string(),
            ]
        };
        Some(Rows {
            heads: &[
                "ID",
                "STATUS",
                "NAME",
                "PEER ADDRS",
                "CLIENT ADDRS",
                "IS LEARNER",
            ],
            rows: self.0.members.iter().map(row).collect(),
        })
    }
}
