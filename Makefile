# make demo    curate real footage on this machine, as one Ray job
# make test    lint, types, tests: what the CI runs
# make lint    lint and types alone
# make bench   speed of the curation, beside its peers
# Everything is installed into .venv; nothing outside this folder is touched.

PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo demo-curation test lint format bench clean
.DELETE_ON_ERROR:

demo: demo-curation

demo-curation: $(VENV)/.installed-pipeline
	$(PY) -m pipeline demo --output runs/demo

test: $(VENV)/.installed-dev lint
	$(PY) -m pytest

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/codespell
	$(VENV)/bin/mypy

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: $(VENV)/.installed-dev
	$(PY) benchmarks/curation.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-pipeline: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[pipeline]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed-pipeline

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache
