#!/usr/bin/env bash
# Installs what a bare Debian with Rust and git lacks; what is there already is left alone.
#
#   scripts/setup.sh [build] [test] [bench]      default: build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

missing=()
reasons=()

main() {
  [ $# -gt 0 ] || set -- build
  for part in "$@"; do
    case "$part" in
      build) need_rust; need_build_packages ;;
      test) need_rust_components; need_test_packages ;;
      bench) need_package etcd-server etcd "the server that Gonfalon is measured against" ;;
      *) fail "setup.sh knows build, test and bench, not '$part'" ;;
    esac
  done
  install_packages
  for part in "$@"; do
    [ "$part" != test ] || install_python_tools
  done
}

need_rust() {
  command -v cargo >/dev/null || fail "cargo is not there; install Rust from https://rustup.rs, then run this again"
}

need_rust_components() {
  for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null 2>&1 && continue
    command -v rustup >/dev/null || fail "'cargo $tool' is not there, and neither is rustup to add it"
    say "adding Rust's ${tool} (for the checks before the tests)"
    rustup component add "${tool/fmt/rustfmt}" >&2
  done
}

need_build_packages() {
  need_package make make "runs the Makefile"
  need_package g++ g++ "compiles RocksDB, links"
  has_libclang && return
  # bindgen, which writes the bindings to RocksDB, loads libclang and reads its headers.
  local release
  release=$(default_clang_release)
  need_package "libclang1-$release" '' "reads RocksDB's C header"
  need_package "libclang-common-$release-dev" '' "the same: its own headers"
}

need_test_packages() {
  need_package etcd-server etcd "a real etcd: the same calls go to both, the answers are compared"
  need_package etcd-client etcdctl "etcd's command line, driven against Gonfalon"
  need_package protobuf-compiler protoc "builds a Rust client of etcd that is run against Gonfalon"
  need_package libprotobuf-dev '' "the same: the types that protoc's inputs import"
  need_package strace strace "makes a disk fail under a running server"
  need_package python3-venv '' "runs a Python client against Gonfalon"
}

# need_package PACKAGE COMMAND WHY: the command, if the package has one, may come from elsewhere.
need_package() {
  if [ -n "$2" ]; then
    command -v "$2" >/dev/null && return
  fi
  is_installed "$1" && return
  [[ " ${missing[*]-} " != *" $1 "* ]] || return 0
  missing+=("$1")
  reasons+=("$3")
}

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

has_libclang() {
  [ -z "${LIBCLANG_PATH:-}" ] || return 0
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null &&
    compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stdbool.h' >/dev/null
}

# The release of clang that this distribution calls `clang`: 14 on Debian 12, 19 on Debian 13.
default_clang_release() {
  local release
  release=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
  if [ -z "$release" ]; then
    refresh_package_lists
    release=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
  fi
  printf '%s\n' "${release:-14}"
}

install_packages() {
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing Debian packages:"
  local i
  for i in "${!missing[@]}"; do
    say "$(printf '  %-24s %s' "${missing[$i]}" "${reasons[$i]}")"
  done
  command -v apt-get >/dev/null ||
    fail "this is not a Debian: install the equivalents of the packages above, then run this again"
  refresh_package_lists
  as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  [[ " ${missing[*]} " != *" etcd-server "* ]] || stop_debians_etcd
}

lists_are_fresh=
refresh_package_lists() {
  [ -z "$lists_are_fresh" ] || return 0
  as_root apt-get update -qq >&2
  lists_are_fresh=yes
}

# Debian starts an etcd on ports 2379 and 2380 the moment its package is unpacked.
# Only called when this script installed it: an etcd that was here before is somebody's.
stop_debians_etcd() {
  [ -d /run/systemd/system ] || return 0
  say "stopping and disabling the etcd service that the package just started (tests start their own)"
  as_root systemctl disable --now etcd >&2
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    DEBIAN_FRONTEND=noninteractive "$@"
  elif command -v sudo >/dev/null; then
    sudo DEBIAN_FRONTEND=noninteractive "$@"
  else
    fail "needs root, and there is no sudo; as root: $*"
  fi
}

# etcd 3.5 and a Python client of etcd, in target/venv; again only when the list has changed.
install_python_tools() {
  local venv="$root/target/venv" list="$root/tests/requirements.txt"
  cmp -s "$list" "$venv/requirements.txt" && return
  say "installing Python tools into target/venv: $(grep -v '^#' "$list" | tr '\n' ' ')"
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$list" >&2
  cp "$list" "$venv/requirements.txt"
}

main "$@"
