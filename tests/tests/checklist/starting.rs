//! Starting a server as the tools that start an etcd do.

use std::process::Command;
use std::time::Duration;

use gonfalon_proto::etcdserverpb::MemberListRequest;
use gonfalon_tests::binaries::Server;
use gonfalon_tests::cluster::Cluster;

use super::{PATIENCE, one};

items! {
    always {
        item_30_tools_recognise_the_version_and_the_readiness,
        item_39_a_config_file_overrides_flags_and_environment,
        item_40_listening_needs_an_advertised_address,
        environment_stands_in_for_flags,
        a_member_is_reached_at_whichever_of_its_peer_urls_works,
    }
    now {}
}

/// Waits for the line that tools wait for.
async fn ready_line(cluster: &Cluster) {
    let is_there = async {
        loop {
            let log = std::fs::read_to_string(cluster.member(0).log()).expect("a log");
            if log.contains("ready to serve client requests") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_there)
        .await
        .expect("the log says that clients are served");
}

/// The name by which the one member of a cluster is known once it is ready.
async fn name_of_the_member(cluster: &Cluster) -> String {
    ready_line(cluster).await;
    let request = MemberListRequest { linearizable: true };
    let list = cluster.client(0).cluster.member_list(request).await;
    let list = list.expect("a list").into_inner();
    assert_eq!(list.members.len(), 1, "{list:?}");
    list.members[0].name.clone()
}

async fn item_30_tools_recognise_the_version_and_the_readiness(server: Server) {
    let (cluster, client) = one(server).await;
    let asked = Command::new(cluster.program())
        .arg("--version")
        .output()
        .expect("it runs");
    assert!(asked.status.success(), "{asked:?}");
    let text = String::from_utf8(asked.stdout).expect("text");
    let version = client.status().await.expect("a status").version;
    assert_eq!(
        text.lines().next(),
        Some(format!("etcd Version: {version}").as_str())
    );
    ready_line(&cluster).await;
}

/// What a config file says, for a member of a prepared cluster.
fn config_file(cluster: &Cluster) -> String {
    let member = cluster.member(0);
    let client = format!("http://{}", member.endpoint());
    let peer = format!("http://127.0.0.1:{}", member.peer_port());
    format!(
        "name: from-file\n\
         data-dir: {}\n\
         listen-client-urls: {client}\n\
         advertise-client-urls: {client}\n\
         listen-peer-urls: {peer}\n\
         initial-advertise-peer-urls: {peer}\n\
         initial-cluster: from-file={peer}\n\
         heartbeat-interval: 20\n\
         election-timeout: 200\n\
         auto-compaction-mode: periodic\n\
         auto-compaction-retention: \"1000000000\"\n",
        member.data_dir().display()
    )
}

async fn item_39_a_config_file_overrides_flags_and_environment(server: Server) {
    let mut cluster = Cluster::prepare(server, 1, &[]).expect("a directory and ports");
    let file = cluster.dir().join("etcd.conf.yml");
    std::fs::write(&file, config_file(&cluster)).expect("a file");
    let mut command = Command::new(cluster.program());
    command
        .current_dir(cluster.dir())
        .arg("--config-file")
        .arg(&file);
    command
        .args(["--name", "from-flag"])
        .env("ETCD_NAME", "from-environment");
    cluster.start_member_as(0, command).expect("it starts");
    cluster.ready().await.expect("it is ready");
    assert_eq!(name_of_the_member(&cluster).await, "from-file");
}

async fn item_40_listening_needs_an_advertised_address(server: Server) {
    let mut cluster = Cluster::prepare(server, 1, &[]).expect("a directory and ports");
    let member = cluster.member(0);
    let client = format!("http://{}", member.endpoint());
    let mut command = Command::new(cluster.program());
    command
        .args(["--data-dir"])
        .arg(member.data_dir())
        .args(["--listen-client-urls", &client]);
    cluster.start_member_as(0, command).expect("it starts");
    let status = cluster.wait(0, PATIENCE).await.expect("it ends by itself");
    assert!(!status.success(), "{status}");
    let log = std::fs::read_to_string(cluster.member(0).log()).expect("a log");
    assert!(
        log.contains("--advertise-client-urls"),
        "it does not say what is missing: {log}"
    );
}

async fn environment_stands_in_for_flags(server: Server) {
    let mut cluster = Cluster::prepare(server, 1, &[]).expect("a directory and ports");
    let member = cluster.member(0);
    let client = format!("http://{}", member.endpoint());
    let peer = format!("http://127.0.0.1:{}", member.peer_port());
    let mut command = Command::new(cluster.program());
    command
        .env("ETCD_NAME", "from-environment")
        .env("ETCD_DATA_DIR", member.data_dir())
        .env("ETCD_LISTEN_CLIENT_URLS", &client)
        .env("ETCD_ADVERTISE_CLIENT_URLS", &client)
        .env("ETCD_LISTEN_PEER_URLS", &peer)
        .env("ETCD_INITIAL_ADVERTISE_PEER_URLS", &peer)
        .env("ETCD_INITIAL_CLUSTER", format!("from-environment={peer}"));
    cluster.start_member_as(0, command).expect("it starts");
    cluster.ready().await.expect("it is ready");
    assert_eq!(name_of_the_member(&cluster).await, "from-environment");
}

async fn a_member_is_reached_at_whichever_of_its_peer_urls_works(server: Server) {
    let mut cluster = Cluster::prepare(server, 3, &[]).expect("directories and ports");
    // In the order of the ports, which is etcd's too, the dead one comes first.
    let dead = "http://127.0.0.1:1";
    let good = |at: usize| format!("http://127.0.0.1:{}", cluster.member(at).peer_port());
    let all: Vec<String> = (0..3)
        .flat_map(|at| [format!("m{at}={dead}{at}"), format!("m{at}={}", good(at))])
        .collect();
    let commands: Vec<Command> = (0..3)
        .map(|at| {
            let mut command = cluster.command(at);
            let own = format!("{dead}{at},{}", good(at));
            command.args(["--initial-advertise-peer-urls", &own]);
            command.args(["--initial-cluster", &all.join(",")]);
            command
        })
        .collect();
    for (at, command) in commands.into_iter().enumerate() {
        cluster.start_member_as(at, command).expect("it starts");
    }
    cluster.ready().await.expect("all know one leader");
    let leader = cluster.leader().await.expect("a leader");
    let other = cluster.client((leader + 1) % 3);
    other.put("a", "1").await.expect("a put through a follower");
}
