//! `del`.

use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::{Out, Page, Show, json, text};
use crate::range::Keys;

/// Delete a key or a range of keys
#[derive(Debug, Clone, clap::Parser)]
pub(crate) struct Del {
    #[command(flatten)]
    keys: Keys,
    /// Show what was deleted
    #[arg(long)]
    prev_kv: bool,
    /// Means nothing here: etcdctl waits two seconds before it deletes a range, and not with this
    #[arg(long = "range", hide = true)]
    _range: bool,
}

impl Del {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("del")?;
        let request = self.request()?;
        let response = connection
            .call(Repeat::Never, async |channel| {
                connection::kv(channel).delete_range(request.clone()).await
            })
            .await?;
        out.show(&Deleted(&response))
    }

    /// The request on the wire; `txn` has the same command inside.
    pub(crate) fn request(&self) -> Result<pb::DeleteRangeRequest, Failure> {
        let range = self.keys.range()?;
        Ok(pb::DeleteRangeRequest {
            key: range.key,
            range_end: range.end,
            prev_kv: self.prev_kv,
        })
    }
}

/// What was deleted.
pub(crate) struct Deleted<'a>(pub(crate) &'a pb::DeleteRangeResponse);

impl Show for Deleted<'_> {
    fn human(&self, page: &mut Page) {
        let revision = self.0.header.as_ref().map_or(0, |header| header.revision);
        let keys = text::count(self.0.deleted, "key");
        page.line(format!("{keys} deleted, revision {revision}"));
        for kv in &self.0.prev_kvs {
            let (key, value) = (page.style.shown(&kv.key), page.style.shown(&kv.value));
            page.line(format!("{key} was {value} (revision {})", kv.mod_revision));
        }
    }

    fn simple(&self, page: &mut Page) {
        page.line(self.0.deleted.to_string());
        for kv in &self.0.prev_kvs {
            page.raw(&kv.key);
            page.raw(&kv.value);
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.0.header.as_ref());
        fields.add("Deleted", self.0.deleted);
        for kv in &self.0.prev_kvs {
            fields.kv("Prev", kv);
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        json::Delete::from(self.0)
    }
}
