//! Who checks the checkers: histories that are right, and histories with one thing wrong.

use super::*;
use crate::history::{Answer, Change, Operation, Outcome, Received, Request, Version, Watch};

fn version(value: &str, create: i64, modified: i64, version: i64) -> Version {
    Version {
        value: value.into(),
        create,
        modified,
        version,
    }
}

fn put(key: &str, value: &str) -> Request {
    Request::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn read(keys: &[&str]) -> Request {
    let keys = keys.iter().map(|&key| key.into()).collect();
    Request::Read {
        keys,
        serializable: false,
        at: None,
    }
}

fn done(revision: i64, versions: Vec<Option<Version>>) -> Outcome {
    Outcome::Done(Answer {
        revision,
        succeeded: false,
        versions,
    })
}

/// A call from `called` to `called + 10`.
fn call(client: u32, called: u64, request: Request, outcome: Outcome) -> Operation {
    let returned = (!matches!(outcome, Outcome::Unknown(_))).then_some(called + 10);
    Operation {
        client,
        member: 0,
        called,
        returned,
        request,
        outcome,
    }
}

fn change(key: &str, revision: i64, put: Option<Version>, prev: Option<Version>) -> Change {
    Change {
        key: key.into(),
        revision,
        put,
        prev,
    }
}

fn answer(revision: i64, events: Vec<Change>) -> Received {
    Received {
        at: 0,
        revision,
        created: false,
        canceled: false,
        compact_revision: 0,
        fragment: false,
        events,
    }
}

fn created(revision: i64) -> Received {
    Received {
        created: true,
        ..answer(revision, Vec::new())
    }
}

/// Two keys in five revisions (one write never answered, one delete, one swap), a reader, and a
/// watcher of everything.
#[expect(clippy::too_many_lines, reason = "one history, told in one place")]
fn sound() -> History {
    let a1 = version("1", 2, 2, 1);
    let b1 = version("u", 3, 3, 1);
    let a2 = version("2", 2, 4, 2);
    let (c1, d1) = (version("x", 6, 6, 1), version("y", 6, 6, 1));
    let swap = Request::Swap {
        expect: vec![("a".into(), 0)],
        puts: vec![("c".into(), "x".into()), ("d".into(), "y".into())],
    };
    let held = Outcome::Done(Answer {
        revision: 6,
        succeeded: true,
        versions: vec![],
    });
    let failed = Request::Swap {
        expect: vec![("c".into(), 3)],
        puts: vec![],
    };
    let events = vec![
        change("a", 2, Some(a1.clone()), None),
        change("b", 3, Some(b1.clone()), None),
        change("a", 4, Some(a2.clone()), Some(a1.clone())),
        change("a", 5, None, Some(a2.clone())),
    ];
    let swapped = vec![
        change("c", 6, Some(c1.clone()), None),
        change("d", 6, Some(d1.clone()), None),
    ];
    let mut received: Vec<Received> = events
        .into_iter()
        .map(|event| answer(event.revision, vec![event]))
        .collect();
    received.insert(0, created(1));
    received.push(answer(6, swapped));
    received.push(answer(6, vec![]));
    History {
        operations: vec![
            call(1, 0, put("a", "1"), done(2, vec![None])),
            call(2, 5, put("b", "u"), Outcome::Unknown("timeout".into())),
            call(2, 6, put("b", "never"), Outcome::Unknown("timeout".into())),
            call(1, 20, put("a", "2"), done(4, vec![Some(a1)])),
            call(
                3,
                21,
                read(&["a", "b"]),
                done(4, vec![Some(a2.clone()), Some(b1)]),
            ),
            call(
                1,
                40,
                Request::Delete { key: "a".into() },
                done(5, vec![Some(a2)]),
            ),
            call(
                3,
                51,
                Request::Delete { key: "a".into() },
                done(5, vec![None]),
            ),
            call(1, 70, swap, held),
            call(1, 90, failed, done(6, vec![Some(c1)])),
        ],
        watches: vec![Watch {
            member: 0,
            watcher: 0,
            prefix: String::new(),
            start: 1,
            prev_kv: true,
            no_put: false,
            no_delete: false,
            fragment: false,
            received,
        }],
    }
}

/// Changes one thing of [`sound`] and expects a violation that says `what`.
fn broken(what: &str, spoil: impl FnOnce(&mut History)) {
    let mut history = sound();
    spoil(&mut history);
    let report = check(&history);
    assert!(
        report
            .violations
            .iter()
            .any(|violation| violation.contains(what)),
        "expected a violation with {what:?}, got: {report}"
    );
}

fn events(history: &mut History, at: usize) -> &mut Vec<Change> {
    &mut history.watches[0].received[at].events
}

#[test]
fn a_sound_history_is_explained() {
    let report = check(&sound());
    report.assert_clean();
    assert_eq!(
        (report.revision, report.recovered, report.events),
        (6, 1, 6)
    );
}

#[test]
fn a_lost_write_is_found() {
    broken("given to two writes", |h| {
        h.operations[3].outcome = done(2, vec![None]);
    });
    broken("was written by nobody", |h| {
        h.operations.remove(3);
    });
    // Acknowledged, but neither read nor watched afterwards: the later delete found the old value.
    broken("at revision 4 these were", |h| {
        h.operations[5].outcome = done(5, vec![Some(version("1", 2, 2, 1))]);
    });
}

#[test]
fn a_write_that_was_refused_or_never_asked_for_is_found() {
    broken("was written by nobody", |h| {
        h.operations[1].outcome = Outcome::Refused("no".into());
    });
    broken("no write made", |h| {
        events(h, 1)[0].put = Some(version("zzz", 2, 2, 1));
    });
}

#[test]
fn a_stale_read_is_found() {
    let old = vec![Some(version("1", 2, 2, 1)), None];
    // Explained at revision 2, but 4 had been answered before it began.
    broken("revision 4 had been answered", |h| {
        h.operations[4] = call(3, 35, read(&["a", "b"]), done(2, old.clone()));
    });
    let mut history = sound();
    let Request::Read { serializable, .. } = &mut history.operations[4].request else {
        panic!()
    };
    *serializable = true;
    history.operations[4].outcome = done(2, old);
    check(&history).assert_clean();
}

#[test]
fn a_write_before_one_that_was_answered_earlier_is_found() {
    broken("had been answered before this call of 2 began", |h| {
        h.operations[0].called = 100;
    });
    // The same of one without an answer, whose event was seen too early.
    broken("had been answered before this call of 3 began", |h| {
        h.operations[1].called = 100;
    });
}

#[test]
fn wrong_answers_are_found() {
    broken("at revision 4 these were", |h| {
        h.operations[4].outcome = done(4, vec![None, None]);
    });
    broken("at revision 3 these were", |h| {
        h.operations[3].outcome = done(4, vec![None]);
    });
    broken("judged wrongly", |h| {
        h.operations[8].request = Request::Swap {
            expect: vec![("c".into(), 6)],
            puts: vec![],
        };
    });
    broken("there is no revision 9", |h| {
        h.operations[4].outcome = done(9, vec![None, None]);
    });
    broken("changes nothing", |h| {
        h.operations[7].request = Request::Swap {
            expect: vec![("b".into(), 7)],
            puts: vec![("c".into(), "x".into())],
        };
    });
}

#[test]
fn an_event_that_is_lost_is_found() {
    broken("where (4, \"a\") is next", |h| {
        h.watches[0].received.remove(3);
    });
    // The last one, with nothing after it: only the whole watcher's end tells.
    broken("missed (6,", |h| h.watches[0].received.truncate(5));
}

#[test]
fn an_event_that_comes_twice_or_late_is_found() {
    broken("in two answers", |h| {
        let again = h.watches[0].received[5].clone();
        h.watches[0].received.insert(6, again);
    });
    broken("after revision 4", |h| h.watches[0].received.swap(2, 3));
}

#[test]
fn a_revision_that_is_split_is_found() {
    broken("revision 6 in two answers", |h| {
        let second = events(h, 5).split_off(1);
        h.watches[0].received.insert(6, answer(6, second));
    });
}

#[test]
fn pieces_are_joined_only_where_they_were_asked_for() {
    let mut history = sound();
    let second = events(&mut history, 5).split_off(1);
    history.watches[0].received[5].fragment = true;
    history.watches[0].received.insert(6, answer(6, second));
    history.watches[0].fragment = true;
    check(&history).assert_clean();
    history.watches[0].fragment = false;
    assert!(
        !check(&history).violations.is_empty(),
        "pieces that nobody asked for"
    );
}

#[test]
fn events_that_were_not_asked_for_are_found() {
    broken("did not ask for", |h| h.watches[0].prefix = "a".into());
    broken("did not ask for", |h| h.watches[0].no_delete = true);
    broken("got (2, \"a\") where (3, \"b\") is next", |h| {
        h.watches[0].start = 3;
    });
}

#[test]
fn progress_that_overtakes_an_event_is_found() {
    broken("after progress 5", |h| {
        h.watches[0].received.insert(4, answer(5, vec![]));
    });
    broken("got progress 3 after it knew 6", |h| {
        h.watches[0].received[6].revision = 3;
    });
}

#[test]
fn wrong_previous_versions_are_found() {
    broken("got Change", |h| events(h, 3)[0].prev = None);
    broken("got Change", |h| h.watches[0].prev_kv = false);
}

#[test]
fn events_before_the_watch_was_created_are_found() {
    broken("before it was created", |h| {
        h.watches[0].received.swap(0, 1);
    });
    broken("created twice", |h| h.watches[0].received.push(created(6)));
}

#[test]
fn a_gap_between_two_connections_of_a_watcher_is_found() {
    let mut history = sound();
    let mut second = history.watches[0].clone();
    history.watches[0].received.truncate(3);
    second.received = second.received.split_off(3);
    second.received.insert(0, created(6));
    second.start = 4;
    history.watches.push(second);
    check(&history).assert_clean();
    // Resumed one too late.
    history.watches[1].start = 5;
    history.watches[1].received.remove(1);
    let report = check(&history);
    assert!(
        report
            .violations
            .iter()
            .any(|v| v.contains("over its 2 connections")),
        "expected a gap, got: {report}"
    );
}

#[test]
fn watchers_that_saw_different_things_are_found() {
    broken("watchers disagree", |h| {
        let mut other = h.watches[0].clone();
        other.watcher = 1;
        other.received[1].events[0].put = Some(version("0", 2, 2, 1));
        h.watches.push(other);
    });
}
