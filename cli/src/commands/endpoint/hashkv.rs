//! A hash of a server's history.

use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::table::Rows;
use crate::output::{Page, Show, Style, json};

/// Asks one server.
pub(super) async fn ask(
    server: &Connection,
    revision: i64,
) -> Result<(String, pb::HashKvResponse), Failure> {
    let request = pb::HashKvRequest { revision };
    let hash = server
        .call(Repeat::Pointless, async |channel| {
            connection::maintenance(channel).hash_kv(request).await
        })
        .await?;
    Ok((server.name().to_owned(), hash))
}

/// All servers that answered.
pub(super) struct Hashes(pub(super) Vec<(String, pb::HashKvResponse)>);

impl Show for Hashes {
    fn human(&self, page: &mut Page) {
        self.simple(page);
    }

    fn simple(&self, page: &mut Page) {
        for (endpoint, hash) in &self.0 {
            page.line(format!("{endpoint}, {}", hash.hash));
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        for (endpoint, hash) in &self.0 {
            fields.header(hash.header.as_ref());
            fields.quoted("Endpoint", endpoint.as_bytes());
            fields.add("Hash", hash.hash);
            fields.add("HashRevision", hash.hash_revision);
            fields.gap();
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        let json = |(endpoint, hash): &(String, pb::HashKvResponse)| json::EndpointHash {
            endpoint: endpoint.clone(),
            hash: hash.into(),
        };
        self.0.iter().map(json).collect::<Vec<_>>()
    }

    fn rows(&self, _: Style) -> Option<Rows> {
        let row = |(endpoint, hash): &(String, pb::HashKvResponse)| {
            vec![
                endpoint.clone(),
                hash.hash.to_string(),
                hash.hash_revision.to_string(),
                hash.compact_revision.to_string(),
            ]
        };
        Some(Rows {
            heads: &["ENDPOINT", "HASH", "HASH REVISION", "COMPACT REVISION"],
            rows: self.0.iter().map(row).collect(),
        })
    }
}
