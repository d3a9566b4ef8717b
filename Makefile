# The two commands to know: `make rehearse` and `make test`. Each installs
# what it needs on a fresh Debian with Rust, and says what it installs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
ARGS ?=

.PHONY: help tools build test check rehearse chaos verify mutants bench

RUNS ?= 10
SEED ?=

help: ## Show these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 14

tools: ## Install test tools into .tools/, and missing Debian packages
	@tests/scripts/tools.sh

build: tools ## Build everything
	@cargo build --workspace

test: tools ## Build, run every test, then all checks
	@tests/scripts/test.sh

check: tools ## Format, clippy, dependencies, spelling, protocol
	@tests/scripts/check.sh

rehearse: tools ## Carry out a whole cutover on this machine; options in ARGS="…"
	@cargo build --workspace --bins --lib
	@target/debug/rehearse $(ARGS)

chaos: tools ## Cutovers and restarts under random kills, stops and cuts; RUNS=n SEED=s
	@cargo build --workspace --bins --lib
	@target/debug/chaos --runs $(RUNS) $(if $(SEED),--seed $(SEED))

verify: tools ## The tests at full size: 40 million states, every fault and every kill
	@cargo build --workspace --all-targets
	@PROPTEST_CASES=250000 .tools/venv/bin/cargo-nextest nextest run -p lockstep-barrier \
	    --profile verify --run-ignored all
	@.tools/venv/bin/cargo-nextest nextest run --workspace --exclude lockstep-barrier \
	    --profile verify --run-ignored all

mutants: tools ## Which test catches each deliberate error in the protocol; names in ARGS="…"
	@python3 tests/scripts/mutants.py $(ARGS)

bench: tools ## Measure rehearsals: order rate, write outage, what Lockstep adds to it
	@cargo build --workspace --bins --lib
	@tests/scripts/bench.sh
