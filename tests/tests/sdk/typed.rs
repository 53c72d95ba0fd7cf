//! Values of the application's own types: of one key, and of all keys below a prefix.

use std::collections::BTreeMap;

use gonfalon::{Cached, ErrorKind, KeyRange, Op, Revision};
use serde::Deserialize;

use super::{each_server, within};

#[tokio::test]
async fn a_value_that_is_deleted_is_the_fallback_again_or_stays_as_one_wishes() {
    each_server(async |_, client| {
        client.put("k", "1").await.unwrap();
        let plain: Cached<u32> = client.cached("k").await.unwrap();
        let fallen: Cached<u32> = client.cached("k").or(7).await.unwrap();
        let kept: Cached<u32> = client.cached("k").or(7).keep_deleted().await.unwrap();
        let deleted = client.delete("k").await.unwrap().revision;
        for (what, value, want) in [
            ("plain", &plain, 1),
            ("fallen", &fallen, 7),
            ("kept", &kept, 1),
        ] {
            let state = within(value.at_least(deleted)).await.unwrap();
            assert_eq!((*state.value, *value.load()), (want, want), "{what}");
            assert_eq!(state.revision, Revision::UNKNOWN, "{what}");
            assert_eq!(state.error, None, "{what}");
        }
        // Written again, and wrong: the fallback is what was good last.
        let wrong = client.put("k", "x").await.unwrap().revision;
        let state = within(fallen.at_least(wrong)).await.unwrap();
        assert_eq!((*state.value, state.revision), (7, wrong));
        assert!(
            state
                .error
                .as_ref()
                .unwrap()
                .to_string()
                .starts_with("k at revision")
        );
    })
    .await;
}

#[tokio::test]
async fn bytes_and_formats_of_ones_own_are_read_and_every_check_counts() {
    each_server(async |_, client| {
        client.put("b", [0xff, 0x00]).await.unwrap();
        let bytes = client.cached_bytes("b").await.unwrap();
        assert_eq!(&bytes.load()[..], [0xff, 0x00]);
        let length = |bytes: &[u8]| match bytes.len() {
            0 => Err("empty".to_owned()),
            length => Ok(length),
        };
        let length = client
            .cached_by("b", length)
            .check(|length| (*length < 5).then_some(()).ok_or("long".to_owned()))
            .check(|length| (*length != 3).then_some(()).ok_or("three".to_owned()))
            .await
            .unwrap();
        let mut changes = length.changes();
        for (value, want, error) in [
            ("", 2, Some("empty")),
            ("abc", 2, Some("three")),
            ("abcde", 2, Some("long")),
            ("a", 1, None),
        ] {
            let written = client.put("b", value).await.unwrap().revision;
            let state = within(changes.next_state()).await.unwrap();
            assert_eq!((*state.value, state.revision), (want, written), "{value:?}");
            assert_eq!(state.error.as_ref().map(|error| error.why.as_str()), error);
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_change_is_told_also_that_there_will_be_none() {
    each_server(async |_, client| {
        let value = client.cached::<u32>("w").or(0).await.unwrap();
        let waiting = tokio::spawn({
            let value = value.clone();
            async move { value.changed().await }
        });
        // It may not wait yet: written until it is told.
        let mut number = 0;
        while !waiting.is_finished() {
            number += 1;
            client.put("w", number.to_string()).await.unwrap();
        }
        assert!(within(waiting).await.unwrap().is_some());
        let mut changes = value.changes();
        client.close().await.unwrap();
        while within(changes.next()).await.is_some() {}
    })
    .await;
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Settings {
    name: String,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    servers: BTreeMap<String, u16>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Limits {
    low: u32,
    high: u32,
}

fn in_order(settings: &Settings) -> Result<(), String> {
    let Limits { low, high } = settings.limits;
    let is_in_order = low <= high;
    is_in_order
        .then_some(())
        .ok_or(format!("{low} is above {high}"))
}

#[tokio::test]
async fn a_struct_is_read_from_the_keys_below_a_prefix_one_revision_at_a_time() {
    each_server(async |_, client| {
        client.put("/config/name", "billing").await.unwrap();
        // Begins alike, and is elsewhere.
        client.put("/configuration", "x").await.unwrap();
        let settings = client.cached_struct::<Settings>("/config").check(in_order);
        let settings = settings.await.unwrap();
        assert_eq!(settings.load().name, "billing");
        let mut changes = settings.changes();

        // Both at once: neither is seen without the other, or the check would fail.
        let txn = client.txn().then(Op::put("/config/limits/high", "20"));
        txn.then(Op::put("/config/limits/low", "10")).await.unwrap();
        let now = within(changes.next_state()).await.unwrap();
        assert_eq!(now.error, None);
        assert_eq!(now.value.limits, Limits { low: 10, high: 20 });

        client.put("/config/limits/low", "30").await.unwrap();
        let now = within(changes.next_state()).await.unwrap();
        assert_eq!(now.error.as_ref().unwrap().why, "30 is above 20");
        assert_eq!(
            settings.load().limits,
            Limits { low: 10, high: 20 },
            "the last good one"
        );
        client.put("/config/limits/low", "many").await.unwrap();
        let now = within(changes.next_state()).await.unwrap();
        assert_eq!(now.error.as_ref().unwrap().key, "/config/limits/low");

        client.delete("/config/limits/low").await.unwrap();
        let now = within(changes.next_state()).await.unwrap();
        assert_eq!((now.error.as_ref(), now.value.limits.low), (None, 0));
        let written = client.put("/config/servers/a", "1").await.unwrap().revision;
        let now = within(settings.at_least(written)).await.unwrap();
        assert_eq!((now.value.servers["a"], now.revision), (1, written));
        // Without any key there would be no name.
        let deleted = client
            .delete(KeyRange::prefix("/config/"))
            .await
            .unwrap()
            .revision;
        let now = within(settings.at_least(deleted)).await.unwrap();
        assert!(
            now.error
                .as_ref()
                .unwrap()
                .why
                .contains("missing field `name`")
        );
        assert_eq!(now.value.name, "billing");
    })
    .await;
}

#[tokio::test]
async fn a_struct_without_keys_is_its_defaults_its_fallback_or_an_error() {
    each_server(async |_, client| {
        let defaults = client.cached_struct::<Limits>("/none/").await.unwrap();
        assert_eq!(*defaults.load(), Limits::default());
        let error = client
            .cached_struct::<Settings>("/none/")
            .await
            .unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("missing field `name`"), "{error}");
        let high = Limits { low: 1, high: 9 };
        let chosen = client
            .cached_struct("/none/")
            .or(high.clone())
            .await
            .unwrap();
        assert_eq!(*chosen.load(), high);
        client.put("/none/low", "3").await.unwrap();
        let last = client.put("/none/hihg", "4").await.unwrap().revision;
        let now = within(chosen.at_least(last)).await.unwrap();
        assert_eq!(
            *now.value,
            Limits { low: 3, high: 0 },
            "unknown keys are passed over"
        );
        let strict = client
            .cached_struct::<Limits>("/none/")
            .refuse_unknown_keys();
        let error = strict.await.unwrap_err();
        assert!(error.message().starts_with("/none/hihg"), "{error}");
        let deleted = client
            .delete(KeyRange::prefix("/none/"))
            .await
            .unwrap()
            .revision;
        let now = within(chosen.at_least(deleted)).await.unwrap();
        assert_eq!(*now.value, high, "the fallback again");
    })
    .await;
}
