//! `alarm list|disarm`.

use gonfalon_proto::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use serde::Serialize;

use crate::connection::{self, Connection, Repeat};
use crate::failure::{Failure, note};
use crate::output::fields::Fields;
use crate::output::table::Rows;
use crate::output::{Format, Out, Page, Show, Style, json};

/// What stops the cluster from writing
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Alarm {
    /// Show the alarms
    List,
    /// Turn all alarms off
    Disarm,
}

impl Alarm {
    pub(crate) async fn run(self, connection: &Connection, out: &mut Out) -> Result<(), Failure> {
        let list = ask(connection, pb::AlarmRequest::default()).await?;
        let is_off = matches!(self, Self::Disarm);
        let alarms = match self {
            Self::List => list,
            Self::Disarm => disarm(connection, list).await?,
        };
        if alarms.alarms.is_empty() && out.format() == Format::Human {
            note("There are no alarms.");
            return Ok(());
        }
        if is_off && out.format() == Format::Human {
            out.line("Turned off:")?;
        }
        out.show(&Alarms(&alarms))
    }
}

/// Turns the alarms of a list off, each by itself; gives what the server turned off.
async fn disarm(
    connection: &Connection,
    list: pb::AlarmResponse,
) -> Result<pb::AlarmResponse, Failure> {
    let mut done = pb::AlarmResponse {
        header: list.header,
        alarms: Vec::new(),
    };
    for alarm in list.alarms {
        let request = pb::AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        let response = ask(connection, request).await?;
        done.header = response.header.or(done.header);
        done.alarms.extend(response.alarms);
    }
    Ok(done)
}

async fn ask(
    connection: &Connection,
    request: pb::AlarmRequest,
) -> Result<pb::AlarmResponse, Failure> {
    connection
        .call(Repeat::Safe, async |channel| {
            connection::maintenance(channel).alarm(request).await
        })
        .await
}

struct Alarms<'a>(&'a pb::AlarmResponse);

impl Show for Alarms<'_> {
    fn human(&self, page: &mut Page) {
        self.simple(page);
    }

    fn simple(&self, page: &mut Page) {
        for alarm in &self.0.alarms {
            let kind = alarm.alarm().as_str_name();
            page.line(format!("memberID:{} alarm:{kind} ", alarm.member_id));
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::headed(self.0.header.as_ref());
        for alarm in &self.0.alarms {
            fields.add("MemberID", alarm.member_id);
            fields.add("AlarmType", alarm.alarm().as_str_name());
        }
        fields
    }

    fn json(&self) -> impl Serialize {
        json::Alarms::from(self.0)
    }

    fn rows(&self, _: Style) -> Option<Rows> {
        let row = |alarm: &pb::AlarmMember| {
            vec![
                format!("{:x}", alarm.member_id),
                alarm.alarm().as_str_name().to_owned(),
            ]
        };
        Some(Rows {
            heads: &["MEMBER", "ALARM"],
            rows: self.0.alarms.iter().map(row).collect(),
        })
    }
}
