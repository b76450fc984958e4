# Two commands: `make demo` and `make test`. Both do all of their own set-up; a second run repeats none of it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

# What runs outside of Python. Nothing here starts a service. The demo's names are the same on Debian and Ubuntu; of the
# tests' only the browser is not (Ubuntu's is a snap: install another Chromium there, the tests say so).
DEMO := \
  python3-venv \
  qemu-system-x86 qemu-utils ovmf \
  mmdebstrap uidmap debian-archive-keyring \
  e2fsprogs dosfstools mtools fdisk \
  xorriso squashfs-tools cpio zstd \
  openssl curl tzdata openssh-client
TEST := \
  grub-efi-amd64-bin grub-pc-bin grub-common \
  dnsmasq-base ipxe iproute2 shim-signed grub-efi-amd64-signed nginx-light \
  age mdadm xfsprogs openipmi \
  $(shell . /etc/os-release; [ "$$ID" = ubuntu ] || echo chromium)
DEBIAN := $(DEMO) $(TEST)

# The mirror that images and ramdisks come from; empty: the machine's own if it is Debian.
MIRROR ?=

# Answers of real BMCs, beside the checkout where there are any; CI names the folder, and there they must be.
RECORDINGS := METALIMMU_RECORDINGS="$${METALIMMU_RECORDINGS:-$$([ ! -d ../shared/recordings ] || (cd ../shared/recordings && pwd))}"

.PHONY: help setup debian demo test simulate long bench lock clean

help:
	@echo "make demo    reimage a virtual machine to version 1, to version 2, and roll back, each proven"
	@echo "make test    everything: linters, types, floors, unit, conformance, emulator, virtual machines"
	@echo "make simulate  a thousand hosts in waves, 200 times, with failures and controllers that die"
	@echo "make long    the tests of many machines that take too long for each change"
	@echo "make bench   the numbers, side by side with fair competitors"

setup: debian $(VENV)/.installed

# One line when something is missing and cannot be installed.
debian:
	@command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || { echo "missing: apt-get; this needs Debian >= 12 or Ubuntu >= 24.04"; exit 1; }; \
	missing=$$(for p in $(DEBIAN); do dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then as=""; elif sudo -n true 2>/dev/null; then as="sudo"; elif [ -t 0 ] && command -v sudo >/dev/null; then as="sudo"; \
	else echo "missing: root or sudo, to apt-get install" $$missing; exit 1; fi; \
	echo "installing Debian packages:" $$missing; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$as apt-get update -q >/dev/null || true; \
	$$as apt-get install -y -q --no-install-recommends $$missing >/dev/null || { echo "missing: apt-get could not install" $$missing; exit 1; }

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "missing: Python >= 3.11; $(PYTHON) is $$($(PYTHON) -V)"; exit 1; }
	@echo "virtual environment: $(VENV)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

demo: DEBIAN = $(DEMO)
demo: setup
	@$(BIN)/metalimmu lab demo $(if $(MIRROR),--mirror $(MIRROR))

test: setup
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q . && echo "ruff: ok"
	@$(BIN)/mypy | tail -1
	@$(BIN)/lint-imports --no-cache -q 2>/dev/null || $(BIN)/lint-imports --no-cache
	@$(RECORDINGS) $(BIN)/pytest -q -n 5 --dist worksteal -m "not e2e and not emulator"
	@echo "building the images and ramdisks that the tests boot (once)"; $(BIN)/python tests/artifacts.py
	@$(RECORDINGS) $(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m "(e2e or emulator) and not long"

simulate: setup
	@METALIMMU_SEEDS=200 $(BIN)/pytest -q -n 2 tests/service/test_rollout_sim.py

# Ten machines whose controller is lost (`test` has the one of a rollout), Debian on a mirror (`test` has tiny, its halves read
# from outside), switches of a lab without a bridge (`test` has them on one).
long: setup
	@$(BIN)/python tests/artifacts.py
	@METALIMMU_LOST=10 $(BIN)/pytest -q -p no:xdist --timeout 3600 -m long

bench: setup
	@$(BIN)/python -m benchmarks

lock:
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --extra lab --extra keyring --extra vault --group dev \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url -q -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
