#!/usr/bin/env bash
# Three nodes on this machine, and a tour of about a minute: what is done on the left, what a watcher
# sees on the right. Everything it writes is in demo.data, which the next run replaces.
#
# GONFALON_BIN names a binary to use instead of building one; DEMO_PORT the first of six ports.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Below the range that the kernel takes for outgoing connections.
port=${DEMO_PORT:-22379}
data="$root/demo.data"
nodes=(n1 n2 n3)
declare -A pid_of
watcher="" writer=""

main() {
  gonfalon=${GONFALON_BIN:-}
  [ -n "$gonfalon" ] || build
  rm -rf "$data"
  mkdir -p "$data"
  trap stop_all EXIT
  trap 'exit 130' INT TERM
  start_cluster
  start_watcher
  show_puts
  show_txn
  show_lease
  kill_leader_under_load
  restart_killed
  step "That was it. The nodes stop; their logs and data are in demo.data."
}

build() {
  scripts/setup.sh build
  use_prebuilt_rocksdb
  say "building for release"
  cargo build --release -p gonfalon-cli
  gonfalon="$(target_dir)/release/gonfalon"
}

client_url() { printf 'http://127.0.0.1:%s' $((port + 10 * $1)); }
peer_url() { printf 'http://127.0.0.1:%s' $((port + 10 * $1 + 1)); }

start_node() {
  local name=${nodes[$1]}
  "$gonfalon" serve --name "$name" --data-dir "$data/$name" \
    --listen-client-urls "$(client_url "$1")" --advertise-client-urls "$(client_url "$1")" \
    --listen-peer-urls "$(peer_url "$1")" --initial-advertise-peer-urls "$(peer_url "$1")" \
    --initial-cluster "n1=$(peer_url 0),n2=$(peer_url 1),n3=$(peer_url 2)" \
    >>"$data/$name.log" 2>&1 &
  pid_of[$name]=$!
}

start_cluster() {
  step "Three nodes start on this machine and elect a leader."
  begin
  local i
  for i in 0 1 2; do start_node "$i"; done
  export GONFALON_ENDPOINTS="127.0.0.1:$port,127.0.0.1:$((port + 10)),127.0.0.1:$((port + 20))"
  wait_for 200 "the cluster does not answer; see demo.data/n1.log" is_up_or_dead
  local name
  for name in "${nodes[@]}"; do
    kill -0 "${pid_of[$name]}" 2>/dev/null || fail "$name ended: $(tail -n 1 "$data/$name.log") (DEMO_PORT names the first of other ports)"
  done
  took "three nodes answer"
  "$gonfalon" endpoint status
}

# Whether every node answers, or one has ended and there is no point in waiting.
is_up_or_dead() {
  local name
  for name in "${nodes[@]}"; do kill -0 "${pid_of[$name]}" || return 0; done
  "$gonfalon" endpoint health
}

start_watcher() {
  step "A watcher follows every key below /demo/; what it sees stands on the right."
  # Line by line into the right column: sed does not wait for a full buffer with -u.
  "$gonfalon" watch --prefix /demo/ \
    > >(tee "$data/watch.log" | sed -u 's/^/                                                    │ /') 2>&1 &
  watcher=$!
  # It follows what happens from now on: it stands once it has seen a first change.
  wait_for 100 "the watcher does not follow; see demo.data/watch.log" sees_a_first_change
}

sees_a_first_change() {
  "$gonfalon" put /demo/hello watcher
  sleep 0.1
  [ -s "$data/watch.log" ]
}

show_puts() {
  step "Three puts. Each is on disk on two nodes before it is acknowledged."
  local value
  for value in red green blue; do
    begin
    run put /demo/colour "$value"
    took "put"
  done
}

show_txn() {
  step "A transaction: if the colour is still blue, change it and note that, at one revision."
  begin
  printf '  $ gonfalon txn\n'
  printf 'value("/demo/colour") = "blue"\n\nput /demo/colour gold\nput /demo/changed yes\n\nget /demo/colour\n\n' |
    "$gonfalon" txn
  took "transaction"
}

show_lease() {
  step "A key with a lease of 3 seconds that nobody renews."
  begin
  run put /demo/session here --ttl 3s
  took "put with lease"
  wait_for 150 "the lease did not expire" is_gone /demo/session
  took "from the grant until the cluster deleted it"
}

is_gone() { [ -z "$("$gonfalon" get "$1" --print-value-only)" ]; }

kill_leader_under_load() {
  step "A writer counts. In the middle of it the leader is killed with SIGKILL."
  write_until_told &
  writer=$!
  wait_for 100 "the writer does not get on" has_written 100
  local leader
  leader=$(leader_index)
  killed=${nodes[$leader]}
  kill -KILL "${pid_of[$killed]}"
  # Or the shell would tell of it, with the whole command line.
  { wait "${pid_of[$killed]}"; } 2>/dev/null || true
  local before
  before=$(wc -l <"$data/acknowledged")
  printf '  %s, the leader, is killed after write %s\n' "$killed" "$before"
  # What was under way when it died may still be acknowledged: count on from a little above.
  wait_for 300 "no write after the leader was killed" has_written $((before + 100))
  touch "$data/enough"
  wait "$writer" || fail "the writer failed; see demo.data/writer.log"
  writer=""
  printf '  %s writes acknowledged; the longest pause between two was %s ms\n' \
    "$(wc -l <"$data/acknowledged")" "$(longest_pause_ms)"
  check_nothing_is_lost
}

# Writes 1, 2, 3, ... until demo.data/enough exists; one line with the time for each acknowledged.
write_until_told() {
  local i=1
  while [ ! -e "$data/enough" ]; do
    # Tried again if nobody knows whether it happened: the same key and value twice do no harm.
    if "$gonfalon" put "/count/$i" "$i" >/dev/null 2>>"$data/writer.log"; then
      printf '%s %s\n' "$i" "${EPOCHREALTIME/./}" >>"$data/acknowledged"
      i=$((i + 1))
    fi
  done
}

has_written() { [ "$(wc -l 2>/dev/null <"$data/acknowledged" || echo 0)" -ge "$1" ]; }

longest_pause_ms() {
  awk 'NR > 1 && $2 - last > most { most = $2 - last } { last = $2 } END { printf "%d", most / 1000 }' \
    "$data/acknowledged"
}

# The position in `nodes` of the one that says it leads.
leader_index() {
  local i
  for i in 0 1 2; do
    # The columns LEADER and LEARNER stand side by side.
    if "$gonfalon" --endpoints "127.0.0.1:$((port + 10 * i))" endpoint status |
      grep -qE ' true +false '; then
      printf '%s\n' "$i"
      return
    fi
  done
  fail "no node leads"
}

check_nothing_is_lost() {
  begin
  # Values are their own numbers, so the answer is a list of what is there.
  "$gonfalon" get --prefix /count/ --print-value-only | sort >"$data/there"
  cut -d ' ' -f 1 "$data/acknowledged" | sort >"$data/promised"
  local lost
  lost=$(comm -13 "$data/there" "$data/promised" | wc -l)
  [ "$lost" -eq 0 ] || fail "$lost acknowledged writes are gone: demo.data/promised, demo.data/there"
  took "read all back: every acknowledged write is there"
}

restart_killed() {
  step "The killed node starts again and catches up."
  local i
  for i in 0 1 2; do [ "${nodes[$i]}" != "$killed" ] || break; done
  begin
  start_node "$i"
  wait_for 200 "$killed does not come back; see demo.data/$killed.log" \
    "$gonfalon" --endpoints "127.0.0.1:$((port + 10 * i))" endpoint health
  took "$killed answers linearizable reads again"
  "$gonfalon" endpoint status
}

run() {
  local answer
  printf '  $ gonfalon %s\n' "$*"
  answer=$("$gonfalon" "$@" 2>&1) || fail "$answer"
  # Whole lines at once: the watcher writes to the same terminal.
  printf '  %s\n' "${answer//$'\n'/$'\n  '}"
}

# wait_for TENTHS WHY COMMAND...: until it succeeds; fails with WHY after so many tenths of a second.
wait_for() {
  local tenths=$1 why=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$tenths" -gt 0 ] || fail "$why"
    tenths=$((tenths - 1))
    sleep 0.1
  done
}

# A person wants to read what was there before.
step() {
  [ ! -t 1 ] || sleep 4
  printf '\n%s\n' "$*"
}

begin() { began=${EPOCHREALTIME/./}; }

took() { printf '  %s: %s ms\n' "$1" $(((${EPOCHREALTIME/./} - began) / 1000)); }

stop_all() {
  local pid
  for pid in "$watcher" "$writer" "${pid_of[@]}"; do
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  done
  wait 2>/dev/null || true
}

main
