# Everything a developer runs. Nothing here needs root; the first target to need it makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip -qq --disable-pip-version-check
PYTEST := $(BIN)/pytest --color=auto
INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check format faults engines bench gate dashboard clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/.installed ## a sequence from the bundled model in out/demo
	@$(BIN)/gridit demo --out out/demo

test: $(VENV)/.installed-test ## the test suite, without the long suites
	@$(PYTEST)

check: $(VENV)/.installed-dev ## formatting, lint, types
	@$(BIN)/ruff format --check --quiet . && echo "ruff format: clean"
	@$(BIN)/ruff check --quiet . && echo "ruff check: clean"
	@$(BIN)/mypy
	@$(BIN)/hadolint Dockerfile && echo "hadolint: clean"
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml && echo "compose file: valid"

format: $(VENV)/.installed-dev ## rewrite the source in the project's format
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

faults: $(VENV)/.installed-test ## kill processes, servers and networks (minutes)
	@$(PYTEST) -m faults --timeout=900

engines: $(VENV)/.installed-test ## compile large nets, judge quantised ones (minutes)
	@$(PYTEST) -m engines --timeout=900

bench: $(VENV)/.installed-test ## jobs that share a device; reused features; sampling with a known answer (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.sharing
	@$(BIN)/python -m tests.benchmarks.memory
	@$(BIN)/python -m tests.benchmarks.caching
	@$(BIN)/python -m tests.benchmarks.outpainting

gate: $(VENV)/.installed ## measure the bundled model against real sequences (long)
	@$(BIN)/gridit evaluate --out out/gate

dashboard: $(VENV)/.installed-test ## write the Grafana dashboard from its code
	@$(BIN)/python deploy/grafana/generate.py

clean: ## remove what the targets made, .venv included
	@rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(INPUTS) | $(BIN)/pip
	@echo "installing into $(VENV) ..."
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(INPUTS) | $(BIN)/pip
	@echo "installing into $(VENV), with the test tools ..."
	@$(PIP) install -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(INPUTS) | $(BIN)/pip
	@echo "installing into $(VENV), with the developers' tools ..."
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed-test $(VENV)/.installed
