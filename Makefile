# Tapvisor's commands. `make demo` and `make test` do all their own set-up on a Debian 12 or 13 machine.
# Each set-up step looks first and does only what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
CNI_BIN ?= /opt/cni/bin
target := $(or $(CARGO_TARGET_DIR),target)
musl := x86_64-unknown-linux-musl
export TAPVISOR_DIST ?= $(abspath $(target))/dist

# On a terminal cargo shows how far it is.
quiet := $(shell [ -t 2 ] || echo --quiet)

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

.PHONY: demo
demo: setup-demo build ## two virtual machines on a dual-stack network, every promise checked before your eyes
	@echo "demo: building what checks it"
	@cargo run $(quiet) --package tests --bin demo

.PHONY: test
test: setup-test setup-cluster setup-lab ## the test ladder; the last line counts its tests
	@tests/within 20 tests/build cluster lab
	@tests/within 4 deploy/images/build "$(TAPVISOR_DIST)"
	@tests/ladder l0 l1 conformance guest lab cluster

.PHONY: test-l0 test-l1 test-conformance test-guest test-lab test-cluster
test-l0: setup-build ## rung L0: pure tests and the rules of the house, no privilege
	@tests/ladder l0
test-l1: setup-test build ## rung L1: root and namespaces
	@tests/ladder l1
test-conformance: setup-test build ## what a CNI plugin must hold to, with faults at every kernel step; CHURN=1000 cycles of random kills
	@tests/ladder conformance
test-guest: setup-test build ## end to end with real guests
	@tests/ladder guest
test-lab: setup-lab ## rung L2: a virtual host with a real KVM, vhost-net and 802.1Q, or this machine where its KVM runs code
	@tests/build lab
	@tests/ladder lab
test-cluster: setup-cluster images ## rung cluster: a real Kubernetes of two nodes on this machine, and VMs in it
	@tests/ladder cluster

.PHONY: kubevirt-suite
kubevirt-suite: setup-suite images ## KubeVirt's end-to-end suite, into tests/cluster/SUITE.md; FILTER='conformance && sig-network' or FOCUS='…', SKIP='…'
	@cargo run --quiet --package tests --bin kubevirt-suite -- $(if $(SKIP),skip '$(SKIP)') \
		$(if $(FOCUS),focus '$(FOCUS)',label-filter '$(or $(FILTER),conformance)')

.PHONY: soak
soak: setup-test build ## an hour of a VM process that floods its host; results are kept in tests/SOAK.md; SOAK_SECONDS=3600
	@FLOOD_SECONDS=$(or $(SOAK_SECONDS),3600) cargo test --quiet --package tests --test guest -- --nocapture "floods its log"

.PHONY: kill-boot-server
kill-boot-server: setup-test build ## kill -9 of the boot server at 200 moments between leases; KILLS=200
	@KILLS=$(or $(KILLS),200) cargo test --quiet --package tests --test l1 -- "no lease is lost or given twice"

.PHONY: lab
lab: setup-lab ## a shell in that virtual host
	@tests/build lab
	@cargo run --quiet --package tests --bin lab

.PHONY: cluster-upgrade
cluster-upgrade: setup-cluster images ## VMs that run on while this release takes the place of the one before, and back; FROM=COMMIT (HEAD~1)
	@before=$$(tests/release_before $(or $(FROM),HEAD~1)); \
		RELEASE_BEFORE=$$before cargo test --quiet --package tests --test cluster -- "VMs run on through an upgrade"

.PHONY: cluster-soak
cluster-soak: setup-cluster images ## a hundred VMs start while the parts of the cluster are killed; SOAK_STARTS=100, SOAK_SEED=… repeats a run
	@SOAK_STARTS=$(or $(SOAK_STARTS),100) cargo test --quiet --package tests --test cluster -- --nocapture "VMs start while the parts"

.PHONY: cluster cluster-down
cluster: setup-cluster images ## a shell in a Kubernetes of two nodes with Tapvisor installed; it stays when the shell ends
	@cargo run --quiet --package tests --bin cluster shell
cluster-down: ## the end of that Kubernetes; nothing of it is left
	@cargo run --quiet --package tests --bin cluster down

# Before other work on the machine, if the kernel lets us.
run-bench = $$(chrt --fifo 1 true 2>/dev/null && echo chrt --fifo 1) "$(TAPVISOR_DIST)/bench" \
	$(if $(QUICK),--quick) --into tests/bench/RESULTS.md
benches := bench-start bench-wiring bench-chain bench-bridge bench-workers bench-tail bench-services bench-dhcp bench-path bench-run
.PHONY: bench bench-vmm $(benches)
bench: setup-bench setup-lab ## speed and size compared with the floor and the peers, into tests/bench/RESULTS.md; bench-wiring … one section; QUICK=1 takes ten minutes
	@tests/build bench lab
	@$(run-bench)
$(benches): bench-%: setup-bench
	@tests/build bench
	@$(run-bench) $*
bench-vmm: setup-bench setup-lab ## our KVM machine compared with QEMU, in the lab by the count of instructions
	@tests/build bench lab
	@$(run-bench) vmm-start vmm-network

fuzz := $(abspath $(target))/fuzz
TIME ?= 60
.PHONY: fuzz
fuzz: setup-fuzz ## every reader of foreign input under a fuzzer; TIME=60 seconds each, ONLY="dhcpv4 …", KEEP=1
	@fuzz/build "$(fuzz)" $(ONLY)
	@cargo run --quiet --package fuzz-targets -- --fuzzers "$(fuzz)/x86_64-unknown-linux-gnu/release" \
		--work "$(fuzz)/work" --seconds $(TIME) $(addprefix --only ,$(ONLY)) $(if $(KEEP),--keep)

.PHONY: lint
lint: setup-lint ## format, clippy, dependencies
	cargo fmt --all --check
	rustfmt --check --edition 2024 fuzz/src/bin/*.rs
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	@tests/setup run-deny check bans licenses sources
	@cp Cargo.lock fuzz/Cargo.lock
	@tests/setup run-deny --manifest-path fuzz/Cargo.toml check bans licenses sources

.PHONY: build
build: setup-build ## tapvisor, tapvisor-launcher, tapvisor-dhcp and the static plugins, in target/dist
	@tests/build

.PHONY: manifest
manifest: setup-cluster ## deploy/tapvisor.yaml from deploy/base
	@PATH="$$(tests/setup cache)/cluster/bin:$$PATH" deploy/manifest

.PHONY: images
images: setup-build ## OCI archives of the container images, into target/dist/images, without a registry
	@tests/build cluster
	@deploy/images/build "$(TAPVISOR_DIST)"

# These two may run by sudo, where the user's Rust toolchain is not: they take what `make build` has made.
.PHONY: built
built:
	@test -x "$(TAPVISOR_DIST)/tapvisor" -a -x "$(TAPVISOR_DIST)/tapvisor-launcher" -a -x "$(TAPVISOR_DIST)/tapvisor-cni" -a \
		-x "$(TAPVISOR_DIST)/tapvisor-bridge" -a -x "$(TAPVISOR_DIST)/tapvisor-dhcp" || \
		{ echo "nothing in $(TAPVISOR_DIST) yet: run 'make build' first" >&2; exit 2; }

.PHONY: install
install: built ## what is built, to PREFIX/bin (/usr/local) and CNI_BIN (/opt/cni/bin), below DESTDIR
	install -D -m 0755 "$(TAPVISOR_DIST)/tapvisor" "$(DESTDIR)$(PREFIX)/bin/tapvisor"
	install -D -m 0755 "$(TAPVISOR_DIST)/tapvisor-launcher" "$(DESTDIR)$(PREFIX)/bin/tapvisor-launcher"
	install -D -m 0755 "$(TAPVISOR_DIST)/tapvisor-dhcp" "$(DESTDIR)$(PREFIX)/bin/tapvisor-dhcp"
	install -D -m 0755 "$(TAPVISOR_DIST)/tapvisor-cni" "$(DESTDIR)$(CNI_BIN)/tapvisor"
	install -D -m 0755 "$(TAPVISOR_DIST)/tapvisor-bridge" "$(DESTDIR)$(CNI_BIN)/tapvisor-bridge"

.PHONY: guest
guest: built setup-guest ## the guest that the examples boot, into this machine's image store
	"$(TAPVISOR_DIST)/tapvisor" image import "$$(tests/setup cache)/guest/images"

.PHONY: setup-build setup-lint setup-guest setup-demo setup-test setup-bench setup-fuzz setup-lab setup-cluster setup-suite
setup-build setup-lint setup-guest setup-demo setup-test setup-bench setup-fuzz setup-lab setup-cluster setup-suite: setup-%:
	@tests/setup $*
