# Every command is a script in scripts/ (the same without make); this file names them.
# `make run ARGS="--name b"` hands options on.

.DEFAULT_GOAL := help
ARGS ?=

.PHONY: help setup run test test-long test-flags kills demo bench lint format advisories clean-data

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and testing need (Debian packages, Python tools)
	@scripts/setup.sh build test bench

run: ## build for release and start one node on 127.0.0.1:2379, data in ./gonfalon.data
	@scripts/run.sh $(ARGS)

test: ## the whole suite, as CI runs it: format, lints, licences, tests by layer
	@scripts/test.sh $(ARGS)

kills: ## kill the leader of three nodes 50 times; how long writes paused (2 minutes)
	@scripts/kills.sh

test-long: ## random tests with many more draws: cut watches, the comparison with etcd; over an hour
	@GONFALON_TEST_LONG=1 scripts/test.sh units differential

test-flags: ## flagd's and JsonLogic's own cases; GONFALON_FLAGS_DATA names their folder
	@scripts/test.sh flags-data

demo: ## three nodes on this machine and a tour of about a minute
	@scripts/demo.sh $(ARGS)

bench: ## etcd and Gonfalon side by side; table in bench/results/
	@scripts/bench.sh $(ARGS)

lint: ## only the fast checks of `make test`: format, clippy, dependencies
	@scripts/test.sh format clippy deny

format: ## format all Rust code
	@cargo fmt --all

advisories: ## known vulnerabilities in dependencies (fetches the RustSec database from GitHub)
	@scripts/deny.sh check advisories

clean-data: ## delete the data of `make run` and `make demo`
	rm -rf gonfalon.data demo.data
