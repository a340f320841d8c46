# Two commands set everything up: `make demo` and `make test`. Each makes .venv when there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two processes, each with whole files: PARALLEL= runs all tests in one.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all check lint types package docs bench proof mutants clean venv

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set one: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "python3 -m venv failed: on Debian, apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt setuptools wheel
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@# Bytecode, as a wheel has it: where Python may write none, every command would compile anew.
	@$(BIN)/python -m compileall -q data engine tasks flows
	@touch $@

demo: $(STAMP)
	$(BIN)/epochal train examples/digits/digits.yaml

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	@mkdir -p .types/epochal
	@for part in data engine tasks flows; do ln -sfn ../../$$part .types/epochal/$$part; done
	@ln -sfn ../../flows/front_door/__init__.py .types/epochal/__init__.py
	$(BIN)/mypy --namespace-packages --explicit-package-bases -p epochal

package: $(STAMP)
	$(BIN)/python -m pytest tests/rules

# The site, into docs/_build/html: a link, an anchor or a block that is wrong is an error.
docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

check: lint types test

# Ends a run at every I/O operation, in every way, and shows that what goes on is the same bytes.
proof: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/robustness/proof.py
	PYTHONPATH=tests $(BIN)/python tests/robustness/crash_states.py

# Plants small faults in copies of the source, one at a time: the quick tests must find each.
mutants: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/robustness/mutants.py

bench: $(STAMP)
	$(BIN)/python benchmarks/pipeline.py

clean:
	rm -rf build dist docs/_build *.egg-info .types .mypy_cache .ruff_cache .pytest_cache .hypothesis
