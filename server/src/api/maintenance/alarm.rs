//! Alarms: listed, raised and cleared.

use gonfalon_core::command::{AlarmChange, AlarmKind};
use gonfalon_core::{Answer, Command, MemberId, State};
use gonfalon_proto::etcdserverpb as pb;
use pb::AlarmType;
use pb::alarm_request::AlarmAction;

use crate::api::Api;
use crate::api::status::Refusal;

/// Carries out a request. What it names wrongly is no error: nothing happens, as in etcd.
pub(super) async fn answer(
    api: &Api,
    request: pb::AlarmRequest,
) -> Result<pb::AlarmResponse, Refusal> {
    let kind = AlarmType::try_from(request.alarm).ok().and_then(kind);
    let member = MemberId::new(request.member_id);
    let (revision, alarms) = match (AlarmAction::try_from(request.action), kind) {
        (Ok(AlarmAction::Get), _) => {
            api.linearize_unless(false).await?;
            let is_asked_for = |alarm: &pb::AlarmMember| {
                request.alarm == AlarmType::None as i32 || alarm.alarm == request.alarm
            };
            api.node.store().read(|state, _| {
                let alarms = raised(state).into_iter().filter(is_asked_for).collect();
                (state.revision(), alarms)
            })
        }
        (Ok(AlarmAction::Activate), Some(kind)) => change(api, true, member, kind).await?,
        (Ok(AlarmAction::Deactivate), Some(kind)) => change(api, false, member, kind).await?,
        (Ok(AlarmAction::Activate | AlarmAction::Deactivate), None) | (Err(_), _) => {
            (api.revision(), Vec::new())
        }
    };
    Ok(pb::AlarmResponse {
        header: Some(api.header(revision)),
        alarms,
    })
}

async fn change(
    api: &Api,
    activate: bool,
    member: MemberId,
    kind: AlarmKind,
) -> Result<(gonfalon_core::Revision, Vec<pb::AlarmMember>), Refusal> {
    let command = Command::Alarm(AlarmChange {
        activate,
        member,
        kind,
    });
    let (revision, Answer::Alarms(alarms)) = api.propose(command).await? else {
        unreachable!("a change of alarms is answered with them");
    };
    Ok((revision, alarms.into_iter().map(alarm_member).collect()))
}

/// The alarms that are raised now.
pub(super) fn raised(state: &State) -> Vec<pb::AlarmMember> {
    state.alarms().map(alarm_member).collect()
}

/// As Status lists it among the errors; the space at the end is etcd's.
pub(super) fn describe(alarm: &pb::AlarmMember) -> String {
    format!(
        "memberID:{} alarm:{} ",
        alarm.member_id,
        alarm.alarm().as_str_name()
    )
}

fn alarm_member((member, kind): (MemberId, AlarmKind)) -> pb::AlarmMember {
    let alarm = match kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    };
    pb::AlarmMember {
        member_id: member.get(),
        alarm: alarm.into(),
    }
}

fn kind(alarm: AlarmType) -> Option<AlarmKind> {
    match alarm {
        AlarmType::None => None,
        AlarmType::Nospace => Some(AlarmKind::NoSpace),
        AlarmType::Corrupt => Some(AlarmKind::Corrupt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_described_as_etcd_prints_it() {
        let alarm = alarm_member((
            MemberId::new(10_276_657_743_932_975_437),
            AlarmKind::NoSpace,
        ));
        assert_eq!(
            describe(&alarm),
            "memberID:10276657743932975437 alarm:NOSPACE "
        );
    }
}
