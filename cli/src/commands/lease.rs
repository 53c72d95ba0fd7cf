//! `lease grant|revoke|timetolive|list|keep-alive`.

use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Response;

use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::json::{self, Header};
use crate::output::table::Rows;
use crate::output::text::{self, lease_id};
use crate::output::{Out, Page, Show, Style};
use crate::parse;
use crate::recipes::session::Session;

/// Keys that vanish when nobody renews them
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Lease {
    /// Make a lease
    Grant {
        /// How long it lasts without renewal: seconds, or a duration (60, 60s, 5m)
        #[arg(value_parser = parse::seconds, allow_negative_numbers = true)]
        ttl: i64,
    },
    /// End a lease and delete its keys
    Revoke {
        /// The lease (hexadecimal)
        #[arg(value_parser = parse::lease_id)]
        id: i64,
    },
    /// Show how long a lease has left
    #[command(name = "timetolive", alias = "ttl")]
    TimeToLive {
        /// The lease (hexadecimal)
        #[arg(value_parser = parse::lease_id)]
        id: i64,
        /// Show its keys
        #[arg(long)]
        keys: bool,
    },
    /// Show all leases
    List,
    /// Renew a lease again and again, until it is gone or this ends
    #[command(alias = "keepalive")]
    KeepAlive {
        /// The lease (hexadecimal)
        #[arg(value_parser = parse::lease_id)]
        id: i64,
        /// Renew it once
        #[arg(long)]
        once: bool,
    },
}

impl Lease {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        if !matches!(self, Self::List) {
            out.no_table("this command")?;
        }
        match self {
            Self::Grant { ttl } => grant(connection, out, ttl).await,
            Self::Revoke { id } => revoke(connection, out, id).await,
            Self::TimeToLive { id, keys } => time_to_live(connection, out, id, keys).await,
            Self::List => list(connection, out).await,
            Self::KeepAlive { id, once: true } => renew_once(connection, out, id).await,
            Self::KeepAlive { id, once: false } => {
                let shown = async |answer: &pb::LeaseKeepAliveResponse| out.show(&Renewed(answer));
                Err(Session::of(id).keep(connection, shown).await)
            }
        }
    }
}

async fn grant(connection: &Connection, out: &mut Out, ttl: i64) -> Result<(), Failure> {
    let request = pb::LeaseGrantRequest { ttl, id: 0 };
    let response = connection
        .call(Repeat::Never, async |channel| {
            connection::lease(channel).lease_grant(request).await
        })
        .await?;
    out.show(&Granted(&response))
}

async fn revoke(connection: &Connection, out: &mut Out, id: i64) -> Result<(), Failure> {
    let request = pb::LeaseRevokeRequest { id };
    let response = connection
        .call(Repeat::Never, async |channel| {
            connection::lease(channel).lease_revoke(request).await
        })
        .await?;
    out.show(&Revoked {
        id,
        response: &response,
    })
}

async fn time_to_live(
    connection: &Connection,
    out: &mut Out,
    id: i64,
    keys: bool,
) -> Result<(), Failure> {
    let request = pb::LeaseTimeToLiveRequest { id, keys };
    let response = connection
        .call(Repeat::Safe, async |channel| {
            connection::lease(channel).lease_time_to_live(request).await
        })
        .await?;
    out.show(&TimeToLive {
        response: &response,
        keys,
    })
}

async fn list(connection: &Connection, out: &mut Out) -> Result<(), Failure> {
    let response = connection
        .call(Repeat::Safe, async |channel| {
            connection::lease(channel)
                .lease_leases(pb::LeaseLeasesRequest {})
                .await
        })
        .await?;
    out.show(&Leases(&response))
}

async fn renew_once(connection: &Connection, out: &mut Out, id: i64) -> Result<(), Failure> {
    let answer = connection
        .call(Repeat::Safe, async |channel| {
            let (send, receive) = mpsc::channel(1);
            // The queue has room for it.
            send.send(pb::LeaseKeepAliveRequest { id }).await.ok();
            let mut client = connection::lease(channel);
            let mut stream = client
                .lease_keep_alive(ReceiverStream::new(receive))
                .await?
                .into_inner();
            let answer = stream.message().await?;
            answer
                .map(Response::new)
                .ok_or_else(|| tonic::Status::unavailable("no answer"))
        })
        .await?;
    if answer.ttl <= 0 {
        return Err(Failure::failed(format!(
            "lease {} expired or was revoked",
            lease_id(id)
        )));
    }
    out.show(&Renewed(&answer))
}

struct Granted<'a>(&'a pb::LeaseGrantResponse);

impl Show for Granted<'_> {
    fn human(&self, page: &mut Page) {
        page.line(format!(
            "lease {}, {}",
            lease_id(self.0.id),
            text::seconds(self.0.ttl)
        ));
    }

    fn simple(&self, page: &mut Page) {
        page.line(format!(
            "lease {} granted with TTL({}s)",
            lease_id(self.0.id),
            self.0.ttl
        ));
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.0.header.as_ref());
        fields.add("ID", self.0.id);
        fields.add("TTL", self.0.ttl);
        fields
    }

    fn json(&self) -> impl Serialize {
        let header = Header::of(self.0.header.as_ref());
        json::Lease {
            header,
            id: self.0.id,
            ttl: self.0.ttl,
            error: Some(""),
        }
    }
}

struct Revoked<'a> {
    id: i64,
    response: &'a pb::LeaseRevokeResponse,
}

impl Show for Revoked<'_> {
    fn human(&self, page: &mut Page) {
        self.simple(page);
    }

    fn simple(&self, page: &mut Page) {
        page.line(format!("lease {} revoked", lease_id(self.id)));
    }

    fn fields(&self) -> Fields {
        Fields::headed(self.response.header.as_ref())
    }

    fn json(&self) -> impl Serialize {
        json::HeaderOnly {
            header: Header::of(self.response.header.as_ref()),
        }
    }
}

struct TimeToLive<'a> {
    response: &'a pb::LeaseTimeToLiveResponse,
    keys: bool,
}

impl Show for TimeToLive<'_> {
    fn human(&self, page: &mut Page) {
        let id = lease_id(self.response.id);
        if self.response.ttl < 0 {
            return page.line(format!(
                "lease {id} does not exist: expired, revoked, or never granted"
            ));
        }
        let (left, granted) = (
            text::seconds(self.response.ttl),
            text::seconds(self.response.granted_ttl),
        );
        page.line(format!("lease {id}: {left} left of {granted}"));
        if self.keys {
            let count = i64::try_from(self.response.keys.len()).unwrap_or(i64::MAX);
            page.line(text::count(count, "key"));
            for key in &self.response.keys {
                page.line(format!("  {}", page.style.shown(key)));
            }
        }
    }

    fn simple(&self, page: &mut Page) {
        let id = lease_id(self.response.id);
        if self.response.ttl < 0 {
            return page.line(format!("lease {id} already expired"));
        }
        let (granted, left) = (self.response.granted_ttl, self.response.ttl);
        let mut line = format!("lease {id} granted with TTL({granted}s), remaining({left}s)");
        if self.keys {
            let keys: Vec<_> = self
                .response
                .keys
                .iter()
                .map(|key| page.style.shown(key))
                .collect();
            line.push_str(", attached keys([");
            line.push_str(&keys.join(" "));
            line.push_str("])");
        }
        page.line(line);
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.response.header.as_ref());
        fields.add("ID", self.response.id);
        fields.add("TTL", self.response.ttl);
        fields.add("GrantedTTL", self.response.granted_ttl);
        for key in &self.response.keys {
            fields.quoted("Key", key);
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        json::TimeToLive {
            header: Header::of(self.response.header.as_ref()),
            id: self.response.id,
            ttl: self.response.ttl,
            granted_ttl: self.response.granted_ttl,
            keys: self.response.keys.clone(),
        }
    }
}

struct Leases<'a>(&'a pb::LeaseLeasesResponse);

impl Show for Leases<'_> {
    fn human(&self, page: &mut Page) {
        self.simple(page);
    }

    fn simple(&self, page: &mut Page) {
        page.line(format!("found {} leases", self.0.leases.len()));
        for lease in &self.0.leases {
            page.line(lease_id(lease.id));
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.0.header.as_ref());
        for lease in &self.0.leases {
            fields.add("ID", lease.id);
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        json::Leases {
            header: Header::of(self.0.header.as_ref()),
            leases: self
                .0
                .leases
                .iter()
                .map(|lease| json::LeaseId { id: lease.id })
                .collect(),
        }
    }

    fn rows(&self, _: Style) -> Option<Rows> {
        let rows = self
            .0
            .leases
            .iter()
            .map(|lease| vec![lease_id(lease.id)])
            .collect();
        Some(Rows {
            heads: &["LEASE"],
            rows,
        })
    }
}

struct Renewed<'a>(&'a pb::LeaseKeepAliveResponse);

impl Show for Renewed<'_> {
    fn human(&self, page: &mut Page) {
        page.line(format!(
            "lease {} renewed for {}",
            lease_id(self.0.id),
            text::seconds(self.0.ttl)
        ));
    }

    fn simple(&self, page: &mut Page) {
        page.line(format!(
            "lease {} keepalived with TTL({})",
            lease_id(self.0.id),
            self.0.ttl
        ));
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.0.header.as_ref());
        fields.add("ID", self.0.id);
        fields.add("TTL", self.0.ttl);
        fields
    }

    fn json(&self) -> impl Serialize {
        let header = Header::of(self.0.header.as_ref());
        json::Lease {
            header,
            id: self.0.id,
            ttl: self.0.ttl,
            error: None,
        }
    }
}
