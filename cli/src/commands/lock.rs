//! `lock`.

use std::ffi::OsString;

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::connection::{self, Connection, Repeat};
use crate::failure::{Failure, note};
use crate::output::fields::Fields;
use crate::output::{Out, Page, Show, json};
use crate::parse;
use crate::recipes::ownership::{self, Place};
use crate::recipes::session::Session;
use crate::recipes::{self, Running, Stop, asked_to_stop};

/// The exit codes of a program that Ctrl-C or SIGTERM ended, as shells have them.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// Hold a lock, alone in the cluster, while a command runs
///
/// Waits until the lock is free, then runs COMMAND and lets go; without COMMAND, holds it until
/// Ctrl-C. SIGINT and SIGTERM are handed on to COMMAND, and the lock is held until it has ended; a
/// second one kills it. If the lease is lost while COMMAND runs, COMMAND is killed: it is not alone
/// any more. All this is for COMMAND with everything it has started, but in a terminal for COMMAND
/// alone. If this process is killed, COMMAND goes on, and the lock is free when its lease ends.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Lock {
    /// The lock's name
    #[arg(value_parser = parse::name())]
    name: Bytes,
    /// What to run; `ETCD_LOCK_KEY` and `ETCD_LOCK_REV` tell it the lock's key and its fencing token
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
    /// How long the lock outlives this process: seconds, or a duration
    #[arg(long, value_parser = parse::seconds, allow_hyphen_values = true, default_value = "10")]
    ttl: i64,
}

impl Lock {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("lock")?;
        // Now rather than when the lock is held, which may be much later.
        recipes::check(&self.command)?;
        let mut session = Session::grant(connection, self.ttl).await?;
        let lease = session.lease;
        let result = tokio::select! {
            biased;
            lost = session.keep(connection, async |_| Ok(())) => Err(lost),
            done = self.hold(connection, lease, out) => done,
        };
        // The key goes with the lease, and so does the place in the line.
        let released = Session::revoke(lease, connection).await;
        if released.is_err() && result.is_ok() {
            note(format_args!(
                "The lock could not be given back; it is free in {} s.",
                self.ttl
            ));
        }
        result
    }

    async fn hold(
        &self,
        connection: &Connection,
        lease: i64,
        out: &mut Out,
    ) -> Result<(), Failure> {
        // One listener for all steps: a signal that came between two listeners would be lost.
        let mut stopped = std::pin::pin!(asked_to_stop());
        let place = tokio::select! {
            biased;
            stop = &mut stopped => {
                stop?;
                return Err(Failure::child(INTERRUPTED));
            }
            place = acquire(connection, &self.name, lease) => place?,
        };
        if self.command.is_empty() {
            let held = key(connection, &place).await?;
            out.show(&Held(&held))?;
            return stopped.await.map(drop);
        }
        let variables = [
            (
                "ETCD_LOCK_KEY",
                String::from_utf8_lossy(&place.key).into_owned().into(),
            ),
            ("ETCD_LOCK_REV", place.revision.to_string().into()),
        ];
        let Some(mut running) = Running::with_all(&self.command, &variables)? else {
            return Ok(());
        };
        let stop = tokio::select! {
            biased;
            done = running.ended() => return done,
            stop = &mut stopped => stop?,
        };
        // It decides when to end, and only then is the lock free.
        stopped.set(asked_to_stop());
        running.stop(stop);
        tokio::select! {
            biased;
            done = running.ended() => done,
            // Dropping the command kills it.
            stop = stopped => Err(Failure::child(match stop? {
                Stop::Interrupt => INTERRUPTED,
                Stop::Terminate => TERMINATED,
            })),
        }
    }
}

/// Waits for the lock.
async fn acquire(connection: &Connection, name: &Bytes, lease: i64) -> Result<Place, Failure> {
    let place = ownership::enter(connection, name, lease, &Bytes::new()).await?;
    ownership::wait(connection, name, &place).await?;
    Ok(place)
}

/// Reads the owner's key, which is proof that it is there.
pub(crate) async fn key(
    connection: &Connection,
    place: &Place,
) -> Result<pb::RangeResponse, Failure> {
    let request = pb::RangeRequest {
        key: place.key.clone(),
        ..Default::default()
    };
    let response = connection
        .call(Repeat::Safe, async |channel| {
            connection::kv(channel).range(request.clone()).await
        })
        .await?;
    if response.kvs.is_empty() {
        return Err(Failure::failed("the lease expired while waiting"));
    }
    Ok(response)
}

struct Held<'a>(&'a pb::RangeResponse);

impl Show for Held<'_> {
    fn human(&self, page: &mut Page) {
        for kv in &self.0.kvs {
            let key = page.style.shown(&kv.key);
            page.line(format!(
                "holding {key} (revision {}); Ctrl-C lets go",
                kv.create_revision
            ));
        }
    }

    fn simple(&self, page: &mut Page) {
        for kv in &self.0.kvs {
            page.raw(&kv.key);
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.0.header.as_ref());
        for kv in &self.0.kvs {
            fields.kv("", kv);
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        json::Range::from(self.0)
    }
}
