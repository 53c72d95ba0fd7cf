//! Whether a server answers, agrees with the others, and has no alarm.

use std::time::{Duration, Instant};

use bytes::Bytes;
use gonfalon_proto::etcdserverpb as pb;
use serde::Serialize;

use crate::connection::{self, Connection, Repeat};
use crate::failure::Failure;
use crate::output::fields::Fields;
use crate::output::table::Rows;
use crate::output::{Page, Show, Style, json, text};

/// What was found about one server.
pub(super) struct Health {
    endpoint: String,
    took: Duration,
    error: Option<String>,
}

impl Health {
    pub(super) fn is_healthy(&self) -> bool {
        self.error.is_none()
    }
}

/// Reads a key with the agreement of a majority, then asks for alarms.
pub(super) async fn check(server: &Connection) -> Health {
    let start = Instant::now();
    let read = read(server).await;
    let took = start.elapsed();
    let error = match read {
        Ok(()) => alarms(server).await,
        Err(failure) => Some(failure.what().to_owned()),
    };
    Health {
        endpoint: server.name().to_owned(),
        took,
        error,
    }
}

async fn read(server: &Connection) -> Result<(), Failure> {
    let request = pb::RangeRequest {
        key: Bytes::from_static(b"health"),
        ..Default::default()
    };
    let read = server
        .call(Repeat::Pointless, async |channel| {
            connection::kv(channel).range(request.clone()).await
        })
        .await;
    match read {
        // To be refused, one must have been heard by a majority.
        Err(failure) if failure.what() == "etcdserver: permission denied" => Ok(()),
        read => read.map(drop),
    }
}

async fn alarms(server: &Connection) -> Option<String> {
    let request = pb::AlarmRequest::default();
    let alarms = server
        .call(Repeat::Pointless, async |channel| {
            connection::maintenance(channel).alarm(request).await
        })
        .await;
    match alarms {
        Err(failure) => Some(format!(
            "unable to fetch the alarm list: {}",
            failure.what()
        )),
        Ok(list) if list.alarms.is_empty() => None,
        Ok(list) => {
            let names = list.alarms.iter().map(|alarm| alarm.alarm().as_str_name());
            Some(format!(
                "active alarms: {}",
                names.collect::<Vec<_>>().join(", ")
            ))
        }
    }
}

/// All servers.
pub(super) struct Healths(pub(super) Vec<Health>);

impl Show for Healths {
    fn human(&self, page: &mut Page) {
        self.simple(page);
    }

    fn simple(&self, page: &mut Page) {
        for health in &self.0 {
            let (endpoint, took) = (&health.endpoint, text::go_duration(health.took));
            page.line(match &health.error {
                None => {
                    format!("{endpoint} is healthy: successfully committed proposal: took = {took}")
                }
                Some(why) => format!("{endpoint} is unhealthy: failed to commit proposal: {why}"),
            });
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        for health in &self.0 {
            fields.quoted("Endpoint", health.endpoint.as_bytes());
            fields.add("Health", health.is_healthy());
            fields.add("Took", text::go_duration(health.took));
            fields.add("Error", health.error.as_deref().unwrap_or_default());
            fields.gap();
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        let json = |health: &Health| json::Health {
            endpoint: health.endpoint.clone(),
            is_healthy: health.is_healthy(),
            took: text::go_duration(health.took),
            error: health.error.clone().unwrap_or_default(),
        };
        self.0.iter().map(json).collect::<Vec<_>>()
    }

    fn rows(&self, _: Style) -> Option<Rows> {
        let row = |health: &Health| {
            vec![
                health.endpoint.clone(),
                health.is_healthy().to_string(),
                text::took(health.took),
                health.error.clone().unwrap_or_default(),
            ]
        };
        Some(Rows {
            heads: &["ENDPOINT", "HEALTH", "TOOK", "ERROR"],
            rows: self.0.iter().map(row).collect(),
        })
    }
}
