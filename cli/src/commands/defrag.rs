//! `defrag`.

use std::time::Instant;

use gonfalon_proto::etcdserverpb as pb;

use crate::commands::endpoint::servers;
use crate::connection::{self, Connection, Repeat};
use crate::failure::{Failure, note};
use crate::output::{Format, Out, text};

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
            match (done, out.format()) {
                (Ok(_), Format::Human) => {
                    out.line(format!(
                        "{name} defragmented in {}",
                        text::took(start.elapsed())
                    ))?;
                }
                // etcdctl has this line in all formats.
                (Ok(_), _) => out.line(format!("Finished defragmenting etcd member[{name}]"))?,
                (Err(failure), _) => {
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
