#!/usr/bin/env bash
# Builds for release and runs one node in the foreground; Ctrl-C stops it. Options go to `serve`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts/setup.sh build
use_prebuilt_rocksdb
say "building for release"
cargo build --release -p gonfalon-cli
gonfalon="$(target_dir)/release/gonfalon"

# option NAME DEFAULT ARG...: what the arguments say of --NAME, the last of several.
option() {
  local name=$1 value=$2
  shift 2
  while [ $# -gt 0 ]; do
    case "$1" in
      "--$name="* | "-$name="*) value=${1#*=} ;;
      "--$name" | "-$name") value=${2-} ;;
    esac
    shift
  done
  printf '%s\n' "$value"
}

url=$(option listen-client-urls http://127.0.0.1:2379 "$@")
url=${url%%,*}
data=$(option data-dir gonfalon.data "$@")

# Says how to talk to the node as soon as it answers; gives up when the node is gone.
greet() {
  local node=$1 tries=0 elsewhere=""
  [ "$url" = http://127.0.0.1:2379 ] || elsewhere=" --endpoints $url"
  # A node that cannot start, for want of a port most likely, has said so and ended by then: it is
  # not another one that is greeted.
  sleep 0.5
  until "$gonfalon" --endpoints "$url" endpoint health >/dev/null 2>&1; do
    kill -0 "$node" 2>/dev/null || return 0
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { say "the node does not answer on $url yet; its log above says why"; return 0; }
    sleep 0.1
  done
  kill -0 "$node" 2>/dev/null || return 0
  cat >&2 <<WORDS

  Ready: $("$gonfalon" --endpoints "$url" endpoint health -w simple)
  In another terminal:

    $gonfalon$elsewhere watch /greeting
    $gonfalon$elsewhere put /greeting hello
    $gonfalon$elsewhere get /greeting
    ETCDCTL_API=3 etcdctl$elsewhere get /greeting      etcd's own tools work too
    curl ${url%/}/metrics

  Data is in $data. Ctrl-C stops the node; the data is there when it starts again.

WORDS
}

greet $$ &
exec "$gonfalon" serve --name default --data-dir gonfalon.data "$@"
