# Every target sets up what it needs in .venv on first use; only Python >= 3.11 and make are
# needed beforehand. PYTHON chooses the interpreter: make demo PYTHON=python3.12. CONSTRAINTS chooses
# the versions, in an environment of their own: CONSTRAINTS=constraints-min.txt lives in .venv-min.

PYTHON ?= python3
CONSTRAINTS := constraints.txt
VENV := .venv$(patsubst constraints%.txt,%,$(CONSTRAINTS))
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)
# What libraries say of their types differs from version to version: one set is what mypy reads.
MYPY := $(if $(filter constraints.txt,$(CONSTRAINTS)),$(BIN)/mypy,@echo "mypy reads the versions of constraints.txt only")

# An editable install follows the sources by itself; only these two files ask for a new one.
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

# What pytest is to run, all tests if empty, and in how many processes.
TESTS ?=
WORKERS ?= $(shell $(PYTHON) -c "import os; print(min(os.cpu_count(), 8))")
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
SEED := $(or $(SEED),$(shell $(PYTHON) -c "import secrets; print(secrets.randbits(32))"))

.DEFAULT_GOAL := help
.PHONY: help demo test test-deep lint bench clean

help:
	@echo "make demo    scan the demonstration checkpoint and rank its heads"
	@echo "make test    lint, type-check and run the tests, the same examples every time"
	@echo "make test-deep   the same with large budgets and fresh examples; SEED=N repeats a run"
	@echo "make lint    the checks of make test that run no code"
	@echo "make bench   run every benchmark"
	@echo "make clean   remove .venv and what the targets wrote"

demo: $(RUN)
	$(BIN)/attnsearch scan rtep-femto-seed0 --store demo.zarr
	$(BIN)/attnsearch rank demo.zarr --metric relational

test: lint
	$(PYTEST) $(TESTS)

# Large budgets, and fresh examples of a seed that is printed. It takes much longer than make test.
test-deep: lint
	ATTNSEARCH_TEST_DEEP=1 ATTNSEARCH_TEST_SEED=$(SEED) \
		$(PYTEST) --hypothesis-seed=$(SEED) $(TESTS)

lint: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(MYPY)
	$(BIN)/lint-imports --no-logo

bench: $(DEV)
	set -e; for script in $(filter-out benchmarks/tune.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$script; done

clean:
	rm -rf $(VENV) demo.zarr .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(RUN): pyproject.toml $(CONSTRAINTS)
	@echo "Installing attnsearch into $(VENV); this happens once and takes a minute or two."
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e .
	@touch $@

$(DEV): $(RUN)
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@
