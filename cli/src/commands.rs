//! The commands, one file for each family.

pub(crate) mod alarm;
pub(crate) mod check;
pub(crate) mod compact;
pub(crate) mod completion;
pub(crate) mod defrag;
pub(crate) mod del;
pub(crate) mod elect;
pub(crate) mod endpoint;
pub(crate) mod get;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod member;
pub(crate) mod move_leader;
pub(crate) mod put;
pub(crate) mod snapshot;
pub(crate) mod txn;
pub(crate) mod version;
pub(crate) mod watch;

use crate::args::{Cli, Command};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::Out;

/// Does what the command line asks for.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let settings = cli.global.settle()?;
    let mut out = Out::stdout(settings.format, settings.hex);
    let out = &mut out;
    let connection = Connection::new(&settings)?;
    let connection = &connection;
    match cli.command {
        Command::Get(get) => get.run(connection, out).await,
        Command::Put(put) => put.run(connection, out).await,
        Command::Del(del) => del.run(connection, out).await,
        Command::Watch(watch) => watch.run(connection, out).await,
        Command::Txn(txn) => txn.run(connection, out).await,
        Command::Compact(compact) => compact.run(connection, out).await,
        Command::Lease(lease) => lease.run(connection, out).await,
        Command::Lock(lock) => lock.run(connection, out).await,
        Command::Elect(elect) => elect.run(connection, out).await,
        Command::Member(member) => member.run(connection, out).await,
        Command::Endpoint(endpoint) => endpoint.run(connection, out).await,
        Command::Snapshot(snapshot) => snapshot.run(connection, out).await,
        Command::Defrag(defrag) => defrag.run(connection, out).await,
        Command::MoveLeader(move_leader) => move_leader.run(connection, out).await,
        Command::Alarm(alarm) => alarm.run(connection, out).await,
        Command::Check(check) => check.run(connection, out).await,
        Command::Completion(completion) => completion.run(out),
        Command::Version => version::run(out),
    }
}
