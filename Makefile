# `make quickstart` and `make test` each set up .venv by themselves; nothing else is needed but Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUICK := quickstart
.DEFAULT_GOAL := help

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.user: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[model]"
	@touch $@

$(VENV)/.developer: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[model,ocr,volumes,dev]"
	@touch $@ $(VENV)/.user

quickstart: $(VENV)/.user ## Fetch real ultrasound, build shards, audit, pretrain, embed: a few minutes on two cores.
	$(BIN)/openus-data fetch pydicom-us --root $(QUICK)/data
	$(BIN)/openus-data build pydicom-us --root $(QUICK)/data --out $(QUICK)/corpus --recipe quickstart
	$(BIN)/openus-data verify $(QUICK)/corpus
	$(BIN)/openus-data audit $(QUICK)/corpus --html $(QUICK)/audit.html
	$(BIN)/openus-data preview $(QUICK)/corpus --out $(QUICK)/contact-sheet.png
	$(BIN)/openus-model pretrain quickstart --data $(QUICK)/corpus --out $(QUICK)/run --resume
	$(BIN)/openus-model embed --weights $(QUICK)/run --data $(QUICK)/corpus --out $(QUICK)/embeddings.parquet
	@printf '\nWhat there is now:\n'
	@printf '  %-34s %s\n' \
	  $(QUICK)/data "the downloads, verified" \
	  $(QUICK)/corpus "shards and manifest.parquet" \
	  $(QUICK)/audit.html "what is in the corpus, and is it clean" \
	  $(QUICK)/contact-sheet.png "the images with their scan areas" \
	  $(QUICK)/run/metrics.jsonl "the loss, step by step" \
	  $(QUICK)/run/checkpoints "the weights" \
	  $(QUICK)/embeddings.parquet "an embedding per image"

test: $(VENV)/.developer ## Lint, types, layers, the whole suite with coverage, generated docs.
	$(BIN)/ruff format --check openus_data openus_model tests benchmarks docs
	$(BIN)/ruff check openus_data openus_model tests benchmarks docs
	$(BIN)/mypy openus_data openus_model
	$(BIN)/python docs/generate.py --check
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

check: $(VENV)/.developer ## The same without the suite: seconds.
	$(BIN)/ruff format --check openus_data openus_model tests benchmarks docs
	$(BIN)/ruff check openus_data openus_model tests benchmarks docs
	$(BIN)/mypy openus_data openus_model
	$(BIN)/pytest -q tests/house

docs: $(VENV)/.developer ## Write the generated pages again.
	$(BIN)/python docs/generate.py

wheel-check: $(VENV)/.developer ## Build the wheel, install it into an empty environment, run it from another folder.
	bash .ci/wheel-check $(abspath $(BIN)/python)

cuda-check: ## On a machine with a GPU: parity, throughput and memory of every scan backend.
	$(BIN)/python -m openus_model.cuda_check

clean: ## Remove what was built; keeps downloads.
	rm -rf $(VENV) dist build .coverage* htmlcov $(QUICK)/corpus $(QUICK)/run

.PHONY: help quickstart test check docs wheel-check cuda-check clean
