# `make` lists the targets. Everything is installed into .venv, the focus-validator of the tests into .venv-focus;
# nothing else on the machine is touched, but for the DuckDB extensions that the BigQuery emulator keeps in ~/.duckdb.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
FOCUS := .venv-focus
SPECS := .venv-specs

# The first interpreter that is 3.13 or newer; .python-version makes pyenv's python3 one.
PYTHON ?= $(shell for p in python3.13 python3 python; do \
  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 13))' >/dev/null 2>&1; then echo $$p; break; fi; done)

.PHONY: help docs demo serve bench bench-api bench-load bench-bill bench-tick test test-fast test-slow check sim mutants specs hooks format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 12

demo: $(VENV)/.local  ## run every provider's pipeline here and prove what came out
	@$(BIN)/python main.py demo

serve: $(VENV)/.local  ## serve the API and every function on http://127.0.0.1:8080
	@$(BIN)/python main.py serve

# Two processes, each with servers of its own: a BigQuery emulator, a PostgreSQL, Google's emulators, started once by the
# first test that needs one. A file's tests stay in one process, because they share what its fixtures have filled.
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test: check $(FOCUS)/.installed  ## lint, types and every test (10 minutes)
	@$(PYTEST) --run-integration

test-fast: check  ## lint, types and the tests without emulators and servers (2 minutes)
	@$(PYTEST) -m "not slow and not server and not thorough"

bench: $(VENV)/.dev  ## runs per second, latency and CPU, beside DBOS on PostgreSQL
	@$(BIN)/python -m tests.bench

bench-api: $(VENV)/.dev  ## requests per second and p99 of the API at 1, 8 and 64 clients, before and after 1,000,000 runs
	@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq wrk >/dev/null; } || \
	  { echo "bench-api needs wrk: apt-get install wrk"; exit 1; }
	@$(BIN)/python -m tests.bench.api --runs $(or $(RUNS),1000000)

bench-load: $(VENV)/.dev  ## rows per second and memory of a write, beside dlt: make bench-load ROWS=10000000
	@$(BIN)/python -m tests.bench.load --rows $(or $(ROWS),1000000)

bench-tick: $(VENV)/.dev  ## one tick of the schedules for 10,000 organisations, killed half-way
	@$(BIN)/python -m tests.bench.tick --orgs $(or $(ORGS),10000)

bench-bill: $(VENV)/.dev  ## rows per second and memory of a FOCUS bill, CSV and Parquet, beside dlt and DuckDB: make bench-bill ROWS=10000000
	@$(BIN)/python -m tests.bench.bill --rows $(or $(ROWS),1000000)

check: $(VENV)/.dev  ## linter, formatter, type checker, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

test-slow: $(VENV)/.dev  ## the tests that take long
	@$(BIN)/python -m pytest -m slow

SEEDS ?= 0..10000

sim: $(VENV)/.dev  ## play simulated worlds: make sim SEEDS=0..100000
	@$(BIN)/python -m tests.sim --seeds $(SEEDS)

# All take more than an hour: GROUP names one file of them, SOME draws so many at random.
mutants: $(VENV)/.dev  ## delete guards one by one; each time a test has to fail: make mutants GROUP=quota SOME=10
	@$(BIN)/python -m tests.mutants $(if $(GROUP),--group $(GROUP)) $(if $(SOME),--some $(SOME))

specs: $(VENV)/.dev $(SPECS)/.installed  ## record again what the providers' SDKs accept of the sandboxes (tests/specs)
	@$(BIN)/python -m tests.specs.renew $(SPECS)/bin/python $(OPENAI_SPEC)

hooks: $(VENV)/.dev  ## run linter, types and validate before each commit
	@$(BIN)/pre-commit install

format: $(VENV)/.dev  ## mend what linter and formatter can
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: $(VENV)/.local  ## draw the state diagrams of docs/states.md anew
	@$(BIN)/python -m infra.state_diagrams

clean:  ## delete .venv and the embedded stack's state
	rm -rf $(VENV) $(FOCUS) $(SPECS) .azurite .pipeline-ops

$(VENV)/bin/python:
	@if [ -n "$(PYTHON)" ]; then \
	  $(PYTHON) -m venv $(VENV) || { echo "This Python has no venv module: apt-get install python3-venv, or install uv."; rm -rf $(VENV); exit 1; }; \
	elif command -v uv >/dev/null; then \
	  uv venv --quiet --seed --python 3.13 $(VENV); \
	else \
	  echo "Pipeline Ops needs Python 3.13 or newer and found none: install it (or uv), or say make PYTHON=/path/to/python3.13."; exit 1; \
	fi

$(VENV)/.local: $(VENV)/bin/python requirements.txt requirements-local.txt
	@echo "Installing the embedded stack into $(VENV) (about a minute, 700 MB; once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-local.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.local requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(FOCUS)/.installed: $(VENV)/bin/python tests/focus/requirements.txt
	@echo "Installing the focus-validator into $(FOCUS) (about a minute, 600 MB; once) ..."
	@$(BIN)/python -m venv --clear $(FOCUS)
	@$(FOCUS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/focus/requirements.txt
	@touch $@

$(SPECS)/.installed: $(VENV)/bin/python tests/specs/requirements.txt
	@echo "Installing the SDKs of Anthropic, Azure, OCI and Google into $(SPECS) (a few minutes, 730 MB; once) ..."
	@$(BIN)/python -m venv --clear $(SPECS)
	@$(SPECS)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/specs/requirements.txt
	@touch $@
