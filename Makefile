# Two commands set everything up: `make demo` and `make test`. Each makes .venv when there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two processes, each with whole files: PARALLEL= runs all tests in one.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all check lint types package docs bench proof proof-real history histories proof-mutants mutants clean venv

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
	PYTHONPATH=tests $(BIN)/python tests/robustness/crashes/crash_states.py

# Replays one history of faults: make history SEED=7, or HISTORY='{…}' as a failing run prints it;
# BY=simulated in the simulator.
history: $(STAMP)
	@PYTHONPATH=tests $(BIN)/python tests/robustness/by_seed/histories.py \
	  $(if $(HISTORY),--history '$(HISTORY)',--seed $(or $(SEED),0)) --by $(or $(BY),forked)

# Runs many histories: make histories SEEDS=0:400 BY=simulated.
histories: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/robustness/by_seed/histories.py --seeds $(or $(SEEDS),0:400) \
	  --by $(or $(BY),forked)

# Plants mistakes in copies of the source, one at a time: histories of faults must find each.
proof-mutants: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/robustness/by_seed/proof_mutants.py

# Histories of the real command on real parts, as many as fit into so many hours; SIZE: MB, 30, 70 or 600.
HOURS := 1
SIZE := 70
proof-real: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/robustness/by_seed/proof_real.py --hours $(HOURS) --size $(SIZE)

# Plants small faults in copies of the source, one at a time: the quick tests must find each.
mutants: $(STAMP)
	PYTHONPATH=tests $(BIN)/python tests/robustness/mutants.py

bench: $(STAMP)
	$(BIN)/python benchmarks/pipeline.py

clean:
	rm -rf build dist docs/_build *.egg-info .types .mypy_cache .ruff_cache .pytest_cache .hypothesis
