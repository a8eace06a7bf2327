# SPDX-License-Identifier: Apache-2.0
# make demo   installs everything into .venv, builds the ops, trains, exports, checks, and says where the pictures are
# make test   the tests               make lint   formats and rules, Python and C++
# make bench  our ops beside others   make test-legacy   TensorFlow 2.15, Keras 2.15 and tensorflow-addons, in .venv-legacy
# make ops    only builds the ops     make format        applies the formats      make clean     removes what the others made
# make ort    builds the library of ops for onnxruntime   make deploy   runs exports where only their runtime is
# Every target sets up what it needs and can be repeated. PYTHON=... chooses the interpreter (3.10 to 3.12).

SHELL := /bin/bash
# The first interpreter of a supported version; a name on the path may be a shim that does not run.
find-python = $(shell for p in $(1); do $$p -c 'import venv, ensurepip' 2>/dev/null && echo $$p && break; done)
PYTHON ?= $(call find-python,python3.11 python3.12 python3.10)
PYTHON_LEGACY ?= $(call find-python,python3.11 python3.10)
BIN := .venv/bin
LEGACY := .venv-legacy/bin
# Two processes: most tests keep one core busy. Files stay together, for the sake of what they build once, and come in the
# order of their names: in that of their numbers of tests, the last ones are those of few and long ones.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test lint format bench ops ort deploy test-legacy test-legacy-short clean
.DEFAULT_GOAL := demo

demo: ops
	@echo "== Steerable filters: train, draw, export, check"
	$(BIN)/python -m examples.experiments.dfn.steerable_filters --out outputs/steerable --export saved_model onnx

test: ops
	KERAS_DYNFILTER_REQUIRE_NATIVE=1 $(BIN)/python -m pytest -q $(WORKERS) --durations=15 tests

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | xargs $(BIN)/clang-format -i

bench: ops
	$(BIN)/python -m benchmarks

ops: .venv/installed
	@echo "== The compiled ops (a few minutes the first time, then from the cache)"
	$(BIN)/python -m keras_dynfilter.custom_ops.build

ort: ops
	@echo "== The ops for onnxruntime (its headers are fetched where they are missing)"
	$(BIN)/python -m keras_dynfilter.custom_ops.build --ort

deploy: ort
	$(BIN)/python examples/deploy/run.py

# The legacy lane is for the CPU.
test-legacy test-legacy-short ops-legacy: export KERAS_DYNFILTER_CUDA = 0

test-legacy: ops-legacy
	KERAS_DYNFILTER_REQUIRE_NATIVE=1 $(LEGACY)/python -m pytest -q $(WORKERS) -m legacy tests

test-legacy-short: ops-legacy
	KERAS_DYNFILTER_REQUIRE_NATIVE=1 $(LEGACY)/python -m pytest -q $(WORKERS) -m "legacy and not slow" tests

.PHONY: ops-legacy
ops-legacy: .venv-legacy/installed
	@echo "== The compiled ops for TensorFlow 2.15 (CPU)"
	$(LEGACY)/python -m keras_dynfilter.custom_ops.build

.venv/installed: pyproject.toml setup.py
	$(if $(PYTHON),,$(error No Python 3.10 to 3.12 was found; name one with make PYTHON=...))
	@echo "== Python packages into .venv, with $(PYTHON)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet "tensorflow==2.21.*" --editable '.[export,litert,examples,dev]'
	@touch $@

.venv-legacy/installed: pyproject.toml setup.py
	$(if $(PYTHON_LEGACY),,$(error No Python 3.10 or 3.11 was found; name one with make PYTHON_LEGACY=...))
	@echo "== Python packages into .venv-legacy, with $(PYTHON_LEGACY)"
	$(PYTHON_LEGACY) -m venv .venv-legacy
	$(LEGACY)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(LEGACY)/python -m pip install --quiet --editable '.[addons,dev,examples]'
	@touch $@

clean:
	rm -rf .venv .venv-legacy outputs build *.egg-info
