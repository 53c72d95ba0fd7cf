#!/usr/bin/env bash
# cargo-deny, compiled once per machine (a minute and a half): deny.toml says what it checks.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=0.20.2
tools="$cache/tools/cargo-deny-$version"

if [ ! -x "$tools/bin/cargo-deny" ]; then
  say "compiling cargo-deny $version: once per machine, about two minutes"
  # Optimising it would take longer than it ever saves.
  cargo install --quiet --locked --profile dev --root "$tools" "cargo-deny@$version" >&2
fi

exec "$tools/bin/cargo-deny" "$@"
