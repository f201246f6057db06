# Every target builds what it needs in .venv first. `make PYTHON=python3.12 test` picks the interpreter.
PYTHON ?= python3
# More arguments for pytest or the benchmark: make test ARGS='-k wire'
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH:/usr/sbin"

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check bench clean

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

demo: $(VENV)/.core ## run examples/flights on an embedded ring
	$(RUN) examples/flights/run.sh

test: $(VENV)/.test zsh rclone restic ## run the tests
	$(RUN) $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

check: $(VENV)/.check ## formatting, lint, types, and the import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

bench: $(VENV)/.bench nginx ## measure against other tools, in turn, and plot
	$(RUN) $(BIN)/python -m bench $(ARGS)

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +

# One stamp per set of packages: .core is s4raw alone, the others add extras. A changed pyproject.toml installs again.
$(VENV)/.core: EXTRAS :=
$(VENV)/.test: EXTRAS := [test]
$(VENV)/.check: EXTRAS := [test,check]
$(VENV)/.bench: EXTRAS := [bench]
$(VENV)/.core $(VENV)/.test $(VENV)/.check $(VENV)/.bench: pyproject.toml | $(VENV)/.created
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.$(EXTRAS)'
	$(BIN)/python -m compileall -q s4raw
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: s4raw needs Python 3.11 or newer; PYTHON=$(PYTHON) is: $$($(PYTHON) --version 2>&1 || true)." \
			'Name another: make PYTHON=python3.11 ...' >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
		echo 'error: "$(PYTHON) -m venv" failed. Debian and Ubuntu have it in another package: apt-get install python3-venv' >&2; \
		exit 1; }
	@touch $@

# Programs from Debian that s4raw does without: a rival in the benchmark, a shell whose completion is tested, clients of S3.
# What needs one that cannot be had is left out, and says so.
.PHONY: nginx zsh rclone restic
nginx zsh rclone restic:
	@if $(RUN) command -v $@ >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $@; } >/dev/null || \
			echo 'warning: $@ could not be installed: what needs it is skipped' >&2; \
	else echo 'warning: no $@, and only root on Debian can install it: what needs it is skipped' >&2; fi
