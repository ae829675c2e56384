# make report      run the notebooks and render reports/$(PROFILE)/index.html
# make test        style, tests, notebooks against their stored outputs
# make test-all    and the long tests: killed commands, full disks, a cluster, the pages in a browser
# make conformance published pixels and expected scores; needs ZDCE_MIRROR, a folder with the study's photographs
# make lab         open the notebooks in JupyterLab
# make speed       measure speed and memory anew: reports/study/speed; a quiet machine, twelve minutes
# make soak        an hour and a half: commands killed 50 times each, 2,000 photographs, a sweep under fire
# The first of them builds .venv with the versions of environment.yml; a change there or in pyproject.toml rebuilds it.

PROFILE ?= quick
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
# NEWEST=1 installs the newest version of every dependency instead of the pinned one.
NEWEST ?=

BIN := .venv/bin
READY := .venv/ready
PYTEST := $(BIN)/python -m pytest
.DEFAULT_GOAL := help
.PHONY: help report test test-all test-long conformance lab speed soak

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

report: $(READY)
	$(BIN)/python -m zdce report --profile $(PROFILE)
	@echo "Open reports/$(PROFILE)/index.html"

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) -n 2 --dist loadfile -m "not long" --nbval-lax tests notebooks

test-all: test test-long

test-long: $(READY)
	$(PYTEST) -m "long and not conformance"

conformance: $(READY)
	@[ -n "$$ZDCE_MIRROR" ] || { echo "Set ZDCE_MIRROR to a folder with the files of data/manifest.csv"; exit 1; }
	$(PYTEST) -m conformance --no-skips

lab: $(READY)
	$(BIN)/jupyter lab notebooks

speed: $(READY)
	$(BIN)/python -m zdce speed --csv reports/study/speed/paths.csv
	$(BIN)/python benchmarks/video.py --csv reports/study/speed/video.csv
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/large_photograph.py
	$(BIN)/python benchmarks/filter.py

soak: $(READY)
	$(BIN)/python tests/soak.py --csv reports/study/soak.csv

$(READY): environment.yml pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11 or newer found: install one, or name it: make PYTHON=/path/to/python3"; exit 1; fi
	@echo "Building .venv with $$($(PYTHON) --version); this takes a few minutes, once."
	@$(PYTHON) -m venv --clear .venv || \
		{ echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3-venv)"; exit 1; }
	@sed -n 's/^ *- \([a-z0-9_-]*==[^ ]*\).*/\1/p' environment.yml > .venv/pins.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check $(if $(NEWEST),,--constraint .venv/pins.txt) --editable '.[all]'
	@touch $(READY)
