#!/usr/bin/env bash
# Prints the directory of a compiled librocksdb.a, compiling it first if this machine has none.
#
# RocksDB is 340 C++ files, 12 minutes on two cores, and Cargo would compile them once for every
# profile and target directory. With ROCKSDB_LIB_DIR and ROCKSDB_STATIC=1 it links this one
# instead. Nothing requires it: a plain `cargo build` compiles its own.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [ -n "${ROCKSDB_LIB_DIR:-}" ]; then
  [ -f "$ROCKSDB_LIB_DIR/librocksdb.a" ] || fail "ROCKSDB_LIB_DIR=$ROCKSDB_LIB_DIR has no librocksdb.a"
  printf '%s\n' "$ROCKSDB_LIB_DIR"
  exit
fi

version=$(locked_version librocksdb-sys)
[ -n "$version" ] || fail "Cargo.lock does not name librocksdb-sys"

# Without these RocksDB computes every checksum in software. Every x86_64 processor since 2010 has
# them, but the file says so rather than the calendar.
flags=""
if [ "$(uname -m)" = x86_64 ] && grep -qw sse4_2 /proc/cpuinfo && grep -qw pclmulqdq /proc/cpuinfo; then
  flags="-msse4.2 -mpclmul"
fi

dir="$cache/rocksdb-$version-$(uname -m)"
recipe="librocksdb-sys $version
$(grep '^rocksdb = ' Cargo.toml)
CXXFLAGS=$flags"

is_compiled() { [ -f "$dir/librocksdb.a" ] && [ "$(cat "$dir/recipe" 2>/dev/null)" = "$recipe" ]; }

if ! is_compiled; then
  mkdir -p "$dir"
  # Two checkouts on one machine: the second waits for the first one's library.
  exec 9>"$cache/rocksdb.lock"
  flock 9
fi

if ! is_compiled; then
  say "compiling RocksDB ($version): once per machine, about 12 minutes on two cores"
  build="$cache/rocksdb-build"
  # Nobody steps through RocksDB: its debug information would make 1.4 of 1.5 GB, which every
  # program that links it would read.
  CXXFLAGS="$flags" CARGO_PROFILE_RELEASE_DEBUG=false CARGO_TARGET_DIR="$build" \
    cargo build --release -p librocksdb-sys >&2 9>&-
  found=$(find "$build/release/build" -name librocksdb.a | head -n 1)
  [ -n "$found" ] || fail "cargo built librocksdb-sys but there is no librocksdb.a under $build"
  cp "$found" "$dir/librocksdb.a.new"
  mv "$dir/librocksdb.a.new" "$dir/librocksdb.a"
  printf '%s\n' "$recipe" >"$dir/recipe"
  rm -rf "$build"
  say "RocksDB is kept in $dir"
fi

printf '%s\n' "$dir"
