//! `endpoint health|status|hashkv`: each server is asked by itself.

mod hashkv;
mod health;
pub(crate) mod status;

use futures::future::join_all;

use crate::commands::member;
use crate::connection::Connection;
use crate::failure::{Failure, note};
use crate::output::{Out, Show};
use crate::parse;

/// Ask each server how it is
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Endpoint {
    /// Whether it answers, agrees with the others, and has no alarm
    Health {
        /// Ask all members of the cluster, not only --endpoints
        #[arg(long)]
        cluster: bool,
    },
    /// Its version, size, leader, and where it is in the log
    Status {
        /// Ask all members of the cluster, not only --endpoints
        #[arg(long)]
        cluster: bool,
    },
    /// A hash of its history: equal on all members, or the data differs
    #[command(name = "hashkv")]
    HashKv {
        /// Ask all members of the cluster, not only --endpoints
        #[arg(long)]
        cluster: bool,
        /// Hash up to this revision; 0: all
        #[arg(long, value_parser = parse::count, allow_negative_numbers = true, default_value_t = 0, hide_default_value = true)]
        rev: i64,
    },
}

impl Endpoint {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::Health { cluster } => {
                let servers = servers(connection, cluster).await?;
                let healths = join_all(servers.iter().map(health::check)).await;
                let all_well = healths.iter().all(health::Health::is_healthy);
                out.show(&health::Healths(healths))?;
                if all_well {
                    Ok(())
                } else {
                    Err(Failure::unhealthy())
                }
            }
            Self::Status { cluster } => {
                let servers = servers(connection, cluster).await?;
                let answers = join_all(servers.iter().map(status::ask)).await;
                show(out, answers, status::Statuses)
            }
            Self::HashKv { cluster, rev } => {
                let servers = servers(connection, cluster).await?;
                let answers = join_all(servers.iter().map(|server| hashkv::ask(server, rev))).await;
                show(out, answers, hashkv::Hashes)
            }
        }
    }
}

/// The servers to ask, each with a connection of its own.
pub(crate) async fn servers(
    connection: &Connection,
    cluster: bool,
) -> Result<Vec<Connection>, Failure> {
    if !cluster {
        return connection.each();
    }
    // As the member has it: that works without a majority, when one asks how things are.
    let list = member::list(connection, false).await?;
    let mut urls: Vec<_> = list
        .members
        .into_iter()
        .flat_map(|member| member.client_ur_ls)
        .collect();
    urls.sort();
    urls.dedup();
    if urls.is_empty() {
        // Nobody to ask is no proof that all is well.
        let what = "no member has told the cluster yet where clients reach it";
        return Err(Failure::unreachable(what).next(
            "They do once there is a leader: wait for one, or ask --endpoints without --cluster.",
        ));
    }
    connection.to(&urls)?.each()
}

/// Shows the answers there are, then says who gave none.
fn show<T, S: Show>(
    out: &mut Out,
    answers: Vec<Result<(String, T), Failure>>,
    list: impl FnOnce(Vec<(String, T)>) -> S,
) -> Result<(), Failure> {
    let mut good = Vec::new();
    let mut bad: Option<Failure> = None;
    for answer in answers {
        match answer {
            Ok(answer) => good.push(answer),
            Err(failure) => {
                // The last is reported by the program's end.
                if let Some(earlier) = bad.replace(failure) {
                    note(format_args!("Error: {}", earlier.what()));
                }
            }
        }
    }
    out.show(&list(good))?;
    bad.map_or(Ok(()), Err)
}
