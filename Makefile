# Every target sets up what it needs in .venv on first use; only Python >= 3.11 and make are
# needed beforehand. PYTHON chooses the interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# An editable install follows the sources by itself; only these two files ask for a new one.
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev

# What pytest is to run; all tests if empty.
TESTS ?=
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
	$(BIN)/python -m pytest $(TESTS)

# Every budget in full, with fresh examples of a seed that is printed: hours, not minutes.
test-deep: lint
	ATTNSEARCH_TEST_DEEP=1 ATTNSEARCH_TEST_SEED=$(SEED) \
		$(BIN)/python -m pytest --hypothesis-seed=$(SEED) $(TESTS)

lint: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(DEV)
	set -e; for script in $(filter-out benchmarks/tune.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$script; done

clean:
	rm -rf $(VENV) demo.zarr .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(RUN): pyproject.toml constraints.txt
	@echo "Installing attnsearch into $(VENV); this happens once and takes a minute or two."
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e .
	@touch $@

$(DEV): $(RUN)
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@
