# Commands to know: `make demo`, `make check`, `make test`. Each first sets up an environment of its own in .venv.

SHELL := bash
VENV ?= .venv
PYTHON ?= python3
# CI pins versions with CONSTRAINTS=.ci/constraints.txt; everybody else gets the newest that fit.
CONSTRAINTS ?=

# What `make test` runs: all, or any path, -k or -m of pytest's.
TESTS ?=

BIN := $(CURDIR)/$(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
STAMP := $(VENV)/.installed

.PHONY: help setup demo check test release docs package lint clean
.DEFAULT_GOAL := help

help: ## say what there is
	@echo "make demo     release, run and grade the whole lab on a class of four invented students"
	@echo "make check    lint, types and the fast tests: in less than a minute, after every change"
	@echo "make test     every test; TESTS='tests/border' or TESTS='-m lab -k STE' for some of them"
	@echo "make release  make notebooks/release from notebooks/source"
	@echo "make docs     the site, build/site/index.html"
	@echo "make package  sdist and wheel in dist, and the wheel tried where there is no checkout"
	@echo "make lint     ruff and mypy"
	@echo "make setup    only the environment, $(VENV); the others do it first when it is missing"
	@echo "make clean    remove what these commands made, except $(VENV)"

demo: setup
	@"$(BIN)/labkit" demo

check: setup
	@PYTHON="$(BIN)/python" .ci/check

test: setup
	@PYTHON="$(BIN)/python" .ci/test $(TESTS)

release: setup
	@"$(BIN)/labkit" release compression

docs: setup
	@"$(BIN)/python" -m zensical build --strict

package: setup
	@PYTHON="$(BIN)/python" .ci/package

lint: setup
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy"

clean:
	@rm -rf demo build dist .mypy_cache .pytest_cache .ruff_cache
	@find . -path "./$(VENV)" -prune -o -name __pycache__ -type d -exec rm -rf {} +

setup: $(STAMP)

# Once, and again when pyproject.toml has changed.
$(STAMP): pyproject.toml
	@set -euo pipefail; \
	for found in "$(PYTHON)" python3.13 python3.12 python3.11 python3.10 none; do \
	  "$$found" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break; done; \
	if [ "$$found" = none ]; then \
	  echo "The lab needs Python 3.10 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1 || true)." >&2; \
	  echo "Install a newer one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; fi; \
	pinned="$(if $(CONSTRAINTS),-c $(CONSTRAINTS))"; \
	echo "Setting up $(VENV) with $$("$$found" --version): torch and the lab's tools, some GB on Linux."; \
	if command -v uv >/dev/null; then \
	  [ -x "$(BIN)/python" ] || uv venv --quiet --python "$$("$$found" -c 'import sys; print(sys.executable)')" "$(VENV)"; \
	  uv pip install --quiet --python "$(BIN)/python" $$pinned -e '.[dev]'; \
	else \
	  [ -x "$(BIN)/python" ] || "$$found" -m venv "$(VENV)" || { \
	    echo "python3 -m venv does not work here; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	  "$(BIN)/python" -m pip install --disable-pip-version-check --progress-bar off $$pinned -e '.[dev]' \
	    2> "$(VENV)/install.log" | awk '/Downloading .*[0-9] [MG]B/ { print "  " $$2, $$3, $$4; fflush() }' \
	    || { cat "$(VENV)/install.log" >&2; exit 1; }; \
	fi; \
	touch "$@"; echo "$(VENV) is ready."
