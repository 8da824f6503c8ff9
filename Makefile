# make run: a whole cell on this machine.  ONCE=1 make run: the same as a check.  make test, make bench, make lint: what they say.
# Debian 12 or newer; as root, or as a user who may use sudo. Everything from Python goes to .venv, nothing else is touched.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# the programs that the cell and the tests run, and what builds libvirt's Python binding
PACKAGES := \
	libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils prosody iproute2 util-linux bindfs \
	busybox-static syslinux mtools dosfstools kmod cpio xfsprogs lvm2 libxml2-utils ipmitool openipmi faketime \
	python3 python3-venv python3-dev libvirt-dev pkg-config gcc

.PHONY: deps run test bench lint packages

deps: packages $(STAMP)

# No service is started: a policy says so while apt works, unless the machine has one of its own.
packages:
	@if ! dpkg-query -W -f '$${db:Status-Abbrev}\n' $(PACKAGES) 2>/dev/null | awk '$$1 != "ii" { bad = 1 } END { exit bad || NR < $(words $(PACKAGES)) }'; then \
		set -e; policy=/usr/sbin/policy-rc.d; \
		if [ ! -e $$policy ]; then \
			trap '$(SUDO) rm -f '$$policy EXIT INT TERM; \
			printf '#!/bin/sh\nexit 101\n' | $(SUDO) tee $$policy >/dev/null; $(SUDO) chmod +x $$policy; \
		fi; \
		ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || $(SUDO) apt-get update; \
		install="$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(PACKAGES)"; \
		$$install || { $(SUDO) apt-get update && $$install; }; \
	fi

$(STAMP): pyproject.toml
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

run: deps
	@$(SUDO) $(PYTHON) -m tashi.sandbox.demo --state-dir .cell $(if $(ONCE),--once)

test: deps
	@$(SUDO) env $(if $(CI),CI=$(CI)) $(PYTHON) -m pytest

# what the benchmarks measure themselves against
bench: PACKAGES += ganeti-htools
bench: deps
	@$(SUDO) $(PYTHON) -m bench

lint: deps
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
