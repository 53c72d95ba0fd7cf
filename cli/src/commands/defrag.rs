//! `defrag`.

use std::time::{Duration, Instant};

use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::commands::endpoint::servers;
use crate::connection::{self, Connection, Repeat};
use crate::failure::{Failure, note};
use crate::output::fields::Fields;
use crate::output::{Out, Page, Show, text};

/// Give the space of deleted data back
///
/// One server after the other, since one that defragments may be slow meanwhile.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Defrag {
    /// All members of the cluster, not only --endpoints
    #[arg(long)]
    pub(crate) cluster: bool,
}

impl Defrag {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("defrag")?;
        let mut last = Ok(());
        for server in servers(connection, self.cluster).await? {
            let (name, start) = (server.name(), Instant::now());
            let done = server
                .call(Repeat::Pointless, async |channel| {
                    connection::maintenance(channel)
                        .defragment(pb::DefragmentRequest {})
                        .await
                })
                .await;
            match done {
                Ok(_) => out.show(&Defragmented {
                    endpoint: name,
                    took: start.elapsed(),
                })?,
                Err(failure) => {
                    // The last is reported by the program's end.
                    if let Err(earlier) = std::mem::replace(&mut last, Err(failure)) {
                        note(format_args!("Error: {}", earlier.what()));
                    }
                }
            }
        }
        last
    }
}

/// That one server is done.
struct Defragmented<'a> {
    endpoint: &'a str,
    took: Duration,
}

impl Show for Defragmented<'_> {
    fn human(&self, page: &mut Page) {
        let (endpoint, took) = (self.endpoint, text::took(self.took));
        page.line(format!("{endpoint} defragmented in {took}"));
    }

    fn simple(&self, page: &mut Page) {
        let endpoint = self.endpoint;
        page.line(format!("Finished defragmenting etcd member[{endpoint}]"));
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.quoted("Endpoint", self.endpoint.as_bytes());
        fields.add("Took", text::go_duration(self.took));
        fields
    }

    fn json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Json<'a> {
            endpoint: &'a str,
            took: String,
        }
        Json {
            endpoint: self.endpoint,
            took: text::go_duration(self.took),
        }
    }
}
