# Two commands for everybody: `make demo` and `make test`. Both set up what they need, once.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
NATIVE := $(VENV)/.native
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUNTIME := $(shell find runtime/CMakeLists.txt runtime/pyproject.toml runtime/install.sh runtime/cmake runtime/native \
  runtime/src -type f -not -path '*/__pycache__/*')

SECONDS ?= 60
SEED ?= 0
COUNT ?= 32
OUT ?= build/mutants/results-$(SEED).jsonl

MINIMUM_TOOLS := "hypothesis>=6.100" "pytest>=8.2" "pytest-xdist>=3.6"
MINIMUM_TESTS := $(addprefix tests/,prune rewind loop storage tasks cli shrink explain report export/test_export.py)

.PHONY: help setup demo test test-all test-minimum test-native test-aarch64 wheels fuzz mutants docs lint types clean

help:
	@echo "make demo   compress a network on real handwritten digits, from nothing (about two minutes)"
	@echo "make test   run the tests, but for the slow ones"
	@echo "make test-all       all tests;  make test-minimum   a part of them with the oldest versions of dependencies"
	@echo "make lint   check the style;  make types   check the types;  make clean   remove what was built"
	@echo "make docs           the documentation as a site, into build/site"
	@echo "make wheels         gossamer-runtime for this processor and for 64-bit ARM, into dist/"
	@echo "make test-aarch64   the runtime's tests for 64-bit ARM, under qemu"
	@echo "make fuzz           damaged and hostile weights against decoder and packers (SECONDS=60)"
	@echo "make mutants        single changes to the code: which do the tests notice? (SEED=0 COUNT=32 OUT=FILE NATIVE=1)"

setup: $(READY) $(NATIVE)

# Made again whenever what is to be installed changes. torch comes first, by itself, so that no other package's
# wider requirement can pull in a build with CUDA.
$(READY): pyproject.toml constraints.txt
	@echo "== Setting up $(VENV) (the first time this downloads torch; a few minutes)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) --editable ".[dev]"
	@touch $@

# gossamer-runtime, built from runtime/ whenever something there changed. Without a native part (status 3) there is no
# marker, so that the next make tries again.
$(NATIVE): $(RUNTIME) | $(READY)
	@echo "== Building gossamer-runtime (the first time a minute or two)"
	@status=0; runtime/install.sh $(VENV)/bin/python build || status=$$?; \
	  case $$status in 0) touch $@ ;; 3) rm -f $@ ;; *) exit $$status ;; esac

demo: setup
	@echo "== Compressing a small network on 1797 real handwritten digits; the run is kept in runs/demo"
	@$(VENV)/bin/gossamer compress digits --target-sparsity 0.97 --out runs/demo
	@$(VENV)/bin/gossamer report runs/demo --out runs/demo/report.html

test: test-native
	@echo "== Running the tests"
	@$(VENV)/bin/python -m pytest -q -rs -n auto --dist worksteal -m "not slow"

# Which tests `test-all` adds. CI, which has 20 minutes, leaves out those of many processes: SLOW="slow and not processes".
SLOW ?= slow

test-all: test
	@echo "== Running the slow tests too ($(SLOW))"
	@$(VENV)/bin/python -m pytest -q -rs -n auto --dist worksteal -m "$(SLOW)"

# The oldest versions that pyproject.toml declares, in an environment of their own (torch with what it needs: 3 GB on
# x86-64), and the tests of what is used of them.
test-minimum:
	@test -x build/minimum/bin/uv || { $(PYTHON) -m venv build/minimum && build/minimum/bin/python -m pip install --quiet uv; }
	@build/minimum/bin/uv pip install --quiet --python build/minimum/bin/python --resolution lowest-direct \
	  --editable ".[tasks,export,report,amc]" $(MINIMUM_TOOLS)
	@runtime/install.sh build/minimum/bin/python build/minimum/runtime || test $$? = 3
	@echo "== Running a part of the tests with the lowest declared versions"
	@build/minimum/bin/python -m pytest -q -n auto --dist worksteal -m "not slow" $(MINIMUM_TESTS)

# The kernels' own tests, in the folder that the wheel was built in.
test-native: setup
	@if [ -f $(NATIVE) ]; then \
	  echo "== Building and running the native tests"; \
	  $(VENV)/bin/cmake --build build/native > build/native-tests.log || { tail -n 40 build/native-tests.log; exit 1; }; \
	  $(VENV)/bin/ctest --test-dir build/native --output-on-failure --parallel 2 --no-tests=error \
	    --output-log build/ctest.log --quiet || { cat build/ctest.log; exit 1; }; \
	  tail -n 4 build/ctest.log; \
	else \
	  echo "== Native tests SKIPPED: gossamer-runtime has no native part here (see above)"; \
	fi

# Needs neither torch nor anything else of the workstation's side: an environment of its own with cmake and ninja.
test-aarch64:
	@test -x build/aarch64-tools/bin/python || $(PYTHON) -m venv build/aarch64-tools
	@runtime/test_aarch64.sh build/aarch64-tools/bin/python build

# The wheel for this processor is then tried in an environment of its own, with numpy and onnxruntime only.
wheels: $(READY)
	@echo "== Building wheels of gossamer-runtime"
	@runtime/wheels.sh $(VENV)/bin/python build dist
	@runtime/try_wheel.sh $(VENV)/bin/python build dist

fuzz: $(NATIVE)
	@runtime/fuzz.sh $(VENV)/bin/python build $(SECONDS)

# Takes hours for a hundred changes, and goes on where it was interrupted. The checkout itself is not touched.
mutants: setup
	@$(PIP) coverage
	@nice -n 19 $(VENV)/bin/python -m mutants --seed $(SEED) --count $(COUNT) --out $(OUT) $(if $(NATIVE),--native)

# Offline once its packages are there; what mkdocs warns of (links, anchors, docstrings) are errors.
docs: setup
	@$(PIP) --editable ".[docs]"
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict
	@echo "== build/site/index.html"

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports --no-cache --no-logo

types: setup
	@$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build
