# The single door. `make demo` and `make test` need nothing but Python, git and a network for the first install.

PYTHON      ?= python3
VENV        ?= .venv
# Another package index for torch alone, e.g. https://download.pytorch.org/whl/cpu for the small CPU build.
TORCH_INDEX ?=
# Name of the demonstration's run; a finished run is not trained again.
RUN         ?= demo
PORT        ?= 5000
# Environment of the benchmarks, with nnU-Net beside segkit, and what to give them: rows, --quick, --data=DIR.
BENCH_VENV  ?= .venv-bench
BENCH       ?=

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(BENCH_VENV)/.peers-installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-reference test-reliability check lint types format ui docs package bench bench-accuracy bench-compare clean

help:  ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  settings: PYTHON=$(PYTHON) VENV=$(VENV) TORCH_INDEX=$(TORCH_INDEX) RUN=$(RUN) PORT=$(PORT)"

setup: $(STAMP)  ## Make .venv and install, only where it is not done

# torch comes first and, where an index is named, from there alone: another index cannot slip in its larger build.
# What torch itself needs may lie on either, so those come in a second step, when torch is already chosen.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit(f"segkit needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifneq ($(strip $(TORCH_INDEX)),)
	$(BIN)/python -m pip install --no-deps --index-url $(TORCH_INDEX) --constraint constraints.txt torch
	$(BIN)/python -m pip install --extra-index-url $(TORCH_INDEX) --constraint constraints.txt torch
else
	$(BIN)/python -m pip install --constraint constraints.txt torch
endif
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## Train on the sample data, evaluate on the test people, print where everything is
	$(BIN)/python -m segkit.train experiment=demo run_name=$(RUN)
	$(BIN)/python -m segkit.evaluate run=runs/$(RUN) subset=test
	@echo
	@echo "  run          $(CURDIR)/runs/$(RUN)"
	@echo "  report       $(CURDIR)/runs/$(RUN)/report.html"
	@echo "  curves       $(CURDIR)/runs/$(RUN)/curves.png"
	@echo "  overlays     $(CURDIR)/runs/$(RUN)/overlays"
	@echo "  in MLflow    make ui, then http://127.0.0.1:$(PORT)"
	@echo "  own data     $(BIN)/python -m segkit.train data.root=/my/dataset"

# Those that fork processes, or watch the clock of processes that they kill, come last: apart from those that fill both
# cores, and with one server to fork from for each worker.
test: $(STAMP)  ## The tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not gpu and not browser and not alone" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m "not slow and not gpu and not browser and alone" tests/reliability -n 2 --dist worksteal

test-all: $(STAMP)  ## All tests; what the machine lacks is skipped with a reason
	$(BIN)/python -m pytest

test-reference: $(BENCH_STAMP)  ## The tests beside other packages, nnU-Net among them
	$(BENCH_VENV)/bin/python -m pytest tests/reference

test-reliability: $(STAMP)  ## R1 to R24 at full size: an hour or so; `make test` has a fast form of each
	SEGKIT_RELIABILITY=full $(BIN)/python -m pytest tests/reliability --timeout=3600

check: lint types test  ## Lint, types and tests: what a change must pass

lint: $(STAMP)  ## ruff, layers, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell

types: $(STAMP)  ## mypy --strict on src
	$(BIN)/mypy

format: $(STAMP)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(STAMP)  ## MLflow's pages of all runs
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --backend-store-uri sqlite:///$(CURDIR)/runs/mlflow.db --host 127.0.0.1 --port $(PORT)

docs: $(STAMP)  ## Check the documents: every link and every file named exists
	$(BIN)/python -m pytest tests/contracts/test_docs.py

package: $(STAMP)  ## sdist, and the wheel made from it, in dist/
	$(BIN)/python -m build --no-isolation

bench: $(BENCH_STAMP)  ## Time segkit beside nnU-Net and MONAI, report in benchmarks/results (BENCH="step --quick")
	$(BENCH_VENV)/bin/python -m benchmarks $(BENCH)

bench-accuracy: $(BENCH_STAMP)  ## Accuracy by minutes beside nnU-Net, hours on idle cores (BENCH=--data=DIR)
	$(BENCH_VENV)/bin/python -m benchmarks.accuracy $(BENCH)

bench-compare: $(STAMP)  ## How often compare is wrong, by simulation, printed (BENCH="--simulations 200 --bca")
	$(BIN)/python -m benchmarks.null_comparison $(BENCH)

$(BENCH_STAMP): pyproject.toml constraints.txt benchmarks/requirements.txt
	$(MAKE) setup VENV=$(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --no-deps --requirement benchmarks/requirements.txt
	touch $@

clean:  ## Remove what was built; runs and .venv stay
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
