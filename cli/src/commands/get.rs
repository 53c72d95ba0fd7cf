//! `get`.

use gonfalon_proto::etcdserverpb as pb;
use pb::range_request::{SortOrder, SortTarget};
use serde::Serialize;
use tokio_stream::StreamExt as _;
use tonic::{Response, Status};

use crate::connection::{self, Connection, Repeat};
use crate::failure::{Failure, note};
use crate::output::fields::Fields;
use crate::output::table::Rows;
use crate::output::{Format, Out, Page, Show, Style, json, text};
use crate::parse;
use crate::range::Keys;

/// Read a key or a range of keys
#[derive(Debug, Clone, clap::Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each switch that a user has"
)]
pub(crate) struct Get {
    #[command(flatten)]
    keys: Keys,
    /// Read as it was at this revision
    #[arg(long, value_parser = parse::count, allow_negative_numbers = true, default_value_t = 0, hide_default_value = true)]
    rev: i64,
    /// At most this many keys; 0: all
    #[arg(long, value_parser = parse::count, allow_negative_numbers = true, default_value_t = 0, hide_default_value = true)]
    limit: i64,
    /// Which way to sort
    #[arg(long, value_enum, ignore_case = true)]
    order: Option<Order>,
    /// What to sort by
    #[arg(long, value_enum, value_name = "WHAT", ignore_case = true)]
    sort_by: Option<SortBy>,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// Only count the keys
    #[arg(long, conflicts_with_all = ["keys_only", "print_value_only"])]
    count_only: bool,
    /// Write the values, byte for byte, and nothing else
    #[arg(long, conflicts_with = "keys_only")]
    print_value_only: bool,
    /// l: linearizable, the newest there is; s: serializable, what the member has
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Consistency::L)]
    consistency: Consistency,
    /// Only keys that were last changed at this revision or later
    #[arg(long, value_parser = parse::count, allow_negative_numbers = true, value_name = "REV", default_value_t = 0, hide_default_value = true)]
    min_mod_rev: i64,
    /// Only keys that were last changed at this revision or earlier
    #[arg(long, value_parser = parse::count, allow_negative_numbers = true, value_name = "REV", default_value_t = 0, hide_default_value = true)]
    max_mod_rev: i64,
    /// Only keys that were created at this revision or later
    #[arg(long, value_parser = parse::count, allow_negative_numbers = true, value_name = "REV", default_value_t = 0, hide_default_value = true)]
    min_create_rev: i64,
    /// Only keys that were created at this revision or earlier
    #[arg(long, value_parser = parse::count, allow_negative_numbers = true, value_name = "REV", default_value_t = 0, hide_default_value = true)]
    max_create_rev: i64,
    /// Let the server send a large answer in pieces (etcd 3.7 and later)
    #[arg(long)]
    stream: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    Ascend,
    Descend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SortBy {
    Create,
    Key,
    Modify,
    Value,
    Version,
}

/// Which state is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Consistency {
    // Linearizable; no text for the help, which would take two lines for each option then.
    L,
    // Serializable.
    S,
}

impl Get {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        let request = self.request()?;
        let one_key = self.keys.range()?.is_one_key();
        let response = connection
            .call(Repeat::Safe, async |channel| {
                let mut kv = connection::kv(channel);
                if self.stream {
                    let stream = kv.range_stream(request.clone()).await?.into_inner();
                    return joined(stream).await.map(Response::new);
                }
                kv.range(request.clone()).await
            })
            .await?;
        if self.print_value_only && matches!(out.format(), Format::Human | Format::Simple) {
            return values(out, &response);
        }
        if out.format() == Format::Human && !self.count_only {
            if one_key && response.kvs.is_empty() {
                note(format_args!(
                    "There is no such key (revision {}).",
                    revision(&response)
                ));
                return Ok(());
            }
            out.show(&Got {
                response: &response,
                keys_only: self.keys_only,
                count_only: false,
            })?;
            if response.more {
                let count = response.count;
                note(format_args!(
                    "There are more: {count} keys in all; --limit was {}.",
                    self.limit
                ));
            }
            return Ok(());
        }
        out.show(&Got {
            response: &response,
            keys_only: self.keys_only,
            count_only: self.count_only,
        })
    }

    /// The request on the wire; `txn` has the same command inside.
    pub(crate) fn request(&self) -> Result<pb::RangeRequest, Failure> {
        let range = self.keys.range()?;
        let sort_target = match self.sort_by {
            None | Some(SortBy::Key) => SortTarget::Key,
            Some(SortBy::Version) => SortTarget::Version,
            Some(SortBy::Create) => SortTarget::Create,
            Some(SortBy::Modify) => SortTarget::Mod,
            Some(SortBy::Value) => SortTarget::Value,
        };
        let sort_order = match (self.order, self.sort_by) {
            (None, None) => SortOrder::None,
            // Without an order a server would apply the limit before it sorts.
            (None, Some(_)) | (Some(Order::Ascend), _) => SortOrder::Ascend,
            (Some(Order::Descend), _) => SortOrder::Descend,
        };
        Ok(pb::RangeRequest {
            key: range.key,
            range_end: range.end,
            limit: self.limit,
            revision: self.rev,
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable: self.consistency == Consistency::S,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_rev,
            max_mod_revision: self.max_mod_rev,
            min_create_revision: self.min_create_rev,
            max_create_revision: self.max_create_rev,
        })
    }
}

/// Puts the pieces of a streamed answer together.
async fn joined(
    mut stream: tonic::Streaming<pb::RangeStreamResponse>,
) -> Result<pb::RangeResponse, Status> {
    let mut whole = pb::RangeResponse::default();
    while let Some(piece) = stream.next().await {
        let Some(piece) = piece?.range_response else {
            continue;
        };
        whole.kvs.extend(piece.kvs);
        whole.header = piece.header.or(whole.header);
        whole.more |= piece.more;
        whole.count += piece.count;
    }
    Ok(whole)
}

fn values(out: &mut Out, response: &pb::RangeResponse) -> Result<(), Failure> {
    out.show(&Values(response))
}

fn revision(response: &pb::RangeResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

/// What a range read found.
pub(crate) struct Got<'a> {
    pub(crate) response: &'a pb::RangeResponse,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
}

impl Show for Got<'_> {
    fn human(&self, page: &mut Page) {
        page.line(text::count(self.response.count, "key"));
    }

    fn simple(&self, page: &mut Page) {
        if self.count_only {
            return page.line(self.response.count.to_string());
        }
        for kv in &self.response.kvs {
            page.raw(&kv.key);
            page.raw(&kv.value);
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.response.header.as_ref());
        for kv in &self.response.kvs {
            fields.kv("", kv);
        }
        fields.add("More", self.response.more);
        fields.add("Count", self.response.count);
        fields
    }

    fn json(&self) -> impl Serialize {
        json::Range::from(self.response)
    }

    fn rows(&self, style: Style) -> Option<Rows> {
        if self.count_only {
            return None;
        }
        let heads: &[&str] = if self.keys_only {
            &["KEY", "REVISION", "VERSION"]
        } else {
            &["KEY", "REVISION", "VERSION", "LEASE", "VALUE"]
        };
        let rows = self.response.kvs.iter().map(|kv| {
            let mut row = vec![
                style.shown(&kv.key),
                kv.mod_revision.to_string(),
                kv.version.to_string(),
            ];
            if !self.keys_only {
                row.push(if kv.lease == 0 {
                    "-".to_owned()
                } else {
                    text::lease_id(kv.lease)
                });
                row.push(style.shown(&kv.value));
            }
            row
        });
        Some(Rows {
            heads,
            rows: rows.collect(),
        })
    }
}

/// The values and nothing else.
struct Values<'a>(&'a pb::RangeResponse);

impl Show for Values<'_> {
    fn human(&self, page: &mut Page) {
        self.simple(page);
    }

    fn simple(&self, page: &mut Page) {
        for kv in &self.0.kvs {
            page.raw(&kv.value);
        }
    }

    fn fields(&self) -> Fields {
        Got {
            response: self.0,
            keys_only: false,
            count_only: false,
        }
        .fields()
    }

    fn json(&self) -> impl Serialize {
        json::Range::from(self.0)
    }
}
