# Everything goes through .venv, which `setup` makes from the locks in requirements/.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PROJECT := setup.cfg pyproject.toml

# A virtual environment holds its own path, so one in a moved checkout is as good as none.
ifneq ($(shell test -x $(BIN)/python && cat $(VENV)/made-in 2>/dev/null),$(CURDIR))
$(shell rm -f $(VENV)/run-is-set-up $(VENV)/dev-is-set-up)
endif

# pip's own lines say too much, and none of them too little: a line of names grows as they arrive.
define install
set -o pipefail; printf 'Installing the %s packages of $(1):' "$$(grep -c '^[a-zA-Z].*==' $(1))"; \
$(PIP) install --no-deps --require-hashes --progress-bar off -r $(1) | \
  while read -r what name _; do \
    case $$what in Collecting) printf ' %s' "$${name%%=*}" ;; Installing) printf ' …' ;; esac; \
  done && echo ' done'
endef

.PHONY: help run up setup setup-dev test faults lint format bench bench-fanout bench-kubernetes cluster cluster-down env locks clean
.DEFAULT_GOAL := help

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | column -t -s @

# exec: Ctrl-C and the like reach the service itself, which stops all that it started.
run: setup ## Start everything on this machine and run the example pipeline
	@exec $(BIN)/nfctl up --demo

up: setup ## Start everything on this machine
	@exec $(BIN)/nfctl up

setup: $(VENV)/run-is-set-up ## Install what the service needs into .venv
	@:

setup-dev: $(VENV)/dev-is-set-up ## Install what the checks need too
	@:

$(VENV)/run-is-set-up: requirements/run.txt $(PROJECT)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not one ($$($(PYTHON) --version 2>&1))." >&2; \
	  echo "Install one (sudo apt-get install python3 python3-venv, or brew install python), or name it: make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; \
	  exit 1; }
	@test "$$(cat $(VENV)/made-in 2>/dev/null)" = "$(CURDIR)" || { \
	  echo "Making $(VENV) …" && $(PYTHON) -m venv --clear $(VENV) && echo "$(CURDIR)" > $(VENV)/made-in; }
	@$(call install,$<)
# setuptools warns of every editable install, and of nothing that a person could change here.
	@PYTHONWARNINGS=ignore $(PIP) --quiet install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev-is-set-up: requirements/dev.txt $(VENV)/run-is-set-up
	@$(call install,$<)
	@touch $@

test: setup-dev ## Set up everything, lint, and run all tests (ARGS="-k word" for pytest)
# At home a server that is not to be had skips its tests; in CI it fails here already.
	@echo "Looking for Redis, Nextflow, Chromium and jq …"
	@$(BIN)/python -m nfctl.tools redis nextflow chromium jq || test -z "$$CI"
	@echo "Looking for Kubernetes and its images (ten minutes on a new machine, then seconds) …"
	@PYTHONPATH=tests $(BIN)/python -m cluster build || test -z "$$CI"
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest $(ARGS)

faults: setup-dev ## Break the service in every way, 20 times each, and count what is lost (ARGS="--times 3 --only Redis")
	@PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

lint: setup-dev ## Check style, types and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-dev ## Measure this machine's part of docs/performance.md anew, in two hours (ARGS="--only line growth-lines --small")
	@PYTHONPATH=tests $(BIN)/python -m bench.report $(ARGS)

bench-fanout: setup-dev ## Measure many sockets beside other servers (ARGS="--sockets 1000 --rate 20 100 --rounds 3")
	@PYTHONPATH=tests $(BIN)/python -m bench.fanout $(ARGS)

bench-kubernetes: setup-dev ## Measure the part of docs/performance.md on that Kubernetes (make cluster)
	@PYTHONPATH=tests $(BIN)/python -m bench.kubernetes

cluster: setup ## Start a real one-node Kubernetes on this machine (Debian, as root)
	@PYTHONPATH=tests $(BIN)/python -m cluster up

cluster-down: setup ## End that Kubernetes and remove every trace of it
	@PYTHONPATH=tests $(BIN)/python -m cluster down

format: setup-dev ## Mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

env: setup ## Write .env.example anew from the settings
	@$(BIN)/python -c 'from shared.settings import example; print(example(), end="")' > .env.example

# The oldest Python that we take makes the locks, so that nothing it needs is missing from them.
locks: setup-dev ## Write requirements/*.txt anew from requirements/*.in
	cd requirements && for list in run dev; do \
	  CUSTOM_COMPILE_COMMAND="make locks" ../$(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras \
	    --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    --output-file=$$list.txt $$list.in || exit 1; done

clean: ## Remove .venv and all that builds and checks leave; runs and their data stay
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
