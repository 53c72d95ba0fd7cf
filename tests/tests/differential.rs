//! The same seeded calls to a real etcd and to Gonfalon, answers compared field by field.
//!
//! `GONFALON_TEST_LONG=1` runs many more seeds; `GONFALON_TEST_SEED` and `GONFALON_TEST_CALLS`
//! repeat one. A failure prints both.

use gonfalon_tests::binaries::{Server, long_form, server_under_test};
use gonfalon_tests::differential::compare::{Plan, Summary, run};

/// Runs the seeds of one test and prints what they covered.
async fn compare(test: &str, reference: Server, subject: Server, members: usize) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|e| panic!("{name} is {text:?}: {e}")),
        )
    };
    let (seeds, calls) = match (members, long_form()) {
        (1, false) => (3, 1500),
        (1, true) => (40, 5000),
        (_, false) => (1, 1500),
        (_, true) => (15, 3000),
    };
    let calls = number("GONFALON_TEST_CALLS")
        .map_or(calls, |n| usize::try_from(n).expect("a count of calls"));
    let seeds = number("GONFALON_TEST_SEED").map_or(0..seeds, |seed| seed..seed + 1);
    let mut all = Summary::default();
    for seed in seeds {
        let command = format!(
            "GONFALON_TEST_SEED={seed} GONFALON_TEST_CALLS={calls} \
             cargo test -p gonfalon-tests --test differential {test}"
        );
        let plan = Plan {
            reference,
            subject,
            members,
            seed,
            calls,
        };
        let summary = run(plan, &command)
            .await
            .unwrap_or_else(|e| panic!("{command}: {e:#}"));
        all.calls += summary.calls;
        all.errors += summary.errors;
        for (name, count) in summary.known {
            *all.known.entry(name).or_default() += count;
        }
    }
    assert!(
        all.errors * 50 > all.calls,
        "too few calls were wrong to test errors: {all:?}"
    );
    assert!(
        all.errors * 3 < all.calls,
        "too few calls were right to test answers: {all:?}"
    );
    eprintln!("{all:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_answers_like_etcd_3_4() {
    compare(
        "one_node_answers_like_etcd_3_4",
        Server::Etcd34,
        server_under_test(),
        1,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_answers_like_etcd_3_5() {
    compare(
        "one_node_answers_like_etcd_3_5",
        Server::Etcd35,
        server_under_test(),
        1,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_answer_like_three_of_etcd_3_4() {
    compare(
        "three_nodes_answer_like_three_of_etcd_3_4",
        Server::Etcd34,
        server_under_test(),
        3,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_answer_like_three_of_etcd_3_5() {
    compare(
        "three_nodes_answer_like_three_of_etcd_3_5",
        Server::Etcd35,
        server_under_test(),
        3,
    )
    .await;
}
