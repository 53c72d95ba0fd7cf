//! The command that `watch` runs for each change.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use gonfalon_proto::mvccpb::Event;

use crate::failure::Failure;
use crate::output::text::go_quote;
use crate::recipes;

/// Runs the command and waits for it; nothing if there is none.
pub(super) async fn run(command: &[OsString], event: &Event) -> Result<(), Failure> {
    if command.is_empty() {
        return Ok(());
    }
    recipes::run(command, &variables(event)).await
}

/// What the command is told.
fn variables(event: &Event) -> Vec<(&'static str, OsString)> {
    let kv = event.kv.clone().unwrap_or_default();
    let prev = event.prev_kv.clone().unwrap_or_default();
    let kind = event.r#type().as_str_name();
    // A variable cannot hold a zero byte; what a key or a value has behind one is left out.
    let plain = |bytes: &[u8]| {
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        OsStr::from_bytes(&bytes[..end]).to_owned()
    };
    vec![
        (
            "GONFALON_WATCH_REVISION",
            kv.mod_revision.to_string().into(),
        ),
        ("GONFALON_WATCH_EVENT_TYPE", kind.into()),
        ("GONFALON_WATCH_KEY", plain(&kv.key)),
        ("GONFALON_WATCH_VALUE", plain(&kv.value)),
        ("GONFALON_WATCH_PREV_VALUE", plain(&prev.value)),
        ("ETCD_WATCH_REVISION", kv.mod_revision.to_string().into()),
        ("ETCD_WATCH_EVENT_TYPE", go_quote(kind.as_bytes()).into()),
        ("ETCD_WATCH_KEY", go_quote(&kv.key).into()),
        ("ETCD_WATCH_VALUE", go_quote(&kv.value).into()),
    ]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gonfalon_proto::mvccpb::KeyValue;

    use super::*;

    #[test]
    fn a_command_is_told_the_key_both_values_and_the_revision() {
        let kv = |value: &'static [u8]| KeyValue {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(value),
            mod_revision: 7,
            ..Default::default()
        };
        let event = Event {
            r#type: 0,
            kv: Some(kv(b"new\0tail")),
            prev_kv: Some(kv(b"old")),
        };
        let all: Vec<_> = variables(&event)
            .into_iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        assert_eq!(
            all,
            [
                "GONFALON_WATCH_REVISION=7",
                "GONFALON_WATCH_EVENT_TYPE=PUT",
                "GONFALON_WATCH_KEY=k",
                "GONFALON_WATCH_VALUE=new",
                "GONFALON_WATCH_PREV_VALUE=old",
                "ETCD_WATCH_REVISION=7",
                "ETCD_WATCH_EVENT_TYPE=\"PUT\"",
                "ETCD_WATCH_KEY=\"k\"",
                "ETCD_WATCH_VALUE=\"new\\x00tail\"",
            ]
        );
    }
}
