//! `watch`.

use serde_json::json;

use super::gonfalon::{Gonfalon, names, revision};

/// `a` was made, changed and deleted, at revisions 2 to 4.
async fn with_a_past() -> Gonfalon {
    let gonfalon = Gonfalon::new().await;
    gonfalon.ok(&["put", "a", "1"]);
    gonfalon.ok(&["put", "a", "2"]);
    gonfalon.ok(&["del", "a"]);
    gonfalon
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_shows_people_the_old_value_and_the_new() {
    let gonfalon = with_a_past().await;
    let mut watch = gonfalon.start(&["watch", "a", "--also", "b", "--rev", "1"]);
    assert_eq!(watch.line(), "2  create  a  1");
    assert_eq!(watch.line(), "3  put     a  1 → 2");
    assert_eq!(watch.line(), "4  delete  a  was 2");
    gonfalon.ok(&["put", "b", "live"]);
    assert_eq!(watch.line(), "5  create  b  live");
    let code = watch.interrupt();
    assert!(code.is_none_or(|code| code == 130), "Ctrl-C gives {code:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_gives_programs_an_object_a_line() {
    let gonfalon = with_a_past().await;
    let mut watch = gonfalon.start(&["-w", "json", "watch", "a", "--rev", "1", "--prev-kv"]);
    let mut events = Vec::new();
    while events.len() < 3 {
        let message = watch.object();
        let keys = ["Canceled", "CompactRevision", "Created", "Events", "Header"];
        assert_eq!(names(&message), keys);
        revision(&message["Header"]);
        events.extend(message["Events"].as_array().expect("a list").clone());
    }
    assert_eq!(
        names(&events[0]),
        ["kv"],
        "a put's type is 0, which is left out"
    );
    assert_eq!(events[1]["kv"]["value"], "Mg==");
    assert_eq!(events[1]["prev_kv"]["value"], "MQ==");
    assert_eq!(events[2]["type"], json!(1));
    assert_eq!(events[2]["prev_kv"]["value"], "Mg==");

    let mut watch = gonfalon.start(&["-w", "json", "watch", "a", "--rev", "3"]);
    let first = watch.object();
    assert_eq!(
        names(&first["Events"][0]),
        ["kv"],
        "nobody asked for what was before"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_ends_with_the_code_of_what_it_ran_or_when_history_is_gone() {
    let gonfalon = with_a_past().await;
    let script = "echo $GONFALON_WATCH_REVISION was $GONFALON_WATCH_PREV_VALUE; exit 7";
    let ran = gonfalon.run(&["watch", "a", "--rev", "3", "--", "sh", "-c", script]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.out.contains("3 was 1\n"), "{ran:?}");
    gonfalon.ok(&["compact", "4"]);
    gonfalon.refused(
        &["watch", "a", "--rev", "2"],
        1,
        "history before revision 4 is gone",
    );
    gonfalon.refused(&["watch"], 2, "Usage:");
}
