# Two commands for everybody: `make demo` and `make test`. Both set up what they need, once.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help setup demo test lint types clean

help:
	@echo "make demo   compress a network on real handwritten digits, from nothing (about two minutes)"
	@echo "make test   run the tests"
	@echo "make lint   check the style;  make types   check the types;  make clean   remove what was built"

setup: $(READY)

# Made again whenever what is to be installed changes. torch comes first, by itself, so that no other package's
# wider requirement can pull in a build with CUDA.
$(READY): pyproject.toml constraints.txt
	@echo "== Setting up $(VENV) (the first time this downloads torch; a few minutes)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) --editable ".[dev]"
	@touch $@

demo: setup
	@echo "== Compressing a small network on 1797 real handwritten digits; the run is kept in runs/demo"
	@$(VENV)/bin/gossamer compress digits --target-sparsity 0.97 --out runs/demo

test: setup
	@echo "== Running the tests"
	@$(VENV)/bin/python -m pytest -q -n auto

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

types: setup
	@$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build
