//! `move-leader`.

use futures::future::join_all;
use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::commands::endpoint::{servers, status};
use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::{Out, Page, Show};
use crate::parse;

/// Make another member the leader
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MoveLeader {
    /// The member that is to lead (hexadecimal, from `member list`)
    #[arg(value_parser = parse::member_id)]
    member: u64,
}

impl MoveLeader {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("move-leader")?;
        let (leader, from) = leader(connection).await?;
        let request = pb::MoveLeaderRequest {
            target_id: self.member,
        };
        // The answer is empty, even of a header.
        leader
            .call(Repeat::Never, async |channel| {
                connection::maintenance(channel).move_leader(request).await
            })
            .await?;
        out.show(&Moved {
            from,
            to: self.member,
        })
    }
}

/// The leader, which alone can give its place away, and its id: among the endpoints, or found by
/// asking one of them for all members.
async fn leader(connection: &Connection) -> Result<(Connection, u64), Failure> {
    for cluster in [false, true] {
        let servers = servers(connection, cluster).await?;
        let answers = join_all(servers.iter().map(status::ask)).await;
        for (server, answer) in servers.into_iter().zip(answers) {
            let Ok((_, status)) = answer else { continue };
            let id = status::member_id(&status);
            if status.leader == id && id != 0 {
                return Ok((server, id));
            }
        }
    }
    Err(Failure::failed("no member says that it leads")
        .next("`endpoint status --cluster` shows how the members are."))
}

/// That the leadership went from one member to another.
struct Moved {
    from: u64,
    to: u64,
}

impl Show for Moved {
    fn human(&self, page: &mut Page) {
        page.line(format!(
            "{:x} leads now; before, {:x} did",
            self.to, self.from
        ));
    }

    fn simple(&self, page: &mut Page) {
        let (from, to) = (self.from, self.to);
        page.line(format!("Leadership transferred from {from:x} to {to:x}"));
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.add("From", self.from);
        fields.add("To", self.to);
        fields
    }

    fn json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Json {
            from: u64,
            to: u64,
        }
        Json {
            from: self.from,
            to: self.to,
        }
    }
}
