# run, test, lint and docs each set up what they need, in .venv; a second call finds
# it there. Only e2e-deps and bench-deps change anything outside the checkout.

PYTHON ?= $(firstword $(shell command -v python3.11 python3))
VENV := .venv
BIN := $(VENV)/bin

# The configuration of "make run"; the one that is made keeps all data below run/.
CONFIG ?= run/regproxy.toml
# The tests of "make test": any names that trial takes; without one, all.
TESTS ?=
# What "make e2e-image" keeps for its next call.
E2E_IMAGE := run/e2e-image
# What "make bench" runs: all, or names of modules in bench/cases/.
CASES ?=
# Where it writes all samples.
RESULTS ?= run/bench.json

.PHONY: help run test e2e-image e2e-kubernetes soak bench lint docs screenshots cloud-init \
    e2e-deps kubernetes-deps bench-deps clean
.NOTPARALLEL:

help:
	@echo 'make run       start the proxy in the foreground [CONFIG=file]'
	@echo 'make test      run the tests [TESTS=tests.oci]'
	@echo 'make e2e-image build the image with dockerd, run it and pull (Debian, root)'
	@echo 'make e2e-kubernetes  see what helm and kustomize make of deploy/, in the real programs (root)'
	@echo 'make soak      run the tests that take minutes: herds, hundreds of kills; with figures'
	@echo 'make bench     measure beside nginx and others; takes minutes [CASES="warm_tls herd"]'
	@echo 'make lint      check style, types, floors and news fragments'
	@echo 'make docs      build the documentation into docs/_build/html'
	@echo 'make screenshots  take the pictures of the pages in docs/images (chromium)'
	@echo 'make cloud-init  write deploy/cloud-init anew, from the templates of the set-up scripts'
	@echo 'make e2e-deps  install the programs of the end-to-end tests (Debian, root)'
	@echo 'make kubernetes-deps  build helm, kustomize and CoreDNS, which takes minutes (Go)'
	@echo 'make bench-deps  install the programs of "make bench" (Debian, root)'
	@echo 'make clean     remove .venv and what was built; run/ stays'

run: $(VENV)/.has-run $(CONFIG)
	$(BIN)/twistd --nodaemon --pidfile= regproxy --config $(CONFIG)

test: $(VENV)/.has-test
	$(BIN)/python -m tests.run $(TESTS)

e2e-image: $(VENV)/.has-test $(E2E_IMAGE)/base.tar $(E2E_IMAGE)/wheels
	$(BIN)/python -m tests.run tests.e2e.image

# They need programs that take minutes to build: "make kubernetes-deps".
KUBERNETES_TESTS := $(addprefix tests.deploy.,chart nodes page proxy schemas security) \
    $(addprefix tests.e2e.,kubernetes_dns kubernetes_pod image_node)

e2e-kubernetes: $(VENV)/.has-test $(E2E_IMAGE)/base.tar $(E2E_IMAGE)/wheels
	$(BIN)/python -m tests.run $(KUBERNETES_TESTS)

# A Debian like the machine's own, whose Python the wheels have to fit.
$(E2E_IMAGE)/base.tar:
	mkdir -p $(@D)
	debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
	    "$$(. /etc/os-release && echo "$$VERSION_CODENAME")" $(@D)/base
	tar --directory=$(@D)/base --exclude=./dev --exclude=./var/cache/apt/archives \
	    --exclude=./var/lib/apt/lists --exclude=./usr/share/doc --create --file=$@.part .
	mv $@.part $@
	rm -rf $(@D)/base

$(E2E_IMAGE)/wheels: setup.cfg pyproject.toml
	rm -rf $@ $(@D)/venv
	/usr/bin/python3 -m venv $(@D)/venv
	$(@D)/venv/bin/pip wheel --quiet --disable-pip-version-check --wheel-dir $@ \
	    . setuptools cyclonedx-bom

soak: $(VENV)/.has-test
	$(BIN)/python -m tests.run tests.faults.soak

bench: $(VENV)/.has-bench
	$(BIN)/python -m bench --json $(RESULTS) $(CASES)

lint: $(VENV)/.has-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/towncrier build --draft

docs: $(VENV)/.has-docs
	$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going -b html docs docs/_build/html

screenshots: $(VENV)/.has-test
	$(BIN)/python -m tests.support.pictures docs/images

cloud-init: $(VENV)/.has-run
	$(BIN)/python -m regproxy.management.setup.ready deploy/cloud-init

# Real clients and servers, and what they need to run as root in a container or a
# virtual machine. python3-venv is for a Debian that has Python only.
e2e-deps: export DEBIAN_FRONTEND := noninteractive
e2e-deps:
	# One that had no cloud-init is not to be set up by it at its next boot.
	test -e /usr/bin/cloud-init || install -D /dev/null /etc/cloud/cloud-init.disabled
	apt-get update
	apt-get install --yes --no-install-recommends \
	    apache2-utils busybox-static ca-certificates chromium cloud-init conmon containerd \
	    crun curl debootstrap dnsmasq-base dnsutils docker-compose docker-registry docker.io \
	    fish fonts-inter haproxy iproute2 iptables microsocks nginx openssl podman prometheus \
	    python3-venv runc shellcheck skopeo squid-openssl systemd-container zsh

# Of these Debian has none, or none that is young enough: Go builds them, a Go that is younger
# than Debian 12's.
GO_PROGRAMS := helm.sh/helm/v3/cmd/helm@v3.22.0 sigs.k8s.io/kustomize/kustomize/v5@v5.7.1 \
    github.com/coredns/coredns@v1.15.0

GO := $(firstword $(shell command -v go /usr/local/go/bin/go))

kubernetes-deps: e2e-deps
	@test -n '$(GO)' || { echo 'there is no Go, which helm, kustomize and CoreDNS are built by'; exit 1; }; \
	for program in $(GO_PROGRAMS); do \
	    CGO_ENABLED=0 GOBIN=/usr/local/bin $(GO) install $$program || exit 1; \
	done

bench-deps: e2e-deps

clean:
	rm -rf $(VENV) build dist docs/_build _trial_temp* .hypothesis \
	    .mypy_cache .ruff_cache .import_linter_cache *.egg-info twisted/plugins/dropin.cache
	find bench regproxy tests twisted docs -name __pycache__ -prune -exec rm -rf {} +

# pip comes last into a virtual environment: where it is, the rest is complete.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# The extras behind each target; "make run" needs none.
extras-run :=
extras-test := [test]
extras-bench := [bench,test]
extras-lint := [lint,test,docs]
extras-docs := [docs]

# Without the compat mode an editable install hides twisted/plugins/ from twistd.
$(VENV)/.has-%: setup.cfg pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check \
	    --config-settings editable_mode=compat --editable '.$(extras-$*)'
	touch $@

run/regproxy.toml:
	mkdir -p $(@D)
	printf 'data = "%s"\n' '$(CURDIR)/run' > $@
