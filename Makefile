# Every target makes .venv first, from pinned versions; `make` alone lists them.
PYTHON ?= python3.11
BIN := .venv/bin

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/.ready ## from nothing to an adapter, a prediction and a report; minutes
	$(BIN)/msta demo --out demo-output

app: .venv/.ready ## the web page, on http://127.0.0.1:7860
	$(BIN)/msta app

test: .venv/.ready ## the test suite, one process per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: .venv/.ready ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

chaos: .venv/.ready ## kill training runs 50 times at random instants; each must end as if nothing had happened
	$(BIN)/python tests/chaos.py --kills 50 --out benchmarks/results/chaos.json

fuzz: .venv/.ready ## 2,000 damaged files of each of nine containers through the service and msta predict; half an hour
	$(BIN)/python -m pytest tests/test_fuzz.py -m slow -s

lint: .venv/.ready ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.ready ## let ruff put the files in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.ready ## ratios measured side by side, to benchmarks/results/; half an hour. CLIPS=FOLDER adds real clips
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/timeline.py
	$(if $(CLIPS),$(BIN)/python benchmarks/cache.py --clips $(CLIPS)/egogestar)
	$(if $(CLIPS),$(BIN)/python benchmarks/explain.py --clips $(CLIPS)/egogestar)

evidence: .venv/.ready ## every measured figure of the docs again; hours, goes on where it stopped. CLIPS=FOLDER adds real clips
	$(BIN)/python benchmarks/evidence.py $(if $(CLIPS),--clips $(CLIPS))

bench-service: .venv/.ready ## the service: throughput, latency, ten thousand checked requests; half an hour
	$(BIN)/python benchmarks/service.py
	$(BIN)/python benchmarks/service_soak.py

bench-catalog: .venv/.ready ## a million clips: seconds and memory to read, index, split and start training; minutes
	$(BIN)/python benchmarks/large_catalog.py

clean: ## remove what the other targets made
	rm -rf .venv build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis demo-output

.PHONY: help demo app test test-slow chaos fuzz lint format bench evidence bench-service clean bench-catalog
