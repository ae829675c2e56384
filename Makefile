# make report   run the notebooks and render reports/$(PROFILE)/index.html
# make test     style, tests, notebooks against their stored outputs, the quick reports
# make lab      open the notebooks in JupyterLab
# make soak     long runs with faults, an hour: commands killed 50 times each, 2,000 photographs, a sweep under fire
# make audit    what is known against the installed packages; make sbom writes the list of them, sbom.cdx.json
# The first of them builds .venv with the versions of environment.yml; a change there or in pyproject.toml rebuilds it.

PROFILE ?= quick
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
# Two threads give the same sums on every machine and leave a laptop usable; set another number if you like.
export OMP_NUM_THREADS ?= 2
# Linux only, ignored elsewhere: memory that a convolution frees stays with the process, in huge pages. Without this,
# half of the time goes into fetching it back page by page.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 17179869184
export MALLOC_TOP_PAD_ ?= 268435456
# tqdm.auto, which pooch imports, asks for widgets that plain progress lines do without.
export PYTHONWARNINGS ?= ignore:IProgress not found

BIN := .venv/bin
READY := .venv/ready
.DEFAULT_GOAL := help
.PHONY: help report test lab soak audit sbom

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

report: $(READY)
	$(BIN)/python -m zdce report --profile $(PROFILE)
	@echo "Open reports/$(PROFILE)/index.html"

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest notebooks --nbval-lax --nbval-current-env --nbval-cell-timeout 300 \
		--nbval-sanitize-with notebooks/.sanitize.cfg
	$(BIN)/python -m zdce report --profile quick
	@echo "All checks passed."

lab: $(READY)
	$(BIN)/jupyter lab notebooks

soak: $(READY)
	$(BIN)/python tests/soak.py --csv reports/study/soak.csv
	$(BIN)/python -c "from zdce import readme; readme.write()"

audit: $(READY)
	$(BIN)/python tests/supply.py audit

sbom: $(READY)
	$(BIN)/python tests/supply.py sbom

$(READY): environment.yml pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11 or newer found: install one, or name it: make PYTHON=/path/to/python3"; exit 1; fi
	@echo "Building .venv with $$($(PYTHON) --version); this takes a few minutes, once."
	@$(PYTHON) -m venv --clear .venv || \
		{ echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3-venv)"; exit 1; }
	@sed -n 's/^ *- \([a-z0-9_-]*==[^ ]*\).*/\1/p' environment.yml > .venv/pins.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint .venv/pins.txt --editable '.[audit,cluster,export,fast,lab,tensorboard,test,video]'
	@touch $(READY)
