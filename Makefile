# Every target works from a bare machine with Python 3.11 or newer: it makes .venv and installs the tested versions first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Short spinning halves the time of small matrix products; long spinning starves two-core machines.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 2000
# Without kept bytecode every process that a test starts would compile all that it imports again.
unexport PYTHONDONTWRITEBYTECODE

# Test processes. A module's tests share models and servers and stay together. Modules go out in their order: by number
# of tests those of few long ones would come last, and leave the others waiting. Four share two cores: they often wait
# for servers and browsers.
PROCESSES ?= 4
TESTING = -m "not slow" --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
# What proves the core: imports, core, scheduler, cache, strategies, text, checks, formats.
FAST := tests/test_architecture.py $(wildcard tests/engine/test_core_*.py) tests/engine/test_block_manager.py \
	tests/engine/test_prefix_hash.py $(filter-out tests/decoding/test_real_%,$(wildcard tests/decoding/test_*.py)) \
	tests/text $(wildcard tests/checks/test_*.py) tests/sharing tests/system \
	$(filter-out %_merge.py %_merge_gguf.py %_peft.py,$(wildcard tests/modeling/adapter_format/test_*.py))

.PHONY: demo test test-fast lint coverage proto docs screenshots bench clean

# Modules are compiled when they are first imported: most of the installed ones never are.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/ift-serve demo

test: $(STAMP)
	$(BIN)/python -m pytest $(TESTING)

test-fast: PROCESSES = 2
test-fast: $(STAMP)
	$(BIN)/python -m pytest $(TESTING) $(FAST)

coverage: $(STAMP)
	$(BIN)/python -m pytest $(TESTING) --cov --cov-report=term --cov-report=html

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers auto

proto: $(STAMP)
	$(BIN)/python protos/generate.py
	$(BIN)/python docs/protocol_reference.py

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/external_requests.py site

screenshots: $(STAMP)
	$(BIN)/python -m docs.screenshots

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/serving.py --shape smollm2-135m --peer transformers-static,transformers-cb

clean:
	rm -rf $(VENV) build dist *.egg-info htmlcov .coverage
