# make demo | make test | make lint | make clean
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first Python that is new enough; name another with PYTHON=...
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$python; break; }; done)
COMMA := ,
CORES ?= all
BIN := .venv/bin
READY := .venv/ready
SIMULATION := scripts/simulate.py $(wildcard nightsift/simulate*.py)

.PHONY: help setup demo test lint clean
help:
	@echo "make demo    simulate a campaign into demo/, process it, compare with the truth"
	@echo "make test    run the tests"
	@echo "make lint    check style and workflow"
	@echo "make setup   only make the environment .venv, which the others do by themselves"
	@echo "make clean   remove .venv, demo/ and build/"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or later is needed$(if $(PYTHON),; $(PYTHON) is not it,$(COMMA) and none was found)." \
	    "Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, install the package python3-venv" \
	    "(that of $$($(PYTHON) -V)), or name another Python: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) -V)"
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --requirement requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The configuration is what the simulation writes last.
demo/config.yaml: $(SIMULATION) | $(READY)
	@echo "Simulating a campaign into demo/"
	@$(BIN)/python scripts/simulate.py demo

demo: $(READY) demo/config.yaml
	@echo "Processing demo/ on $(CORES) cores"
	@$(BIN)/snakemake --cores $(CORES) --configfile demo/config.yaml --directory demo 2>&1 \
	    | $(BIN)/python scripts/progress.py --directory demo
	@$(BIN)/python scripts/demo_truth.py demo

test: $(READY)
	@$(BIN)/python -m pytest

# Snakemake checks a workflow only with a configuration.
build/lint/config.yaml: $(SIMULATION) | $(READY)
	@$(BIN)/python scripts/simulate.py build/lint --images 1 --size 128 >/dev/null

lint: $(READY) build/lint/config.yaml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint --configfile build/lint/config.yaml --directory build/lint

clean:
	rm -rf .venv demo build .pytest_cache .ruff_cache *.egg-info
