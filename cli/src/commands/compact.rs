//! `compact`.

use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::json::{Header, HeaderOnly};
use crate::output::{Out, Page, Show};
use crate::parse;

/// Forget history before a revision
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Compact {
    /// The first revision that stays readable
    #[arg(value_parser = parse::count, allow_negative_numbers = true)]
    revision: i64,
    /// Wait until the space is swept
    #[arg(long)]
    physical: bool,
}

impl Compact {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("compact")?;
        let revision = self.revision;
        let request = pb::CompactionRequest {
            revision,
            physical: self.physical,
        };
        let response = connection
            .call(Repeat::Never, async |channel| {
                connection::kv(channel).compact(request).await
            })
            .await
            .map_err(|failure| {
                if failure
                    .what()
                    .contains("required revision has been compacted")
                {
                    return failure.next(
                        "It was compacted up to there, or further, before: there is nothing to do.",
                    );
                }
                failure
            })?;
        out.show(&Compacted {
            revision,
            response: &response,
        })
    }
}

struct Compacted<'a> {
    revision: i64,
    response: &'a pb::CompactionResponse,
}

impl Show for Compacted<'_> {
    fn human(&self, page: &mut Page) {
        page.line(format!(
            "History before revision {} is forgotten",
            self.revision
        ));
    }

    fn simple(&self, page: &mut Page) {
        page.line(format!("compacted revision {}", self.revision));
    }

    fn fields(&self) -> Fields {
        Fields::headed(self.response.header.as_ref())
    }

    fn json(&self) -> impl Serialize {
        HeaderOnly {
            header: Header::of(self.response.header.as_ref()),
        }
    }
}
