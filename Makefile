# Everything a person types; `make` alone tells what there is. Each target sets up what it needs in .venv.
# Paths in the rules are relative, so that a checkout may stand in a folder with spaces.

PYTHON ?= python3
# Outside the locks, since its CPU build is not on every index: make test TORCH="torch==2.13.0 --index-url …"
TORCH ?= torch==2.13.0
CONFIG ?= configs/quickstart.yaml
PYTEST_ARGS ?=
# Most of a test's time is one thread that traces or compiles. A file stays with one process, for what its tests share.
PARALLEL ?= --numprocesses=auto --maxprocesses=4 --dist=loadfile

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV_VERSION := 0.13.8

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help quickstart setup test test-tensorflow test-jax test-torch test-long lint format lock clean

help:
	@echo 'make quickstart   train and evaluate $(CONFIG) in a fresh .venv'
	@echo 'make test         run the tests on TensorFlow, JAX and torch'
	@echo 'make test-long    run the long tests: installation, recipes, real data'
	@echo 'make lint         check format, style, types and import contracts'
	@echo 'make format       repair format and style where that can be done by itself'
	@echo 'make lock         resolve requirements/*.txt again'
	@echo 'make clean        remove .venv and what tools left behind'

# --- set-up: a stamp per state of the environment, renewed when its inputs are newer --------------------------------

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and \
		"Python 3.11, 3.12 or 3.13 is needed (TensorFlow 2.21 has builds for no other): make PYTHON=python3.11 …")'
	"$(PYTHON)" -m venv .venv

.venv/core.stamp: requirements/core.txt pyproject.toml | $(BIN)/python
	$(PIP) install -r requirements/core.txt
	$(PIP) install --no-deps --editable .
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/core.stamp
	$(PIP) install -r requirements/dev.txt
	@touch $@

.venv/torch.stamp: Makefile .venv/dev.stamp
	$(PIP) install $(TORCH)
	@touch $@

setup: .venv/torch.stamp

# --- what people run ------------------------------------------------------------------------------------------------

quickstart: .venv/core.stamp
	$(BIN)/toolkit train $(CONFIG)

test: test-tensorflow test-jax test-torch

test-tensorflow: .venv/torch.stamp
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -m 'not long' $(PARALLEL) $(PYTEST_ARGS)

test-jax: .venv/torch.stamp
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m 'every_backend and not long' $(PARALLEL) $(PYTEST_ARGS)

# One thread: two that spin beside another job make a torch LSTM 30 times slower.
test-torch: .venv/torch.stamp
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'every_backend and not long' $(PARALLEL) $(PYTEST_ARGS)

test-long: .venv/torch.stamp
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

format: .venv/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Without addresses of indexes, so that the locks serve wherever the packages come from.
LOCK := .venv/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--no-header --no-emit-index-url --no-emit-find-links

lock: | $(BIN)/python
	"$(PYTHON)" -m venv .venv/lock
	.venv/lock/bin/python -m pip --quiet install uv==$(UV_VERSION)
	$(LOCK) pyproject.toml --output-file requirements/core.txt
	$(LOCK) pyproject.toml requirements/torch-needs.in --extra jax --extra dev --constraint requirements/core.txt \
		--output-file requirements/dev.txt

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
