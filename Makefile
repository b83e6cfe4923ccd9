# The two commands are `make demo` and `make test`; both do all the set-up. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
# The package index that torch is installed from, where it is not the default one.
TORCH_INDEX ?=
TORCH ?=
VENV ?= .venv
BIN = $(VENV)/bin
# What is done is noted in the environment itself, so that it goes with it.
STAMPS = $(VENV)/.done
# Each test process computes on one thread: OpenMP's threads would wait for each other busily.
TEST_JOBS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_JOBS) --dist loadgroup
RUN := tools/part

CPP_SOURCES = $(shell git ls-files 'cpp/*.cpp' 'cpp/*.h' 'cpp/*.cu' 'cpp/*.cuh')
BUILD_INPUTS := CMakeLists.txt pyproject.toml $(wildcard cmake/*) $(shell find cpp -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: help setup demo test test-python test-cpp test-slow lint format cuda-check compat clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  \1\t/' | expand -t 16

# ---- set-up: each step says what it does, and is skipped when done ------------------------------------
setup: $(STAMPS)/models  ## everything that the other targets need

$(STAMPS)/debian: tools/debian-packages
	@PYTHON="$(PYTHON)" tools/debian-packages
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/venv: $(STAMPS)/debian
	@echo "== virtual environment $(VENV) ($(PYTHON))"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else f"vmr needs Python 3.10 or newer, and $(PYTHON) is {sys.version.split()[0]}; name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) tools/make_venv.py $(VENV)
	@touch $@

$(STAMPS)/torch: $(STAMPS)/venv
	@TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python tools/install_torch.py
	@touch $@

$(STAMPS)/tools: $(STAMPS)/torch pyproject.toml tools/install_requirements.py
	@echo "== build tools, libraries and developers' tools"
	@$(BIN)/python tools/install_requirements.py
	@touch $@

$(STAMPS)/build: $(STAMPS)/tools $(BUILD_INPUTS)
	@echo "== the package, editable"
	@$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable . -C cmake.define.VMR_WERROR=ON
	@touch $@

$(STAMPS)/models: $(STAMPS)/build
	@echo "== small models"
	@$(BIN)/vmr models install
	@touch $@

# ---- what people do ------------------------------------------------------------------------------------
demo: setup  ## find two moments in a real video
	@$(BIN)/python tools/demo.py

test: setup  ## all tests that take minutes; prints what each part took
	@$(RUN) "C++ tests" $(MAKE) test-cpp
	@$(RUN) "Python tests" $(MAKE) test-python

test-python: setup
	@$(PYTEST) -m "not slow"

test-slow: setup  ## the longer tests
	@$(RUN) "slow tests" env $(PYTEST) -m slow

test-cpp: setup
	@if ! tools/have-gtest; then \
	  echo "GoogleTest is skipped: its headers are not installed (Debian: libgtest-dev)"; \
	else \
	  PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset asan -DCMAKE_MAKE_PROGRAM="$(CURDIR)/$(BIN)/ninja" >$(STAMPS)/cmake.log || { cat $(STAMPS)/cmake.log; exit 1; }; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build --preset asan --parallel 2 >$(STAMPS)/cmake.log || { cat $(STAMPS)/cmake.log; exit 1; }; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" ctest --preset asan --progress; \
	fi

# ---- the house in order --------------------------------------------------------------------------------
lint: $(STAMPS)/build  ## ruff, mypy --strict, clang-format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)

format: $(STAMPS)/tools  ## let the formatters write
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CPP_SOURCES)

cuda-check: $(STAMPS)/tools  ## compile all CUDA code with nvcc, where it is there
	@if ! command -v nvcc >/dev/null; then \
	  echo "cuda-check is skipped: nvcc is not on the path"; \
	else \
	  export PATH="$(CURDIR)/$(BIN):$$PATH"; \
	  cmake --preset cuda -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)"; \
	  cmake --build --preset cuda --parallel 2 --target _ops_cuda _core; \
	fi

compat:  ## the Python tests on the oldest, a middle and the newest Python and torch (many GB; outside CI)
	@for pair in "3.10 torch==2.10.*" "3.12 torch==2.11.*" "3.13 torch"; do \
	  set -- $$pair; \
	  echo "== Python $$1, $$2"; \
	  $(MAKE) test-python PYTHON="python$$1" TORCH="$$2" VENV=".compat/$$1"; \
	done

clean:  ## remove what was built; the virtual environment stays
	@rm -rf build $(STAMPS)/build
