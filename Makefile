# Every target sets up what it needs: a fresh clone needs only make and Python 3.11 with venv and pip.
SHELL := /bin/sh
.DEFAULT_GOAL := help

# More arguments for the program behind a target:  make test ARGS="tests/unit -k lease"
ARGS ?=
# Major versions of PostgreSQL for `make test-pg`, such as PG="14 18"; by default, all supported ones.
PG ?=
# The name of the image, and the network for its downloads (host if `default` cannot reach a package index).
IMAGE ?= listener
BUILD_NETWORK ?= default
# The interpreter for the environment; by default, the first of these that is 3.11 or newer.
PYTHON ?=
PYTHONS := python3.11 python3 python3.12 python3.13 python3.14

UV_VENV := .cache/uv-venv
UV := $(UV_VENV)/bin/uv
UV_READY := $(UV_VENV)/.ready
BIN := .venv/bin
READY := .venv/.ready
# How many tests run at a time: most of them wait for processes and servers.
WORKERS ?= 4
PARALLEL := --numprocesses $(WORKERS) --dist worksteal

# Variables that the shell carries over from other projects must not move the environment.
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never
# Compiled once here, not at every start: some environments forbid Python to store bytecode.
export UV_COMPILE_BYTECODE := 1
unexport VIRTUAL_ENV
# uv trusts its own certificates; like pip and Python, it must trust PIP_CERT, or else the system's.
export UV_SYSTEM_CERTS ?= true
ifneq ($(origin PIP_CERT),undefined)
export SSL_CERT_FILE ?= $(PIP_CERT)
endif

.PHONY: help demo test test-docker test-pg soak dist image check bench bench-rotation fmt settings-table runbooks-check lock clean

help: ## list these targets
	@while IFS= read -r line; do case $$line in \
	  [a-z]*:*'## '*) printf '  make %-14s %s\n' "$${line%%:*}" "$${line#*## }";; \
	esac; done < Makefile

demo: $(READY) ## show it at work on an embedded PostgreSQL (ARGS="--keep-running")
	$(BIN)/listener demo $(ARGS)

test: $(READY) ## run all tests except those of the image (ARGS="tests/unit -k lease")
	$(BIN)/pytest $(PARALLEL) -m "not docker" $(ARGS)

test-docker: $(READY) ## build the image and run it in containers; skips if no container engine answers
	$(BIN)/pytest -m docker $(ARGS)

test-pg: $(READY) ## run the tests that need a database on PostgreSQL 14 to 18; needs npm (PG="14 18")
	$(BIN)/python -m tests.server.matrix $(PG:%=--pg %) $(PARALLEL) -m "database and not docker" \
	  $(or $(ARGS),tests/integration tests/acceptance)

soak: $(READY) ## break everything for minutes, then check every row (ARGS="--seconds 600 --seed 7")
	$(BIN)/python -m tests.soak $(ARGS)

dist: $(UV_READY) ## build the wheel and the sdist into dist/
	$(UV) build --quiet --clear --out-dir dist

image: ## build the images listener and listener-demo (BUILD_NETWORK=host)
	docker build --network $(BUILD_NETWORK) -t $(IMAGE)-demo --target demo $(ARGS) .
	docker build --network $(BUILD_NETWORK) -t $(IMAGE) $(ARGS) \
	  --build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
	  --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" .

check: $(READY) ## lock file, format, lint, types, import arrows: what CI runs before the tests
	$(UV) lock --check --quiet
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(READY) ## measure, and print the figures as a table (ARGS="--help")
	$(BIN)/python -m bench $(ARGS)

bench-rotation: $(READY) ## measure what the rotation costs Discogs, at accelerated time (ARGS="--rounds 1")
	$(BIN)/python -m bench.rotation_load $(ARGS)

fmt: $(READY) ## format, and fix what ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

settings-table: $(READY) ## write the README's settings table from the model
	$(BIN)/python -m tests.readme

runbooks-check: $(READY) ## run every command of the runbooks, in a scratch environment (part of make test)
	$(BIN)/pytest $(PARALLEL) tests/acceptance/test_runbooks.py $(ARGS)

lock: $(UV_READY) ## bring uv.lock up to date with pyproject.toml (ARGS="--upgrade")
	$(UV) lock --python $(UV_VENV)/bin/python $(ARGS)

clean: ## remove the environment and every cache
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

$(READY): pyproject.toml uv.lock $(UV_READY)
	$(UV) sync --frozen --extra demo --python $(UV_VENV)/bin/python
	@touch $@

$(UV_READY): .ci/uv.txt
	@for python in $(or $(PYTHON),$(PYTHONS)); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'No Python 3.11 or newer among: $(or $(PYTHON),$(PYTHONS)).' >&2; \
	  echo 'Install one, or name it: make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3.11' >&2; \
	  exit 1; \
	fi; \
	echo "setting up $(UV_VENV) with $$("$$python" -V)"; \
	"$$python" -m venv --clear $(UV_VENV) && \
	$(UV_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r .ci/uv.txt
	@touch $@
