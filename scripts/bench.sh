#!/usr/bin/env bash
# etcd and Gonfalon side by side on this machine; docs/benchmarks.md says how.
#   scripts/bench.sh [--quick | --smoke] [--case <part of a name>] [--nodes 1|3] ...      --help: all
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts/setup.sh build bench
use_prebuilt_rocksdb
say "building for release"
cargo build --release -p gonfalon-cli -p gonfalon-bench
GONFALON_BIN="${GONFALON_BIN:-$(target_dir)/release/gonfalon}" exec "$(target_dir)/release/gonfalon-bench" "$@"
