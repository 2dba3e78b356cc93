# What a person runs here. `make help` lists it. Works with GNU make 3.81 and later.

PYTHON  ?= python3
PROMPT  ?= The Eiffel Tower is located in the city of
REPORT  ?= report.html
WORKERS ?= 2

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check
PROJECT := pyproject.toml constraints.txt

# One thread a worker: two workers with two threads each would fight for two cores.
# Bytecode is kept, whatever the shell says: the tests start hundreds of processes that would compile interp anew each time.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest
STRUCTURE := tests/test_layers.py tests/test_annotations.py tests/test_public_surface.py tests/test_packaging.py
# A warning, such as a link that leads nowhere, is an error.
SPHINX := $(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/doctrees -b html

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long test-all check audit bench docs site pictures atlas clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: $(VENV)/.installed ## Create .venv and install interp in it

demo: install ## Fetch the default model (93 MB, once) and write report.html about one prompt
	$(BIN)/interp report "$(PROMPT)" -o "$(REPORT)"

test: $(VENV)/.installed-dev ## Run the fast tests, with the default model (some 5 minutes on two cores)
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "not long and not slow"

test-long: $(VENV)/.installed-dev ## Run the tests of some seconds each, which CI runs too
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "long and not slow"

test-all: $(VENV)/.installed-dev ## Run every test
	$(PYTEST) -n $(WORKERS) --dist loadfile

check: $(VENV)/.installed-dev ## Lint, format, types, generated pages, structure and the site; fails and never fixes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python docs/reference.py --check
	$(PYTEST) -q $(STRUCTURE)
	$(SPHINX) . build/site
	@$(MAKE) -s audit

audit: ## Look up known vulnerabilities of the exact versions (skips without pip-audit or a network)
	@if ! command -v pip-audit > /dev/null; then echo "audit skipped: pip-audit is not installed"; exit 0; fi; \
	found=$$(mktemp); \
	if pip-audit -r constraints.txt --no-deps --disable-pip --timeout 10 -f json -o "$$found"; then code=0; \
		unknown=$$(grep -o '"skip_reason"' "$$found" | wc -l | tr -d ' '); \
		if [ "$$unknown" = 0 ]; then echo "no known vulnerability"; \
		else echo "audit skipped: the service pip-audit asked does not know $$unknown of the packages"; fi; \
	elif [ -s "$$found" ]; then cat "$$found"; code=1; \
	else echo "audit skipped: pip-audit got no answer"; code=0; fi; \
	rm -f "$$found"; exit $$code

bench: $(VENV)/.installed-bench ## Measure speed and memory beside other tools and write docs/benchmarks.md
	$(BIN)/python -m experiments.benchmarks.run

docs: $(VENV)/.installed-dev ## Write commands, Python names and glossary into docs/ from the code
	$(BIN)/python docs/reference.py

site: $(VENV)/.installed-dev ## Write the documentation as pages that open offline: site/index.html
	$(SPHINX) . site

pictures: $(VENV)/.installed-dev ## Make the report's pictures for the README (needs chromium)
	$(BIN)/python docs/pictures.py

atlas: $(VENV)/.installed-dev ## Regenerate the shipped map of the common model families from TransformerLens
	$(BIN)/python -m interp.models.atlas_from_tl

clean: ## Remove what tests and tools left behind (keeps .venv and the model cache)
	rm -rf build dist site ./*.egg-info .pytest_cache .ruff_cache .hypothesis report.html
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("interp needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Try: make install PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(PROJECT) | $(BIN)/python
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(PROJECT) | $(BIN)/python
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: $(PROJECT) | $(BIN)/python
	$(PIP) install -c constraints.txt -e '.[dev,bench]'
	@touch $(VENV)/.installed $(VENV)/.installed-dev $@
