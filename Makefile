# One command for each job; `make` alone lists them. Python packages go into .venv, nothing else is touched.

PYTHON = python3
# `=`, not `?=`: many systems set LANGUAGE in the environment (to en_GB:en and the like).
LANGUAGE = en
BUDGET = 3m

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt

# Other projects' trainers and text tools, kept apart from bimo's own environment.
PEERS := .venv-peers
TEXT_PEERS := .venv-text-peers
SERVE_PEERS := .venv-serve-peers
TUNE_PEERS := .venv-tune-peers

# Two busy cores: two test processes, each with one arithmetic thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=15

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow lint bench bench-train bench-text bench-serve bench-tune docs clean

help: ## list these commands
	@echo "make COMMAND [PYTHON=python3.12] [LANGUAGE=en|zh] [BUDGET=3m]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' Makefile | awk -F '|' '{ printf "%-14s%s\n", $$1, $$2 }'

quickstart: $(VENV)/.core ## install, then train a first model on a real corpus and let it speak
	$(BIN)/bimo quickstart --language $(LANGUAGE) --budget $(BUDGET)

test: $(VENV)/.dev ## every test but the slow ones, under ten minutes on two cores
	$(PYTEST)

test-slow: $(VENV)/.dev ## the slow tests
	$(PYTEST) -m slow

lint: $(VENV)/.dev ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev $(PEERS)/.made $(TEXT_PEERS)/.made $(SERVE_PEERS)/.made $(TUNE_PEERS)/.made ## run the comparisons in benchmarks/, one program after the other
	set -e; for program in benchmarks/*.py; do $(BIN)/python "$$program"; done

bench-train: $(VENV)/.dev $(PEERS)/.made ## bimo against other trainers: hours, or 20 minutes with QUICK=1; goes on where it stopped
	$(BIN)/python benchmarks/train.py $(if $(QUICK),--quick)

bench-text: $(VENV)/.dev $(TEXT_PEERS)/.made ## preparing text, datatrove and others beside it: an hour or two, or minutes with QUICK=1
	$(BIN)/python benchmarks/text.py $(if $(QUICK),--quick)

bench-serve: $(VENV)/.dev $(SERVE_PEERS)/.made ## answering, llama.cpp and Hugging Face beside it: half an hour, and long to compile llama.cpp
	$(BIN)/python benchmarks/serve.py

bench-tune: $(VENV)/.dev $(TUNE_PEERS)/.made ## tuning, Trainer with PEFT and TRL beside it: an hour or two, or minutes with QUICK=1
	$(BIN)/python benchmarks/tune.py $(if $(QUICK),--quick)

docs: $(VENV)/.dev ## write the generated pages of docs/
	$(BIN)/python docs/generate.py

clean: ## remove caches and built packages; .venv, runs and data stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name $(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make the environment once, and again only when what it holds has changed.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	    echo "bimo needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)" >&2; \
	    echo "Name one that you have: make quickstart PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	@touch $@

$(PEERS)/.made: benchmarks/peers/constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --constraint $< torch transformers accelerate litgpt
	@touch $@

$(TEXT_PEERS)/.made: benchmarks/peers/text-constraints.txt
	$(PYTHON) -m venv $(TEXT_PEERS)
	$(TEXT_PEERS)/bin/python -m pip install --constraint $< \
	    datatrove nltk orjson xxhash zstandard spacy tokenizers presidio-analyzer py3langid lingua-language-detector
	@touch $@

$(SERVE_PEERS)/.made: benchmarks/peers/serve-constraints.txt
	$(PYTHON) -m venv $(SERVE_PEERS)
	CMAKE_ARGS=-DGGML_NATIVE=ON $(SERVE_PEERS)/bin/python -m pip install --constraint $< 'llama-cpp-python[server]'
	@touch $@

$(TUNE_PEERS)/.made: benchmarks/peers/tune-constraints.txt
	$(PYTHON) -m venv $(TUNE_PEERS)
	$(TUNE_PEERS)/bin/python -m pip install --constraint $< torch transformers accelerate datasets peft trl
	@touch $@

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.made
	$(INSTALL) --editable ".[dev]"
	@touch $@ $(VENV)/.core
