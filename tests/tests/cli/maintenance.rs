//! What an operator asks of one member: `member`, `endpoint`, `alarm`, `snapshot`, `defrag`,
//! `check`; and what needs no server, `completion` and `version`.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use gonfalon_proto::etcdserverpb::alarm_request::AlarmAction;
use gonfalon_proto::etcdserverpb::{AlarmRequest, AlarmType};
use serde_json::{Value, json};

use super::gonfalon::{Gonfalon, names, object, revision, said, table};

/// Nothing listens there: the port is reserved.
const NOBODY: &str = "127.0.0.1:1";

#[tokio::test(flavor = "multi_thread")]
async fn a_member_says_who_and_how_it_is() {
    let gonfalon = Gonfalon::new().await;
    let endpoint = gonfalon.cluster.member(0).endpoint();
    let url = format!("http://{endpoint}");
    let list = gonfalon.json(&["member", "list"]);
    assert_eq!(names(&list), ["header", "members"]);
    let member = &list["members"][0];
    assert_eq!(names(member), ["ID", "clientURLs", "name", "peerURLs"]);
    assert_eq!(
        (&member["name"], &member["clientURLs"]),
        (&json!("m0"), &json!([url]))
    );
    let id = format!("{:x}", member["ID"].as_u64().expect("an id"));
    let people = gonfalon.ok(&["member", "list"]);
    let row = people.lines().nth(1).expect("a row");
    for word in [&id, "started", "m0", &url] {
        assert!(row.contains(word), "no {word}: {people}");
    }

    let status = gonfalon.json(&["endpoint", "status"]);
    assert_eq!(names(&status[0]), ["Endpoint", "Status"]);
    let (at, status) = (&status[0]["Endpoint"], &status[0]["Status"]);
    assert_eq!((at, &status["leader"]), (&json!(endpoint), &member["ID"]));
    for key in [
        "version",
        "dbSize",
        "raftIndex",
        "raftTerm",
        "raftAppliedIndex",
        "storageVersion",
    ] {
        assert!(!status[key].is_null(), "no {key}: {status}");
    }
    assert_eq!(revision(&status["header"]), 1);
    let people = gonfalon.ok(&["endpoint", "status"]);
    assert_eq!(table(&people)[1][..2], [endpoint.as_str(), id.as_str()]);

    gonfalon.ok(&["put", "a", "1"]);
    let hash = |args: &[&str]| {
        let hash = gonfalon.json(&[&["endpoint", "hashkv"], args].concat())[0].take();
        assert_eq!(
            (names(&hash), &hash["Endpoint"]),
            (vec!["Endpoint", "HashKV"], at)
        );
        hash["HashKV"]["hash"].to_string()
    };
    let first = hash(&[]);
    let people = gonfalon.ok(&["endpoint", "hashkv"]);
    assert_eq!(table(&people)[1][..3], [endpoint.as_str(), &first, "2"]);
    gonfalon.ok(&["put", "a", "2"]);
    assert_eq!(hash(&["--rev", "2"]), first);
    assert_ne!(hash(&[]), first);
    let future = gonfalon.run(&["endpoint", "hashkv", "--rev", "99"]);
    assert_eq!(future.code, 1, "{future:?}");
    assert!(future.err.contains("is a future revision"), "{future:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_alarms_are_told() {
    let gonfalon = Gonfalon::new().await;
    let endpoint = gonfalon.cluster.member(0).endpoint();
    let well = gonfalon.json(&["endpoint", "health"]);
    assert_eq!(names(&well[0]), ["endpoint", "health", "took"]);
    assert_eq!(well[0]["health"], json!(true));
    let people = gonfalon.ok(&["endpoint", "health"]);
    assert_eq!(table(&people)[1][..2], [endpoint.as_str(), "true"]);
    let none = gonfalon.run(&["alarm", "list"]);
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    assert_eq!(none.err, "There are no alarms.\n");
    assert_eq!(names(&gonfalon.json(&["alarm", "list"])), ["header"]);

    let mut maintenance = gonfalon.cluster.client(0).maintenance;
    let raised = maintenance.alarm(AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id: 0,
        alarm: AlarmType::Nospace.into(),
    });
    raised.await.expect("it may be raised by hand");
    let people = gonfalon.ok(&["alarm", "list"]);
    assert_eq!(table(&people)[1][1], "NOSPACE", "{people}");
    let list = gonfalon.json(&["alarm", "list"]);
    assert_eq!(names(&list), ["alarms", "header"]);
    assert_eq!(list["alarms"][0]["alarm"], json!(1));
    gonfalon.refused(&["put", "a", "1"], 1, "database space exceeded");
    let ill = gonfalon.run(&["-w", "json", "endpoint", "health"]);
    assert_eq!(ill.code, 4, "{ill:?}");
    let ill = object(&ill.out);
    assert_eq!(names(&ill[0]), ["endpoint", "error", "health", "took"]);
    assert_eq!(
        (&ill[0]["health"], &ill[0]["error"]),
        (&json!(false), &json!("active alarms: NOSPACE"))
    );
    let disarmed = gonfalon.json(&["alarm", "disarm"]);
    assert_eq!(disarmed["alarms"], list["alarms"]);
    gonfalon.ok(&["put", "a", "1"]);

    let nobody = gonfalon.run(&["--endpoints", NOBODY, "-w", "json", "endpoint", "health"]);
    assert_eq!(nobody.code, 4, "{nobody:?}");
    assert_eq!(object(&nobody.out)[0]["health"], json!(false));
    gonfalon.refused(
        &["--endpoints", NOBODY, "get", "a"],
        3,
        "cannot connect to 127.0.0.1:1",
    );
    // The one behind it is tried.
    let both = format!("{NOBODY},{endpoint}");
    assert_eq!(
        gonfalon.ok(&["--endpoints", &both, "get", "a", "--print-value-only"]),
        "1\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_save_and_defrag_say_what_they_did() {
    let gonfalon = Gonfalon::new().await;
    let endpoint = gonfalon.cluster.member(0).endpoint();
    gonfalon.ok(&["put", "a", "1"]);
    let saved = gonfalon.json(&["snapshot", "save", "copy"]);
    assert_eq!(names(&saved), ["bytes", "endpoint", "file"]);
    assert_eq!(
        (&saved["file"], &saved["endpoint"]),
        (&json!("copy"), &json!(endpoint))
    );
    let file = gonfalon.dir().join("copy").metadata().expect("it is there");
    assert_eq!(saved["bytes"], json!(file.len()));
    assert_eq!(
        file.permissions().mode() & 0o777,
        0o600,
        "others may read it"
    );
    let people = gonfalon.ok(&["snapshot", "save", "copy"]);
    assert!(people.contains("copy"), "{people}");
    gonfalon.refused(
        &["snapshot", "save", "no/such/place"],
        1,
        "cannot create no/such/place.part",
    );

    let people = gonfalon.ok(&["defrag"]);
    assert!(
        people.starts_with(&format!("{endpoint} defragmented in ")),
        "{people}"
    );
    let line = format!("Finished defragmenting etcd member[{endpoint}]\n");
    assert_eq!(gonfalon.ok(&["-w", "simple", "defrag"]), line);
    let done = gonfalon.json(&["defrag"]);
    assert_eq!(
        (names(&done), &done["endpoint"]),
        (vec!["endpoint", "took"], &json!(endpoint))
    );
    gonfalon.refused(&["--endpoints", NOBODY, "defrag"], 3, "cannot connect to");
    gonfalon.refused(&["-w", "table", "defrag"], 2, "defrag has no table");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_perf_measures_and_judges() {
    let gonfalon = Gonfalon::new().await;
    let numbers = [
        "p50_seconds",
        "p99_seconds",
        "slowest_seconds",
        "stddev_seconds",
        "writes_per_second",
    ];
    // Whether the machine is quick enough today is not the question: that it says so is.
    let check = gonfalon.run(&["-w", "json", "check", "perf", "--duration", "1s"]);
    let verdict = object(&check.out);
    assert_eq!(
        check.code,
        if verdict["pass"] == json!(true) { 0 } else { 4 },
        "{check:?}"
    );
    assert_eq!(verdict["errors"], json!(0));
    assert!(verdict["writes"].as_u64() > Some(0), "{verdict}");
    for name in numbers {
        assert!(verdict[name].as_f64() > Some(0.0), "no {name}: {verdict}");
    }
    assert_eq!(names(&verdict).len(), numbers.len() + 3, "{verdict}");
    let check = gonfalon.run(&["check", "perf", "--duration", "1s"]);
    let last = check.out.lines().last();
    assert_eq!(
        last,
        Some(if check.code == 0 { "PASS" } else { "FAIL" }),
        "{check:?}"
    );
    assert!(check.out.contains(" writes/s of 150/s\n"), "{check:?}");
    assert_eq!(
        gonfalon.ok(&["get", "", "--prefix", "--count-only"]),
        "0 keys\n"
    );
    gonfalon.ok(&["put", "mine/1", "1"]);
    gonfalon.refused(
        &["check", "perf", "--prefix", "mine/"],
        1,
        "below mine/ there is 1 key",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_and_version_need_no_server() {
    let gonfalon = Gonfalon::new().await;
    for (shell, words) in [
        ("bash", "complete -F _gonfalon"),
        ("zsh", "#compdef gonfalon"),
        ("fish", "complete -c gonfalon"),
    ] {
        let script = gonfalon.ok(&["--endpoints", NOBODY, "completion", shell]);
        for words in [words, "move-leader", "initial-cluster"] {
            assert!(script.contains(words), "no {words} for {shell}");
        }
        if shell == "bash" {
            let checked = said(
                Command::new("bash")
                    .args(["-n", "-s"])
                    .stderr(Stdio::piped()),
                &script,
            );
            assert_eq!(
                (checked.code, checked.err.as_str()),
                (0, ""),
                "bash cannot read it"
            );
        }
    }
    gonfalon.refused(&["completion", "cmd"], 2, "invalid value 'cmd'");
    let people = gonfalon.ok(&["--endpoints", NOBODY, "version"]);
    assert!(people.starts_with("gonfalon "), "{people}");
    let version: Value = gonfalon.json(&["version"]);
    assert_eq!(names(&version), ["api_version", "version"]);
    assert_eq!(
        people,
        format!(
            "gonfalon {}\nspeaks etcd API {}\n",
            version["version"].as_str().expect("text"),
            version["api_version"].as_str().expect("text")
        )
    );
    gonfalon.refused(&["no-such-command"], 2, "no-such-command");
}
