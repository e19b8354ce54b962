# Two commands for a fresh machine: `make demo` and `make test`. Everything lands in .venv; nothing is installed outside it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all check bench soak docs clean

help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

env: $(STAMP)    ## make .venv with wasnow and all it needs

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wasnow needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all]"
	@touch $(STAMP)

demo: env        ## render a pair, detect what changed, score it, say where to look
	$(BIN)/wasnow demo --output demo-out

test: env        ## the tests (under 15 minutes on two cores)
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-all: env    ## the tests and the slow ones
	$(BIN)/python -m pytest -n $(JOBS)

check: env       ## style, types, whitespace
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

bench: env       ## every benchmark; figures for docs/benchmarks.md
	$(BIN)/python benchmarks/all.py

soak: env        ## a hundred SIGKILLs at random moments
	$(BIN)/python -m pytest tests/test_kill.py -m slow

docs: env        ## check that every link and command in the docs exists
	$(BIN)/python -m pytest tests/test_docs.py -q

clean:           ## remove what make made
	rm -rf $(VENV) demo-out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
