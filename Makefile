# make demo | make test | make lint | make docs | make coverage | make clean
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
# The version follows from git: where HEAD has moved, the package is installed anew.
HEAD := $(wildcard $(shell git rev-parse --git-path logs/HEAD 2>/dev/null))
# The tests of one room, or all.
TESTS = $(if $(ROOM),tests/$(ROOM))
# The files of the modules that pyproject.toml lists for mypy.
CHECKED = $(shell $(BIN)/python -c 'import tomllib; \
	modules = tomllib.load(open("pyproject.toml", "rb"))["tool"]["mypy"]["modules"]; \
	print(*(name.replace(".", "/") + ".py" for name in modules))')
SIMULATION := scripts/simulate.py $(wildcard nightsift/simulate/*.py)

.PHONY: help setup demo test lint docs coverage clean
help:
	@echo "make demo    simulate a campaign into demo/, process it, compare with the truth"
	@echo "make test    run the tests; with ROOM=subtract, those of that room"
	@echo "make lint    check style, types, docstrings and workflow"
	@echo "make docs    make the pages of docs/ into build/docs/index.html"
	@echo "make coverage   run the tests as \`make test\` does, and measure which code they reach: build/coverage/index.html"
	@echo "make setup   only make the environment .venv, which the others do by themselves"
	@echo "make clean   remove .venv, demo/ and build/"

setup: $(READY)

.venv/requirements: requirements.lock
	@[ -n "$(PYTHON)" ] && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or later is needed$(if $(PYTHON),; $(PYTHON) is not it,$(COMMA) and none was found)." \
	    "Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, install the package python3-venv" \
	    "(that of $$($(PYTHON) -V)), or name another Python: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) -V)"
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --requirement requirements.lock
	@touch $@

$(READY): .venv/requirements pyproject.toml $(HEAD)
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
	@$(BIN)/python -m pytest $(TESTS)

coverage: $(READY)
	@mkdir -p build/coverage && rm -f build/coverage/data*
	@$(BIN)/coverage run -m pytest $(TESTS); code=$$?; \
	    $(BIN)/coverage combine --quiet && $(BIN)/coverage html --quiet && $(BIN)/coverage report; exit $$code

docs: $(READY)
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --jobs auto docs build/docs
	@echo "The pages are in build/docs/index.html"

# Snakemake checks a workflow only with a configuration.
build/lint/config.yaml: $(SIMULATION) | $(READY)
	@$(BIN)/python scripts/simulate.py build/lint --images 1 --size 128 >/dev/null

lint: $(READY) build/lint/config.yaml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/numpydoc lint $(CHECKED)
	$(BIN)/snakefmt --check Snakefile rules
	@echo "$(BIN)/snakemake --lint"
	@# One lint is passed over: all rules share the environment that Snakemake runs in, and name none of their own.
	@$(BIN)/snakemake --lint --configfile build/lint/config.yaml --directory build/lint >build/lint/found.txt 2>&1 || true
	@grep -q '^Lints for rule' build/lint/found.txt && \
	    ! grep '^    \* ' build/lint/found.txt | grep -qv 'Specify a conda environment or container for each rule' || \
	    { cat build/lint/found.txt; exit 1; }

clean:
	rm -rf .venv demo build .pytest_cache .ruff_cache *.egg-info
