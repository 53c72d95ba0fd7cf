//! `elect`.

use bytes::Bytes;
use gonfalon_proto::{etcdserverpb as pb, mvccpb};
use serde::Serialize;

use crate::commands::lock;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::{Out, Page, Show, json};
use crate::parse;
use crate::range::Range;
use crate::recipes::asked_to_stop;
use crate::recipes::ownership;
use crate::recipes::session::Session;
use crate::watching::{self, Watcher};

/// Stand for an election, or watch one
///
/// With VALUE: waits until elected, says so, and stays elected until Ctrl-C. With --listen: shows
/// who is elected, and each change.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Elect {
    /// The election's name
    #[arg(value_parser = parse::name())]
    name: Bytes,
    /// What others are to know of the winner, such as its address
    #[arg(value_parser = parse::raw(), required_unless_present = "listen", conflicts_with = "listen")]
    value: Option<Bytes>,
    /// Only watch
    #[arg(short, long)]
    listen: bool,
    /// How long a dead winner stays elected: seconds, or a duration
    #[arg(long, value_parser = parse::seconds, allow_hyphen_values = true, default_value = "60")]
    ttl: i64,
}

impl Elect {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("elect")?;
        match &self.value {
            Some(value) => self.campaign(connection, out, value).await,
            None => listen(connection, out, &self.name).await,
        }
    }

    async fn campaign(
        &self,
        connection: &Connection,
        out: &mut Out,
        value: &Bytes,
    ) -> Result<(), Failure> {
        let mut session = Session::grant(connection, self.ttl).await?;
        let lease = session.lease;
        let result = tokio::select! {
            biased;
            stop = asked_to_stop() => stop.map(drop),
            lost = session.keep(connection, async |_| Ok(())) => Err(lost),
            done = self.lead(connection, out, lease, value) => done,
        };
        let resigned = Session::revoke(lease, connection).await;
        result.and(resigned)
    }

    /// Waits for the election and then holds it for good.
    async fn lead(
        &self,
        connection: &Connection,
        out: &mut Out,
        lease: i64,
        value: &Bytes,
    ) -> Result<(), Failure> {
        let place = ownership::enter(connection, &self.name, lease, value).await?;
        ownership::wait(connection, &self.name, &place).await?;
        out.show(&Leader(&lock::key(connection, &place).await?))?;
        std::future::pending().await
    }
}

async fn listen(connection: &Connection, out: &mut Out, name: &Bytes) -> Result<(), Failure> {
    let mut shown = None;
    let now = show_new(connection, out, name, &mut shown).await?;
    let watchers = vec![Watcher::new(Range::prefix(&ownership::line(name)), now + 1)];
    let options = watching::Options {
        prev_kv: false,
        progress_notify: false,
    };
    watching::follow(connection, watchers, options, async |_| {
        show_new(connection, out, name, &mut shown).await.map(drop)
    })
    .await
}

/// Shows who is elected if that has changed; gives the revision at which it was read.
async fn show_new(
    connection: &Connection,
    out: &mut Out,
    name: &Bytes,
    shown: &mut Option<mvccpb::KeyValue>,
) -> Result<i64, Failure> {
    let response = ownership::owner(connection, name).await?;
    let owner = response.kvs.first().cloned();
    if owner.is_some() && owner != *shown {
        out.show(&Leader(&response))?;
        *shown = owner;
    }
    Ok(response.header.as_ref().map_or(0, |header| header.revision))
}

/// Who is elected.
struct Leader<'a>(&'a pb::RangeResponse);

impl Show for Leader<'_> {
    fn human(&self, page: &mut Page) {
        for kv in &self.0.kvs {
            let (key, value) = (page.style.shown(&kv.key), page.style.shown(&kv.value));
            page.line(format!(
                "elected: {value} ({key}, revision {})",
                kv.mod_revision
            ));
        }
    }

    fn simple(&self, page: &mut Page) {
        for kv in &self.0.kvs {
            page.raw(&kv.key);
            page.raw(&kv.value);
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
