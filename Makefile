# Thin: every line here also stands in the README.
.DEFAULT_GOAL := help
.PHONY: help demo test soak fuzz lint bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NATIVE := $(VENV)/.native

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: $(NATIVE)  ## photographs in, bundle and report out, bits checked
	$(BIN)/python -m quant.qat

test: $(NATIVE)  ## all tests; those that need an optional tool say so and are skipped
	$(BIN)/python -m pytest

soak: $(NATIVE)  ## the same properties with many more examples
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest

fuzz: $(NATIVE)  ## the C reader under libFuzzer, until stopped
	PYTHONPATH=tests $(BIN)/python tests/fuzz_target.py runs/fuzz

lint: $(NATIVE)  ## ruff, mypy, clang-format
	$(BIN)/pip install --quiet --group lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.h' 'csrc/*.c' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' 'tests/*.c' 'tests/*.h' 'tests/*.cpp' 'tests/*.cuh' 'benchmarks/*.c')

bench: $(NATIVE)  ## every benchmark
	$(BIN)/python -m benchmarks

clean:  ## what was built; not runs/
	rm -rf $(VENV) build .cache *.egg-info src/*.egg-info
	find hls_export src -name '*.so' -delete

# The environment, made again when the project's metadata changes.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools<81" wheel pybind11
	touch $@

# The package (editable) with its native modules, built again when their sources change. The
# operators are built against the torch that was installed, which pip's isolated build has not.
$(NATIVE): $(READY) setup.py $(shell find csrc -type f)
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch $@
