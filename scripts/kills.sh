#!/usr/bin/env bash
# Kills the leader of three nodes 50 times under load and prints how long writes paused each time;
# fails if the p99 is above two seconds. About two minutes, and the build; tests/tests/failover.rs is what it runs.
#
# GONFALON_BIN names a binary to use instead of building one for release.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

scripts/setup.sh build
use_prebuilt_rocksdb
if [ -z "${GONFALON_BIN:-}" ]; then
  say "building for release"
  cargo build --release -p gonfalon-cli
  GONFALON_BIN="$(target_dir)/release/gonfalon"
fi
export GONFALON_BIN GONFALON_TEST_LONG=1
exec cargo test --quiet -p gonfalon-tests --test failover -- --nocapture
