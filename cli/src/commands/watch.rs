//! `watch`.

mod exec;

use std::ffi::OsString;

use bytes::Bytes;
use gonfalon_proto::mvccpb::event::EventType;
use gonfalon_proto::{etcdserverpb as pb, mvccpb};
use serde::Serialize;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::{Format, Out, Page, Show, json};
use crate::parse;
use crate::range::{Keys, Range};
use crate::recipes;
use crate::watching::{self, Watcher};

/// Show changes as they happen
///
/// For people, each change is a line: revision, what happened, key, old and new value. When a server
/// is lost, watching goes on at another from the next revision: no change is missed or shown twice.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    keys: Keys,
    /// Watch this key too (with --prefix: all that begin with it); may be given several times
    #[arg(long, value_name = "KEY", value_parser = parse::raw())]
    also: Vec<Bytes>,
    /// Begin with the changes of this revision; 0: with the next change
    #[arg(long, value_parser = parse::count, allow_negative_numbers = true, default_value_t = 0, hide_default_value = true)]
    rev: i64,
    /// Show what was there before; for people it always is
    #[arg(long)]
    prev_kv: bool,
    /// Say now and then which revision was reached when nothing changes
    #[arg(long)]
    progress_notify: bool,
    /// Run this for each change. Variables tell it which: `GONFALON_WATCH_KEY`, `..._VALUE`,
    /// `..._PREV_VALUE`, `..._REVISION` and `..._EVENT_TYPE`; and etcdctl's `ETCD_WATCH_...`, with
    /// texts between quotes
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Watch {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("watch")?;
        self.refuse_no_key()?;
        recipes::check(&self.command)?;
        let human = out.format() == Format::Human;
        let mut ranges = vec![self.keys.range()?];
        for key in &self.also {
            ranges.push(if self.keys.prefix {
                Range::prefix(key)
            } else {
                Range {
                    key: key.clone(),
                    end: Bytes::new(),
                }
            });
        }
        let watchers = ranges
            .into_iter()
            .map(|range| Watcher::new(range, self.rev))
            .collect();
        let options = watching::Options {
            prev_kv: self.prev_kv || human || !self.command.is_empty(),
            progress_notify: self.progress_notify,
        };
        // A previous value that was not asked for would change etcdctl's formats.
        let hide_prev = !self.prev_kv && !human;
        watching::follow(connection, watchers, options, async |mut response| {
            if response.events.is_empty() {
                return out.show(&Progress(&response));
            }
            let events = response.events.clone();
            if hide_prev {
                response
                    .events
                    .iter_mut()
                    .for_each(|event| event.prev_kv = None);
            }
            out.show(&Changes(&response))?;
            for event in &events {
                exec::run(&self.command, event).await?;
            }
            Ok(())
        })
        .await
    }
}

impl Watch {
    /// Fails if a key is empty that is to be watched by itself: a server would watch the key of one
    /// zero byte.
    fn refuse_no_key(&self) -> Result<(), Failure> {
        let keys = &self.keys;
        let is_one = !keys.prefix && !keys.from_key && keys.range_end.is_none();
        let of_also = !keys.prefix && self.also.iter().any(Bytes::is_empty);
        if of_also || (is_one && keys.key.is_empty()) {
            return Err(Failure::usage("an empty key cannot be watched")
                .next("For all keys use --prefix with an empty one: watch --prefix ''."));
        }
        Ok(())
    }
}

/// Some changes, in the order in which they happened.
struct Changes<'a>(&'a pb::WatchResponse);

impl Show for Changes<'_> {
    fn human(&self, page: &mut Page) {
        for event in &self.0.events {
            page.line(line(event, page));
        }
    }

    fn simple(&self, page: &mut Page) {
        for event in &self.0.events {
            page.line(event.r#type().as_str_name());
            if let Some(prev) = &event.prev_kv {
                page.raw(&prev.key);
                page.raw(&prev.value);
            }
            if let Some(kv) = &event.kv {
                page.raw(&kv.key);
                page.raw(&kv.value);
            }
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.0.header.as_ref());
        for event in &self.0.events {
            fields.add("Type", event.r#type().as_str_name());
            if let Some(prev) = &event.prev_kv {
                fields.kv("Prev", prev);
            }
            if let Some(kv) = &event.kv {
                fields.kv("", kv);
            }
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        json::Watch::from(self.0)
    }
}

/// One change for people.
fn line(event: &mvccpb::Event, page: &Page) -> String {
    let kv = event.kv.clone().unwrap_or_default();
    let (revision, key) = (kv.mod_revision, page.style.shown(&kv.key));
    let new = page.style.shown(&kv.value);
    let old = match &event.prev_kv {
        Some(prev) => page.style.shown(&prev.value),
        // Compaction may have taken it.
        None => "?".to_owned(),
    };
    match event.r#type() {
        EventType::Put if kv.version == 1 => format!("{revision}  create  {key}  {new}"),
        EventType::Put => format!("{revision}  put     {key}  {old} → {new}"),
        EventType::Delete => format!("{revision}  delete  {key}  was {old}"),
    }
}

/// That nothing has happened up to a revision.
struct Progress<'a>(&'a pb::WatchResponse);

impl Progress<'_> {
    fn revision(&self) -> i64 {
        self.0.header.as_ref().map_or(0, |header| header.revision)
    }
}

impl Show for Progress<'_> {
    fn human(&self, page: &mut Page) {
        page.line(format!("{}  nothing changed up to here", self.revision()));
    }

    fn simple(&self, page: &mut Page) {
        page.line(format!("progress notify: {}", self.revision()));
    }

    fn fields(&self) -> Fields {
        Fields::headed(self.0.header.as_ref())
    }

    fn json(&self) -> impl Serialize {
        json::Watch::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::written;

    fn kv(revision: i64, version: i64, value: &'static str) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(value.as_bytes()),
            mod_revision: revision,
            version,
            ..Default::default()
        }
    }

    fn changes() -> pb::WatchResponse {
        let event = |r#type: EventType, kv, prev_kv| mvccpb::Event {
            r#type: r#type.into(),
            kv: Some(kv),
            prev_kv,
        };
        pb::WatchResponse {
            events: vec![
                event(EventType::Put, kv(5, 1, "a"), None),
                event(EventType::Put, kv(6, 2, "b\n"), Some(kv(5, 1, "a"))),
                event(EventType::Put, kv(7, 3, "c"), None),
                event(EventType::Delete, kv(8, 0, ""), Some(kv(7, 3, "c"))),
            ],
            ..Default::default()
        }
    }

    #[test]
    fn people_see_one_line_for_each_change_with_old_and_new() {
        assert_eq!(
            written(&Changes(&changes()), Format::Human, false),
            "5  create  k  a\n6  put     k  a → b\\n\n7  put     k  ? → c\n8  delete  k  was c\n"
        );
    }

    #[test]
    fn the_simple_form_is_etcdctls() {
        let mut changes = changes();
        changes.events.remove(1);
        assert_eq!(
            written(&Changes(&changes), Format::Simple, false),
            "PUT\nk\na\nPUT\nk\nc\nDELETE\nk\nc\nk\n\n"
        );
    }
}
