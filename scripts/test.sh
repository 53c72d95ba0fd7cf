#!/usr/bin/env bash
# The whole suite, one layer after the other; stops at the first step that fails and names it.
#
#   scripts/test.sh            every step
#   scripts/test.sh units      only the named steps (see `all_steps`)
#
# Output goes to the terminal and to target/test-logs/STEP.log. The last line is the sum of what
# the test programs reported: `N passed, N failed`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

logs="$(target_dir)/test-logs"
# One row a finished step: outcome, seconds, tests, name.
rows=()
passed=0 failed=0 ignored=0

main() {
  local steps=("$@")
  if [ ${#steps[@]} -eq 0 ]; then mapfile -t steps < <(all_steps); fi
  prepare "${steps[@]}"
  local step outcome=0
  for step in "${steps[@]}"; do
    if [ $outcome -ne 0 ]; then
      rows+=("not run|-|-|$step")
    else
      run_step "$step" || outcome=1
    fi
  done
  summary
  return $outcome
}

# The layers. Files under tests/tests/ are programs that run whole servers, each a step of its own:
# a new one is picked up by being there.
all_steps() {
  printf '%s\n' format clippy deny compile units bench-smoke
  local file
  for file in tests/tests/*.rs; do
    [ ! -e "$file" ] || basename "$file" .rs
  done
}

prepare() {
  case " $* " in
    " format " | " deny ") scripts/setup.sh build ;;
    *)
      scripts/setup.sh build test
      use_prebuilt_rocksdb
      ;;
  esac
  mkdir -p "$logs"
}

step_command() {
  case "$1" in
    format) cargo fmt --all --check ;;
    clippy) cargo clippy --workspace --all-targets -- -D warnings ;;
    deny) scripts/deny.sh --log-level error check bans licenses sources ;;
    compile) cargo test --workspace --no-run && cargo build -p gonfalon-cli -p gonfalon-bench ;;
    # Unit and property tests, openraft's suite on our log store, examples in the documentation.
    units) cargo test --workspace --exclude gonfalon-tests --no-fail-fast ;;
    # The cases of flagd and of JsonLogic, which are not in this project (flags/src/flagd/tests.rs).
    flags-data) cargo test -p gonfalon-flags --features data-of-others --lib flagd ;;
    # Whether every case of the benchmark works, not how fast: the programs as the tests have them.
    bench-smoke)
      cargo build -p gonfalon-cli -p gonfalon-bench
      "$(target_dir)/debug/gonfalon-bench" --smoke --gonfalon-bin "$(target_dir)/debug/gonfalon"
      "$(target_dir)/debug/gonfalon-bench" --smoke --clients --gonfalon-bin "$(target_dir)/debug/gonfalon"
      ;;
    *)
      [ -e "tests/tests/$1.rs" ] || fail "there is no step '$1'; the steps are: $(all_steps | tr '\n' ' ')"
      # The server as the step `compile` has it: built for itself, its dependencies have other
      # features, and compile again.
      cargo build -p gonfalon-cli -p gonfalon-bench
      # Of the whole workspace for the same reason.
      GONFALON_BIN="${GONFALON_BIN:-$(target_dir)/debug/gonfalon}" \
        cargo test --workspace --no-fail-fast --test "$1"
      ;;
  esac
}

run_step() {
  local step=$1 started=$SECONDS log="$logs/$1.log" outcome="ok"
  say "== $step"
  # A subshell with its own -e: in a condition bash would ignore the failing command inside.
  set +e
  (set -e; step_command "$step") 2>&1 | tee "$log"
  [ "${PIPESTATUS[0]}" -eq 0 ] || outcome="FAILED"
  set -e
  count "$step" "$log"
  rows+=("$outcome|$((SECONDS - started))|$step_tests|$step")
  [ "$outcome" = ok ]
}

# Adds up `test result: ok. 12 passed; 0 failed; 1 ignored; ...` lines into `step_tests` and the totals.
count() {
  local sums
  sums=$(awk '/^test result: / { for (i = 2; i <= NF; i++) n[$i] += $(i - 1) }
    END { print n["passed;"] + 0, n["failed;"] + 0, n["ignored;"] + 0 }' "$2")
  local p f i
  read -r p f i <<<"$sums"
  step_tests=-
  [ $((p + f)) -eq 0 ] || step_tests=$((p + f))
  passed=$((passed + p)) failed=$((failed + f)) ignored=$((ignored + i))
}

summary() {
  local row outcome seconds tests step broken=0
  printf '\n%-8s %8s %7s  %s\n' outcome seconds tests step
  for row in "${rows[@]}"; do
    IFS='|' read -r outcome seconds tests step <<<"$row"
    printf '%-8s %8s %7s  %s\n' "$outcome" "$seconds" "$tests" "$step"
    if [ "$outcome" = FAILED ]; then
      broken=1
      printf 'failed step: %s (scripts/test.sh %s repeats it)\n' "$step" "$step" >&2
    fi
  done
  # A step that broke without a test saying so (compiler, format) is still a failure in the count.
  if [ $broken -eq 1 ] && [ $failed -eq 0 ]; then failed=1; fi
  printf '%s seconds in all\n' "$SECONDS"
  if [ $ignored -gt 0 ]; then
    printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$ignored"
  else
    printf '%s passed, %s failed\n' "$passed" "$failed"
  fi
}

main "$@"
