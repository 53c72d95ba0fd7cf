# Sourced by the scripts beside it: the place of things, and words for the user.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# What is compiled or installed once per machine, not once per checkout.
cache="${GONFALON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gonfalon}"

say() { printf '%s\n' "$*" >&2; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The version of a dependency, as Cargo.lock has it.
locked_version() {
  awk -v name="\"$1\"" '$1 == "name" { hit = ($3 == name) } hit && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' \
    Cargo.lock
}

# The directory that Cargo builds into.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}"; }

# Cargo, with a RocksDB that is compiled once per machine.
use_prebuilt_rocksdb() {
  ROCKSDB_LIB_DIR=$(scripts/rocksdb.sh)
  export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
}
