# Two commands do everything on a fresh Debian or Ubuntu machine with a Rust toolchain, as root or with sudo:
#   make demo    the main job on real MariaDB, Redis and containers; FAULT=… chooses another fault, FLAVOUR=mysql MySQL
#   make test    all tests
# `make verify` only reads; `make fix` writes.

SHELL := /bin/bash
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo "sudo --preserve-env=PATH,CARGO_HOME,CARGO_INCREMENTAL,RUSTUP_HOME,HOME,CI")
FAULT ?= power-loss
FLAVOUR ?= mariadb
RUNS ?= 20
REJOINS ?= 5
SEEDS ?= 100000
BENCH_SEEDS ?= 20000
FIRST ?= 1
KILLS ?= 200
MINUTES ?= 30
PACKAGES := mariadb-server mariadb-backup redis-server docker.io nftables iproute2 iptables keepalived busybox-static iputils-arping procps util-linux
# Systems to compare with. Their services are neither started now nor at the next boot.
PEERS := redis-sentinel pacemaker pacemaker-cli-utils corosync resource-agents
PEER_SERVICES := redis-sentinel pacemaker corosync
LAB := target/debug/lab
# Labs spend most of their time waiting, so all other tests run beside them.
LABS := agents drills drills_more drills_real faults hooks lab verbs
OTHERS := $(sort $(filter-out $(LABS),$(patsubst %.rs,%,$(notdir $(wildcard */tests/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard */tests/*/main.rs)))))
# Here a missing MariaDB, Redis or Docker is a failure; a plain `cargo test` says 'skipped'.
COMPLETE := "PATH=$$PATH:/usr/sbin:/sbin" BATON_TEST_NO_SKIP=1

.DEFAULT_GOAL := help

.PHONY: help demo test test-mysql verify fix simulate soak bench compare peers drill-kills lab-up lab-down packages mysql build

## What there is to make
help:
	@awk '/^## /{text=substr($$0,4)} /^[a-z-]+:/{if(text){split($$1,name,":"); printf "  %-14s %s\n", name[1], text}; text=""}' $(firstword $(MAKEFILE_LIST))

## The main job, end to end: three agents, one fault, one verdict
demo: packages build $(if $(filter mysql,$(FLAVOUR)),mysql)
	$(SUDO) $(LAB) run $(FAULT) --flavour $(FLAVOUR)

## All tests, those on real servers included, with the programs that they need; only those on MySQL may be skipped, where it could not be fetched
test: packages mysql
	cargo test --workspace --no-run
	@mkdir -p target; set -m; \
	$(SUDO) env $(COMPLETE) nice cargo test --workspace --no-fail-fast --lib --bins $(OTHERS:%=--test %) >target/others.log 2>&1 & others=$$!; \
	trap 'kill -- -$$others 2>/dev/null' EXIT; \
	$(SUDO) env $(COMPLETE) cargo test --workspace --no-fail-fast $(LABS:%=--test %); labs=$$?; \
	wait $$others; others_ended=$$?; \
	cat target/others.log; \
	exit $$(( labs || others_ended ))
	cargo test --workspace --doc

## Every fault of the lab on real MySQL, and the tests of drills but the ignored run of all shipped ones
test-mysql: packages mysql build
	$(SUDO) env $(COMPLETE) BATON_FLAVOUR=mysql cargo test --workspace --no-fail-fast --test faults --test drills

## What a change must pass: formatting, lints, tests, documentation
verify: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	$(MAKE) test

## Formats, and rewrites golden files and generated documents. Read the difference before you commit it
fix:
	cargo fmt --all
	REWRITE=1 cargo test -p baton-runbooks --test golden
	REWRITE=1 cargo test -p baton-node --test docs
	REWRITE=1 cargo test -p baton-chaos --test docs_drills
	REWRITE=1 cargo test -p baton-chaos --lib -- report::

## Schedules of three agents in a virtual world; SEEDS=… how many, FIRST=… from which
simulate:
	cargo run --release -p baton-tests --bin simulate -- --first $(FIRST) --seeds $(SEEDS) --threads $$(nproc) --json target/simulate.json

## Random faults and operators' orders in a real lab, MINUTES=… long, SEED=… to repeat one, FLAVOUR=mysql on MySQL; writes target/soak/summary.json
soak: packages build $(if $(filter mysql,$(FLAVOUR)),mysql)
	$(SUDO) $(LAB) soak --minutes $(MINUTES) --flavour $(FLAVOUR) $(if $(SEED),--seed $(SEED)) $(SOAK)

## Outage beside keepalived's, cost of an agent, write gap of planned moves, time to rejoin, speed of the simulator; writes target/bench/*.json
bench: packages mysql
	cargo build --release -p baton-node -p baton-tests --bins
	mkdir -p target/bench
	target/release/simulate --seeds $(BENCH_SEEDS) --threads $$(nproc) --json target/bench/simulator.json
	$(SUDO) target/release/lab bench --runs $(RUNS)
	$(SUDO) target/release/lab bench-switchover --runs $(RUNS)
	$(SUDO) target/release/lab bench-rejoin --runs $(REJOINS)

## Every system under the same faults, RUNS=3 of each; writes target/bench/compare.json and the tables in README.md and docs/comparison.md
compare: RUNS = 3
compare: packages peers build
	$(SUDO) $(LAB) compare --runs $(RUNS)
	$(LAB) compare-docs

## Kills the one who drills KILLS times, at random instants, and looks that nothing is left
drill-kills: packages build
	$(SUDO) env "PATH=$$PATH" BATON_DRILL_KILLS=$(KILLS) cargo test --workspace --test drills -- --nocapture a_killed_runner

## A lab that stands until it is interrupted
lab-up: packages build
	$(SUDO) $(LAB) up

## Takes every standing lab down
lab-down: build
	$(SUDO) $(LAB) down

## MySQL's server from Debian sid in a folder of its own, for the tests of the hands; without it they say so
mysql:
	@$(SUDO) sh node/tests/support/fetch-mysql.sh || echo "no MySQL could be fetched: its tests will say 'skipped'"

build:
	cargo build --workspace --bins

## Installs what is missing; the packages' own services are left as they are
packages:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing:" $$missing; \
	  $(SUDO) apt-get update -q && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi

## Installs the systems to compare with, which nothing else needs
peers:
	@missing=$$(for p in $(PEERS); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing:" $$missing; \
	  $(SUDO) sh tests/src/compare/install.sh "$$missing" "$(PEER_SERVICES)"; \
	fi
