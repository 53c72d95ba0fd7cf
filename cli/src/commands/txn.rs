//! `txn`.

mod script;
mod words;

use std::io::{self, BufRead as _};

use gonfalon_proto::etcdserverpb as pb;
use pb::response_op::Response;
use serde::Serialize;

use crate::commands::del::Deleted;
use crate::commands::get::Got;
use crate::commands::put::Written;
use crate::connection::{self, Connection, Repeat};
use crate::failure::{Failure, note};
use crate::output::fields::Fields;
use crate::output::{Out, Page, Show, json};
use script::{Script, Section};

/// Compare keys, then read and write, in one step
///
/// Reads three parts from standard input, each ended by an empty line: what must hold, what to do if
/// it all does, and what to do if not.
///
///     mod("a") > "0"                 also: create, version, value, lease; = != < >
///     value("b") = "x"
///
///     put a "two words"              get, put and del with their own flags
///     get b
///
///     del --prefix c
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Txn {
    /// Say what is to be typed, and let a wrong line be typed again
    #[arg(short, long)]
    interactive: bool,
}

impl Txn {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        out.no_table("txn")?;
        let request = self.read(out)?;
        let response = connection
            .call(Repeat::Never, async |channel| {
                connection::kv(channel).txn(request.clone()).await
            })
            .await?;
        out.show(&Done(&response))
    }

    fn read(&self, out: &mut Out) -> Result<pb::TxnRequest, Failure> {
        let mut script = Script::default();
        let mut lines = io::stdin().lock().lines();
        let mut number = 0;
        let mut asked = None;
        while let Some(section) = script.section() {
            if self.interactive && asked != Some(section) {
                out.line(prompt(section))?;
                asked = Some(section);
            }
            number += 1;
            let Some(line) = lines.next() else {
                // What was cut off could have been another condition.
                let what = "the text ended before its third part did; nothing was done";
                return Err(
                    Failure::usage(what).next("An empty line ends each of the three parts.")
                );
            };
            let line = line.map_err(|err| Failure::failed(format!("standard input: {err}")))?;
            match script.line(&line) {
                Ok(()) => {}
                Err(why) if self.interactive => note(format_args!("{why}; once more:")),
                Err(why) => return Err(Failure::usage(format!("line {number}: {why}"))),
            }
        }
        Ok(script.request())
    }
}

fn prompt(section: Section) -> &'static str {
    match section {
        Section::Compares => "compares:",
        Section::Success => "success requests (get, put, del):",
        Section::Failure => "failure requests (get, put, del):",
    }
}

/// What a transaction did.
struct Done<'a>(&'a pb::TxnResponse);

impl Done<'_> {
    fn word(&self) -> &'static str {
        if self.0.succeeded {
            "SUCCESS"
        } else {
            "FAILURE"
        }
    }

    fn answers(&self) -> impl Iterator<Item = &Response> {
        self.0
            .responses
            .iter()
            .filter_map(|op| op.response.as_ref())
    }
}

fn got(response: &pb::RangeResponse) -> Got<'_> {
    // Which flags the read had is not in the answer: without keys, only a count can be shown.
    let count_only = response.kvs.is_empty() && response.count > 0;
    Got {
        response,
        keys_only: false,
        count_only,
    }
}

impl Show for Done<'_> {
    fn human(&self, page: &mut Page) {
        let revision = self.0.header.as_ref().map_or(0, |header| header.revision);
        page.line(format!("{}, revision {revision}", self.word()));
        for answer in self.answers() {
            page.line("");
            match answer {
                Response::ResponseRange(range) => match got(range).rows(page.style) {
                    Some(rows) => page.text(&rows.plain(page.style.width)),
                    None => got(range).human(page),
                },
                Response::ResponsePut(put) => Written {
                    response: put,
                    lease: None,
                }
                .human(page),
                Response::ResponseDeleteRange(delete) => Deleted(delete).human(page),
                Response::ResponseTxn(txn) => Done(txn).human(page),
            }
        }
    }

    fn simple(&self, page: &mut Page) {
        page.line(self.word());
        for answer in self.answers() {
            page.line("");
            match answer {
                Response::ResponseRange(range) => got(range).simple(page),
                Response::ResponsePut(put) => Written {
                    response: put,
                    lease: None,
                }
                .simple(page),
                Response::ResponseDeleteRange(delete) => Deleted(delete).simple(page),
                Response::ResponseTxn(txn) => Done(txn).simple(page),
            }
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.0.header.as_ref());
        fields.add("Succeeded", self.0.succeeded);
        for answer in self.answers() {
            fields.append(&match answer {
                Response::ResponseRange(range) => got(range).fields(),
                Response::ResponsePut(put) => Written {
                    response: put,
                    lease: None,
                }
                .fields(),
                Response::ResponseDeleteRange(delete) => Deleted(delete).fields(),
                Response::ResponseTxn(txn) => Done(txn).fields(),
            });
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        json::Txn::from(self.0)
    }
}
