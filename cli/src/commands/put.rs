//! `put`.

use std::io::{IsTerminal as _, Read as _};

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::connection::{self, Connection, Repeat};
use crate::failure::{Failure, note};
use crate::output::fields::Fields;
use crate::output::{Out, Page, Show, json, text};
use crate::parse;

/// Write a key
#[derive(Debug, Clone, clap::Parser)]
pub(crate) struct Put {
    /// The key
    #[arg(value_parser = parse::raw())]
    key: Bytes,
    /// The value; without it, standard input is read to its end
    #[arg(value_parser = parse::raw(), allow_negative_numbers = true)]
    value: Option<Bytes>,
    /// The lease with which the key is to vanish (hexadecimal)
    #[arg(long, value_parser = parse::lease_id, value_name = "ID")]
    lease: Option<i64>,
    /// Make a lease of this time (60s, 5m) for the key; somebody must renew it
    #[arg(long, value_parser = parse::seconds, allow_hyphen_values = true, value_name = "TIME", conflicts_with_all = ["lease", "ignore_lease"])]
    ttl: Option<i64>,
    /// Show what was there before
    #[arg(long)]
    prev_kv: bool,
    /// Keep the key's value and change only its lease
    #[arg(long)]
    ignore_value: bool,
    /// Keep the key's lease and change only its value
    #[arg(long)]
    ignore_lease: bool,
}

impl Put {
    pub(crate) async fn run(
        mut self,
        connection: &Connection,
        out: &mut Out,
    ) -> Result<(), Failure> {
        out.no_table("put")?;
        if self.value.is_none() && !self.ignore_value {
            self.value = Some(standard_input()?);
        }
        let lease = match self.ttl {
            Some(ttl) => {
                let granted = grant(connection, ttl).await?;
                self.lease = Some(granted.id);
                Some(granted)
            }
            None => None,
        };
        let request = self.request()?;
        let written = connection
            .call(Repeat::Never, async |channel| {
                connection::kv(channel).put(request.clone()).await
            })
            .await;
        let response = match (written, &lease) {
            (Ok(response), _) => response,
            (Err(failure), None) => return Err(failure),
            (Err(failure), Some(lease)) => {
                // If the key was written after all, it goes with the lease.
                let id = lease.id;
                let request = pb::LeaseRevokeRequest { id };
                let revoked = connection
                    .call(Repeat::Never, async |channel| {
                        connection::lease(channel).lease_revoke(request).await
                    })
                    .await;
                if revoked.is_err() {
                    note(format_args!(
                        "The lease {} is left to expire.",
                        text::lease_id(id)
                    ));
                }
                return Err(failure);
            }
        };
        out.show(&Written {
            response: &response,
            lease: lease.as_ref(),
        })
    }

    /// The request on the wire; `txn` has the same command inside.
    pub(crate) fn request(&self) -> Result<pb::PutRequest, Failure> {
        let value = match (&self.value, self.ignore_value) {
            (Some(_), true) => return Err(Failure::usage("--ignore-value goes without a value")),
            (None, true) => Bytes::new(),
            (Some(value), false) => value.clone(),
            (None, false) => return Err(Failure::usage("put needs a value")),
        };
        if self.ttl.is_some() && self.lease.is_none() {
            return Err(Failure::usage(
                "--ttl does not go into a transaction; grant a lease before",
            ));
        }
        if self.ignore_lease && self.lease.is_some_and(|lease| lease != 0) {
            return Err(Failure::usage("--ignore-lease goes without --lease"));
        }
        Ok(pb::PutRequest {
            key: self.key.clone(),
            value,
            lease: self.lease.unwrap_or(0),
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}

async fn grant(connection: &Connection, ttl: i64) -> Result<pb::LeaseGrantResponse, Failure> {
    let request = pb::LeaseGrantRequest { ttl, id: 0 };
    connection
        .call(Repeat::Never, async |channel| {
            connection::lease(channel).lease_grant(request).await
        })
        .await
}

fn standard_input() -> Result<Bytes, Failure> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        note("Reading the value from here; Ctrl-D ends it.");
    }
    let mut value = Vec::new();
    let read = stdin.read_to_end(&mut value);
    read.map_err(|err| Failure::failed(format!("cannot read standard input: {err}")))?;
    Ok(value.into())
}

/// That a key was written.
pub(crate) struct Written<'a> {
    pub(crate) response: &'a pb::PutResponse,
    pub(crate) lease: Option<&'a pb::LeaseGrantResponse>,
}

impl Show for Written<'_> {
    fn human(&self, page: &mut Page) {
        let revision = self
            .response
            .header
            .as_ref()
            .map_or(0, |header| header.revision);
        page.line(format!("OK, revision {revision}"));
        if let Some(lease) = self.lease {
            let (id, time) = (text::lease_id(lease.id), text::seconds(lease.ttl));
            page.line(format!(
                "lease {id}, {time}; renew it with: gonfalon lease keep-alive {id}"
            ));
        }
        if let Some(prev) = &self.response.prev_kv {
            let was = page.style.shown(&prev.value);
            page.line(format!("was {was} (revision {})", prev.mod_revision));
        }
    }

    fn simple(&self, page: &mut Page) {
        page.line("OK");
        if let Some(lease) = self.lease {
            page.line(format!(
                "lease {} granted with TTL({}s)",
                text::lease_id(lease.id),
                lease.ttl
            ));
        }
        if let Some(prev) = &self.response.prev_kv {
            page.raw(&prev.key);
            page.raw(&prev.value);
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.response.header.as_ref());
        if let Some(lease) = self.lease {
            fields.add("Lease", lease.id);
        }
        if let Some(prev) = &self.response.prev_kv {
            fields.kv("Prev", prev);
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        let mut put = json::Put::from(self.response);
        put.lease = self.lease.map(|lease| lease.id);
        put
    }
}
