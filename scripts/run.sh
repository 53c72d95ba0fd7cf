#!/usr/bin/env bash
# Builds for release and runs one node in the foreground; Ctrl-C stops it. Options go to `serve`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts/setup.sh build
use_prebuilt_rocksdb
say "building for release"
cargo build --release -p gonfalon-cli
gonfalon="$(target_dir)/release/gonfalon"

# Says how to talk to the node as soon as it answers; gives up when the node is gone.
greet() {
  local node=$1 tries=0
  # A node that cannot start, for want of a port most likely, has said so and ended by then: it is
  # not another one that is greeted.
  sleep 0.5
  until "$gonfalon" endpoint health >/dev/null 2>&1; do
    kill -0 "$node" 2>/dev/null || return 0
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { say "the node does not answer on 127.0.0.1:2379 yet; its log above says why"; return 0; }
    sleep 0.1
  done
  kill -0 "$node" 2>/dev/null || return 0
  cat >&2 <<WORDS

  Ready: $("$gonfalon" endpoint health -w simple)
  In another terminal:

    $gonfalon watch /greeting
    $gonfalon put /greeting hello
    $gonfalon get /greeting
    ETCDCTL_API=3 etcdctl get /greeting      etcd's own tools work too
    curl http://127.0.0.1:2379/metrics

  Data is in ./gonfalon.data. Ctrl-C stops the node; the data is there when it starts again.

WORDS
}

greet $$ &
exec "$gonfalon" serve --name default --data-dir gonfalon.data "$@"
