# SPDX-License-Identifier: Apache-2.0
# make demo         trains a small network, exports it, checks the files and prints where the pictures are
# make test         runs the tests that are not slow
# make test-slow    runs the slow tests         make test-all     runs all tests
# make numerics     compares PROBLEMS=10000 random problems in all implementations with the true results
# make sanitize     runs the C++ code under AddressSanitizer, UBSan and ThreadSanitizer
# make lint         checks the format of Python and C++, and the lint rules, types and imports of Python
# make format       formats Python and C++, and fixes what ruff can fix
# make docs         builds the documentation site; warnings are errors
# make bench        compares the speed of the ops and of alternatives to them
# make fuzz         calls the package with random inputs for MINUTES=30; the corpus and shrinking come on top
# make ops          compiles the ops            make ort          compiles the ops for ONNX Runtime
# make deploy       runs exported files in environments that contain only the runtime
# make test-legacy  runs the tests on TensorFlow 2.15, Keras 2.15 and tensorflow-addons, in .venv-legacy
# make wheels       builds and checks the source distribution and the wheels in dist/; TENSORFLOW="2.20 2.21" selects
# make test-tensorflow VERSION=2.18  runs a short set of tests on that TensorFlow, and prints a row of the table of
#                   versions; KERAS=3.3 chooses the version of Keras, too
# make clean        deletes environments, builds and outputs
# Every target installs what it needs and is idempotent. PYTHON=... chooses the interpreter (3.11 to 3.13).

SHELL := /bin/bash
# Finds the first interpreter that can create an environment. A command on the path is not enough, because it may fail
# to run.
find-python = $(shell for p in $(1); do $$p -c 'import venv, ensurepip' 2>/dev/null && echo $$p && break; done)
PYTHON ?= $(call find-python,python3.11 python3.12 python3.13)
PYTHON_LEGACY ?= $(call find-python,python3.11 python3.10)
BIN := .venv/bin
LEGACY := .venv-legacy/bin
VERSIONED := .venv-tf-$(VERSION)$(KERAS:%=-keras-%)
# Two workers, because most tests keep one core busy. All tests of a file run on one worker, so that they share what
# they build.
PYTEST := -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=15
# The tests of the ops get workers of their own: XLA keeps every function that it has compiled, until the process ends.
define run-tests
	$(1)/python $(PYTEST) $(2) --ignore=tests/ops tests
	$(1)/python $(PYTEST) $(2) tests/ops
endef
export TF_CPP_MIN_LOG_LEVEL ?= 2
test test-slow test-all test-legacy test-legacy-short test-tensorflow: export KERAS_DYNFILTER_REQUIRE_NATIVE = 1
# The tests of other versions of TensorFlow than the one in .venv build and test for the CPU only.
test-legacy test-legacy-short ops-legacy test-tensorflow: export KERAS_DYNFILTER_CUDA = 0

PROBLEMS ?= 10000
FIGURES := build/numerics.json

.PHONY: demo test test-slow test-all fuzz numerics sanitize lint format docs bench ops ort deploy ops-legacy \
  test-legacy test-legacy-short test-tensorflow wheels clean
.DEFAULT_GOAL := demo

demo: ops
	@echo "== Steerable filters: train, draw, export, check"
	$(BIN)/python -m examples.experiments.dfn.steerable_filters --out outputs/steerable --export saved_model onnx

test: ops
	$(call run-tests,$(BIN),-m "not slow")

test-slow: ops
	$(call run-tests,$(BIN),-m slow)

test-all: ops
	$(call run-tests,$(BIN),)

# Failures are written to outputs/fuzz. The corpus and the shrinking of failures come on top of MINUTES.
MINUTES ?= 3
fuzz: ort
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# Every 1,000 problems in a process of their own, because XLA keeps every function that it has compiled.
numerics: ort
	@mkdir -p build && rm -f $(FIGURES)
	for first in $$(seq 0 1000 $$(($(PROBLEMS) - 1))); do \
	  count=$$(($(PROBLEMS) - first < 1000 ? $(PROBLEMS) - first : 1000)); \
	  $(BIN)/python -m tests.support.numerics.comparison --first $$first --problems $$count --figures $(FIGURES) || exit 1; \
	done

sanitize: export KERAS_DYNFILTER_SANITIZE = 1
sanitize: ops
	$(BIN)/python -m tests.support.sanitizers

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports pyproject.toml --no-cache --no-logo
	$(BIN)/mypy
	git ls-files '*.h' '*.inc' '*.cc' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	git ls-files '*.h' '*.inc' '*.cc' '*.cu' '*.cuh' | xargs $(BIN)/clang-format -i

docs: .venv/docs-installed
	@mkdir -p build
	set -o pipefail; PATH="$(BIN):$$PATH" $(BIN)/zensical build --clean --strict 2>&1 | tee build/docs.log
	@! grep -iE '^griffe:|warning' build/docs.log > /dev/null || { echo "The log above contains warnings"; exit 1; }
	@echo "== The site is in build/site: open build/site/index.html"

bench: ops
	$(BIN)/python -m benchmarks

ops: .venv/installed
	@echo "== Compiling the ops (a few minutes the first time; later they come from the cache)"
	$(BIN)/python -m keras_dynfilter.custom_ops.build

ort: ops
	@echo "== Compiling the ops for ONNX Runtime (downloads its headers if they are missing)"
	$(BIN)/python -m keras_dynfilter.custom_ops.build --ort

deploy: ort
	$(BIN)/python -m examples.deploy.run

test-legacy: ops-legacy
	$(call run-tests,$(LEGACY),-m legacy)

test-legacy-short: ops-legacy
	$(call run-tests,$(LEGACY),-m "legacy and not slow")

# The addresses in the metadata of the package lead to the repository of this clone, if it is on a server.
TENSORFLOW ?=
wheels: export KERAS_DYNFILTER_REPOSITORY ?= $(filter https://%,$(shell git config remote.origin.url | sed -E 's,//[^/@]*@,//,; s,[.]git$$,,'))
wheels: .venv/installed
	$(BIN)/python -m release.wheels $(if $(TENSORFLOW),--tensorflow $(TENSORFLOW))

ops-legacy: .venv-legacy/installed
	@echo "== Compiling the ops for TensorFlow 2.15 (CPU only)"
	$(LEGACY)/python -m keras_dynfilter.custom_ops.build

test-tensorflow: $(VERSIONED)/installed
	@echo "== Compiling the ops for TensorFlow $(VERSION) (CPU only)"
	$(VERSIONED)/bin/python -m keras_dynfilter.custom_ops.build
	$(VERSIONED)/bin/python -m tests.support.compatibility --install yes

.venv/installed: pyproject.toml setup.py
	$(if $(PYTHON),,$(error No Python 3.11 to 3.13 was found; name one with make PYTHON=...))
	@echo "== Installing Python packages into .venv, with $(PYTHON)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet "tensorflow==2.21.*" "keras==3.15.*" --editable '.[export,litert,examples,notebooks,dev,lint,release]'
	@touch $@

.venv/docs-installed: .venv/installed
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

.venv-legacy/installed: pyproject.toml setup.py
	$(if $(PYTHON_LEGACY),,$(error No Python 3.10 or 3.11 was found; name one with make PYTHON_LEGACY=...))
	@echo "== Installing Python packages into .venv-legacy, with $(PYTHON_LEGACY)"
	$(PYTHON_LEGACY) -m venv .venv-legacy
	$(LEGACY)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(LEGACY)/python -m pip install --quiet --editable '.[addons,dev,examples]'
	@touch $@

# Installing the package next to a TensorFlow adds packages and changes none. The packages of the extras have to fit
# TensorFlow, so pip gets the name of both.
$(VERSIONED)/installed: VERSIONED_TENSORFLOW = "tensorflow-cpu>=$(VERSION).0rc0,==$(VERSION).*" $(KERAS:%="keras==%.*")
$(VERSIONED)/installed: PIP_VERSIONED = $(VERSIONED)/bin/python -m pip install --quiet --no-compile
$(VERSIONED)/installed: pyproject.toml setup.py
	$(if $(VERSION),,$(error Name the minor version of TensorFlow: make test-tensorflow VERSION=2.18))
	$(if $(PYTHON),,$(error No Python 3.11 to 3.13 was found; name one with make PYTHON=...))
	@echo "== Installing TensorFlow $(VERSION) into $(VERSIONED), with $(PYTHON)"
	$(PYTHON) -m venv --clear $(VERSIONED)
	$(VERSIONED)/bin/python -m pip install --quiet --upgrade pip
	$(PIP_VERSIONED) $(VERSIONED_TENSORFLOW)
	$(VERSIONED)/bin/python -m pip freeze > $(VERSIONED)/before
	PYTHONWARNINGS=ignore $(PIP_VERSIONED) --editable .
	$(VERSIONED)/bin/python -m pip freeze --exclude keras_dynfilter --exclude filelock | diff $(VERSIONED)/before -
	PYTHONWARNINGS=ignore $(PIP_VERSIONED) $(VERSIONED_TENSORFLOW) --editable '.[export,litert,dev]'
	@touch $@

clean:
	rm -rf .venv .venv-legacy .venv-tf-* outputs build dist .cache *.egg-info
