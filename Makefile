# Every target sets up what it needs in .venv; a bare machine needs python3 >= 3.11 and make.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.installed

.PHONY: demo test suites versions lint docs docs-check bench integration lock clean setup
.DEFAULT_GOAL := help

help:
	@echo "make demo         real applications under load, and a real report (about a minute)"
	@echo "make test         unit tests"
	@echo "make integration  Jaeger, SDKs of other languages, kills, the notebook (needs Go and Node; skips with a reason)"
	@echo "make suites       other projects' own test suites, plain and under hubscope run (downloads them)"
	@echo "make versions     the oldest and newest version of each library that is instrumented (downloads them)"
	@echo "make lint         ruff and mypy --strict"
	@echo "make docs         write the generated reference and check the links"
	@echo "make bench        benchmarks, each with its peer in the same run"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "hubscope needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version). Say which: make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("uv") is None)' || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "installing what requirements.lock names into $(VENV) …"
	@VIRTUAL_ENV=$(VENV) $(BIN)/python -m uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/python -m uv pip install --quiet --no-deps --editable .
	@touch $(READY)

demo: $(READY)
	$(BIN)/hubscope demo

test: $(READY)
	$(BIN)/python -m pytest -m "not integration" --numprocesses auto --dist loadfile

integration: $(READY)
	$(BIN)/python -m pytest -m integration

suites: $(READY)
	$(BIN)/python tests/suites/upstream.py

versions: $(READY)
	$(BIN)/python tests/suites/versions.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/generate.py

docs-check: $(READY)
	$(BIN)/python docs/generate.py --check

bench: $(READY)
	$(BIN)/python -m bench

lock: $(READY)
	VIRTUAL_ENV=$(VENV) $(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --all-extras --group dev --python-version 3.11 pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist
