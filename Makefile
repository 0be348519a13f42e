# Every recipe of the project. `make test` and `make demo` need Rust, gcc and make, nothing else.

.PHONY: demo test lint tools

# Two daemons, a killed primary, a takeover, a return: under a minute.
demo:
	cargo build --release -p hadrian-replicator --bins
	cargo run --release --quiet -p hadrian-replicator --bin hadrian -- demo

# Unit, property, scenario and integration tests: all of `cargo test --workspace`, side by side.
test: tools
	./tests/run

# Formatting, lints, documentation.
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p hadrian-replicator -- -D warnings  # without ublk and etcd, as most will build it
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# Installs the clients that the tests speak to, where they are missing, and fetches what the lab
# boots; a machine that gets no kernel does not run the stories that need one, and says so.
tools:
	./tests/install-tools
	./tests/vm/prepare || echo "the lab is not ready: its stories will not be run"

# Real kernels in emulation: file systems on our block devices, failovers, power cuts.
.PHONY: vm-test
vm-test: tools
	cargo test -p hadrian-lab --test lab -- --include-ignored

# PostgreSQL on a mirrored volume, through seeding, failovers, a fork and a rejoin. Needs to be root.
.PHONY: pg-test
pg-test: tools
	./tests/install-tools postgres
	cargo test -p hadrian-tests --test postgres -- --include-ignored --nocapture

# Both daemons on this machine beside QEMU, in one run; results in target/bench.json. It takes about
# half an hour, and 70 GiB of disk.
.PHONY: bench bench-scale
bench: tools
	cargo build --release -p hadrian-replicator --bins
	cargo run --release --quiet -p hadrian-benches --bin hadrian-bench

# Our block devices beside DRBD's, both members of each in one virtual machine, in one run; results
# in target/bench-drbd.json. It takes about a quarter of an hour.
.PHONY: bench-drbd
bench-drbd: tools
	cargo build --release -p hadrian-replicator --bins --features ublk
	cargo run --release --quiet -p hadrian-benches --bin hadrian-bench -- drbd --seconds 3

# What grows: logs to catch up with and to recover, gaps before a takeover, resources, volumes,
# memory; results in target/bench-scale.json. About ten minutes, and 20 GiB of disk.
bench-scale:
	cargo build --release -p hadrian-replicator --bins
	cargo run --release --quiet -p hadrian-benches --bin hadrian-bench-scale

# Daemons killed at random moments, ROUNDS times in each mode; HADRIAN_SEED repeats a run.
.PHONY: crash-soak soak
ROUNDS ?= 20
crash-soak:
	cargo build --workspace --bins
	cargo run --quiet -p hadrian-tests --bin crash-soak -- $(ROUNDS)

soak:
	$(MAKE) crash-soak ROUNDS=200
	$(MAKE) link-soak ROUNDS=100
	$(MAKE) fence-soak ROUNDS=100
	$(MAKE) verify-soak MINUTES=60
	$(MAKE) sim SEEDS=100000 FIRST=1000000

# Comparisons for MINUTES while clients write as fast as they can, with bytes flipped on either disk.
.PHONY: verify-soak
MINUTES ?= 60
verify-soak:
	cargo build --workspace --bins
	cargo run --quiet -p hadrian-tests --bin verify-soak -- $(MINUTES)

# Links that are cut and daemons that stand still, ROUNDS times in each mode. Needs to be root.
.PHONY: link-soak
link-soak: tools
	HADRIAN_LINK_ROUNDS=$(ROUNDS) cargo test -p hadrian-tests --test links -- --nocapture

# A pair with ownership marks that fails over by itself: daemons killed or standing still, links
# cut, markers that hang, etcd killed, ROUNDS times, a third of them on one marker, on three and on
# etcd each. Needs to be root.
.PHONY: fence-soak
fence-soak: tools
	HADRIAN_FENCE_ROUNDS=$(ROUNDS) cargo test -p hadrian-tests --test fencing -- \
		--nocapture no_fault_loses

# Whole clusters on simulated time, one for each seed; the first that breaks a promise is told.
.PHONY: sim
SEEDS ?= 2000
FIRST ?= 0
sim:
	cargo run --release --quiet -p hadrian-sim --bin hadrian-sim -- \
		--seeds $(SEEDS) --first $(FIRST)
	cargo run --release --quiet -p hadrian-sim --bin hadrian-sim -- --marks \
		--seeds $$(($(SEEDS) / 4)) --first $(FIRST)

# Every interleaving of small clusters, DEEPER moves further than `make test` looks ahead, and
# stories to their end with DETOURS from the simplest order.
.PHONY: explore
DEEPER ?= 1
DETOURS ?= 1
explore:
	cargo run --release --quiet -p hadrian-sim --bin hadrian-explore -- \
		--deeper $(DEEPER) --detours $(DETOURS)

# Rules are taken out of the code one by one; the simulator must notice each.
.PHONY: mutants
mutants:
	cargo run --quiet -p hadrian-sim --bin hadrian-mutants

# Searches for inputs that break a property, FUZZ_SECONDS on each target of fuzz/; FUZZ_TARGETS
# names some of them. Needs a C++ compiler, which is installed where it is missing.
.PHONY: fuzz
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
fuzz:
	./tests/install-tools fuzz
	./fuzz/run $(FUZZ_SECONDS) $(FUZZ_TARGETS)
