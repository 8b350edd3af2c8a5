# make demo    curate real footage as one Ray job, then train tiny models on it and sample a clip
# make demo-curation, make demo-training    its two halves; the first installs no torch
# make test    lint, types, tests: what the CI runs
# make lint    lint and types alone
# make bench   speed of the curation, beside its peers
# Everything is installed into .venv; nothing outside this folder is touched.

PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
SHARDS := runs/demo/shards/tier-3/manifest.json
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo demo-curation demo-training test lint format bench clean
.DELETE_ON_ERROR:

demo:
	@$(MAKE) --no-print-directory demo-curation
	@$(MAKE) --no-print-directory demo-training

demo-curation: $(VENV)/.installed-pipeline
	$(PY) -m pipeline demo --output runs/demo

# Toy sizes on any machine: they show the way from shards to a clip, not what it can look like.
demo-training: $(VENV)/.installed-training
	$(PY) -m modeling.train --model vae --config vae_debug --shards $(SHARDS) --out runs/demo/vae
	$(PY) -m modeling.train --config dit_debug --shards $(SHARDS) --vae runs/demo/vae --out runs/demo/dit
	$(PY) -m modeling.sample --checkpoint runs/demo/dit/final --prompt "a rabbit in a meadow" \
	  --size 64x64 --frames 9 --steps 8 --out runs/demo/sample.mp4

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

$(VENV)/.installed-training: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[modeling,train]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed-pipeline $(VENV)/.installed-training

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache
