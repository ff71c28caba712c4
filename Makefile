# make demo   the point of it, on one screen        make test   the tests
# make check  what CI runs beside the tests          make figures DIR=…  every figure in the README and docs
PYTHON ?= python3
ifeq ($(OS),Windows_NT)
  BIN := .venv/Scripts
else
  BIN := .venv/bin
endif
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# the folders of integrations/, each with settings of its own for pytest and mypy
ADAPTERS := haystack langchain llama_index ray

.PHONY: demo test test-core check lint types types-core format wheel figures clean
.PHONY: $(ADAPTERS:%=test-%) $(ADAPTERS:%=types-%)

.venv/demo.done: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[demo]'
	@echo demo > $@

# torch first and alone, at the pinned version: a CPU build is taken where one is at hand
.venv/dev.done: .venv/demo.done constraints-dev.txt requirements-dev.txt $(ADAPTERS:%=integrations/%/pyproject.toml)
	$(PIP) --constraint constraints-dev.txt torch
	$(PIP) --constraint constraints-dev.txt --editable '.[demo,eval,export,lang,openvino,serve,torch,train]' --requirement requirements-dev.txt
	@echo dev > $@

demo: .venv/demo.done
	@$(BIN)/rerank-nli demo

test: test-core $(ADAPTERS:%=test-%)

test-core: .venv/dev.done
	$(BIN)/python -m pytest --cov --cov-report=term --numprocesses=2 --dist=loadfile

$(ADAPTERS:%=test-%): test-%: .venv/dev.done
	cd integrations/$* && ../../$(BIN)/python -m pytest

check: lint types wheel

lint: .venv/dev.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: types-core $(ADAPTERS:%=types-%)

types-core: .venv/dev.done
	$(BIN)/mypy

$(ADAPTERS:%=types-%): types-%: .venv/dev.done
	cd integrations/$* && ../../$(BIN)/mypy

format: .venv/dev.done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The built wheel, alone in a bare environment without extras; then those of the adapters beside it.
wheel: .venv/dev.done
	$(BIN)/python scripts/smoke_test_wheel.py

figures: .venv/dev.done
	$(PIP) --constraint constraints-dev.txt --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/demo_corpus.py
	$(BIN)/python benchmarks/accuracy.py --data $(DIR)
	$(BIN)/python benchmarks/templates.py --data $(DIR)
	$(BIN)/python benchmarks/windows.py --data $(DIR)
	$(BIN)/python benchmarks/retriever.py --data $(DIR)
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/zeroshot.py --data $(DIR)
	$(BIN)/python benchmarks/languages.py --data $(DIR)
	$(BIN)/python benchmarks/checkpoints.py
	$(BIN)/python benchmarks/evidence.py --data $(DIR)
	$(BIN)/python benchmarks/joined.py --data $(DIR)

# which form of the weights; of a checkpoint in fp32
.PHONY: forms
forms: .venv/dev.done
	$(PIP) --constraint constraints-dev.txt --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/quantization.py $(CHECKPOINT) --data $(DIR)
	$(BIN)/python benchmarks/two_labels.py --base $(CHECKPOINT) --data $(DIR)

# how fast it is beside its peers, each in a virtual environment that the first run makes
.PHONY: speed
speed: .venv/dev.done
	$(PIP) --constraint constraints-dev.txt --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/speed.py --data $(DIR)

clean:
	rm -rf .venv dist build .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: bundle
bundle: .venv/dev.done
	rm -rf rerank_nli/mini/nli
	$(BIN)/rerank-nli export $(CHECKPOINT) -o rerank_nli/mini/nli --card scripts/nli-mini.json
