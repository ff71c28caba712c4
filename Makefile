# make demo   the point of it, on one screen        make test   the tests
# make check  what CI runs beside the tests          make figures DIR=…  the figures of accuracy and evidence
PYTHON ?= python3
ifeq ($(OS),Windows_NT)
  BIN := .venv/Scripts
else
  BIN := .venv/bin
endif
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# the folders of integrations/, each with settings of its own for pytest and mypy
ADAPTERS := haystack langchain llama_index ray

# what the bundled model is evaluated on, in DIR/nli
SETS := mnli_dev_matched snli_dev qnli_dev fever_symmetric_dev healthver_dev

.PHONY: demo test test-core check lint types types-core format wheel figures clean
.PHONY: $(ADAPTERS:%=test-%) $(ADAPTERS:%=types-%)

.venv/demo.done: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[demo]'
	@echo demo > $@

# torch first and alone, at the pinned version: so that a CPU build is taken where the index has one
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

# of the bundle as most processors run it, in int8: a variable hides from engine="auto" that this one computes in bf16
figures: INT8 := env ONEDNN_MAX_CPU_ISA=AVX512_CORE $(BIN)
figures: .venv/dev.done
	$(PIP) --constraint constraints-dev.txt --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/calibration.py --data $(DIR) --write
	$(INT8)/python benchmarks/demo_corpus.py
	$(INT8)/python benchmarks/accuracy.py --data $(DIR)
	$(INT8)/rerank-nli evaluate --json --resamples 200 --plot benchmarks/results/evaluate.svg --data $(SETS:%=$(DIR)/nli/%.jsonl.gz) \
		> benchmarks/results/evaluate.jsonl
	$(INT8)/python benchmarks/templates.py --data $(DIR)
	$(INT8)/python benchmarks/windows.py --data $(DIR)
	$(INT8)/python benchmarks/retriever.py --data $(DIR)
	$(INT8)/python benchmarks/growth.py
	$(INT8)/python benchmarks/zeroshot.py --data $(DIR)
	$(INT8)/python benchmarks/languages.py --data $(DIR)
	$(INT8)/python benchmarks/checkpoints.py
	$(INT8)/python benchmarks/evidence.py --data $(DIR)
	$(INT8)/python benchmarks/cascade.py --data $(DIR)
	$(INT8)/python benchmarks/joined.py --data $(DIR)

# an own training loop beside sentence-transformers' trainer
.PHONY: training
training: .venv/dev.done
	$(PIP) --constraint constraints-dev.txt --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/training.py --data $(DIR)

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

# the bundled model: BASE is the folder of all-MiniLM-L6-v2
DEV = $(DIR)/nli/mnli_dev_matched.jsonl.gz $(DIR)/nli/qnli_dev.jsonl.gz
PAIRS := $(patsubst %,build/pairs/%.jsonl.gz,nli retrieved passages swapped edited scifact)
ASKED := build/pairs/asked.jsonl.gz build/pairs/reworded.jsonl.gz
MIX := mnli=1.6 snli=1.6 lingnli=1.1 qnli=2 fever=1.5 conjnli=.6 help=.4 control=.7 semi_automatic_wiki=.7
MIX += counterfactual_snli=.8 passages=.5 retrieved=.4 swapped=.4 edited=.25
TAUGHT := taught_mnli=1.5 taught_snli=1.5 taught_qnli=1.8 taught_lingnli=1 mnli=.12 snli=.15 qnli=.2 lingnli=.12 fever=.5
TAUGHT += conjnli=.1 help=.08 control=.1 semi_automatic_wiki=.12 counterfactual_snli=.35 negation_nli=.3 covidfact=.6 rte=.8
TAUGHT += passages=.33 retrieved=.27 scifact=1.2 swapped=.12 edited=.08
TAUGHT += taught_reworded=.5 taught_near_question=.7 taught_crossed=.5 taught_agreeing=.5 taught_turned=.5
.PHONY: pairs
pairs: .venv/dev.done
	$(PIP) --constraint constraints-dev.txt --requirement benchmarks/requirements.txt
	$(BIN)/python scripts/make_pairs.py --data $(DIR) --base $(BASE) -o build/pairs
	$(BIN)/python scripts/prove_apart.py build/pairs/*.jsonl.gz --data $(DIR)

.PHONY: model
model: pairs
	$(BIN)/rerank-nli train $(PAIRS) -o build/first --base $(BASE) --dev $(DEV) --mix $(MIX) --epochs 3.6 --rate 9e-5
	$(BIN)/python scripts/make_lessons.py give scripts/lessons.npz $(ASKED) build/pairs/resembling.jsonl.gz \
		-o build/taught.jsonl.gz
	$(BIN)/rerank-nli train build/taught.jsonl.gz $(PAIRS) -o build/nli-mini --base build/first/checkpoint --dev $(DEV) \
		--teacher .9 --mix $(TAUGHT) --epochs 1.7 --rate 1e-4 --warmup .04 --average .997 --card scripts/nli-mini.json

# what it is taught, which is kept: TEACHER is the folder of all-mpnet-base-v2, which errs on other pairs than the model
OF_TEACHER := mnli=1 qnli=.48 snli=.28 lingnli=.14 fever=.1 counterfactual_snli=.12 rte=.4 conjnli=.04 help=.05 control=.5
OF_TEACHER += semi_automatic_wiki=.05 negation_nli=.1 covidfact=.4
.PHONY: lessons
lessons: pairs
	$(BIN)/rerank-nli train build/pairs/nli.jsonl.gz -o build/teacher --base $(TEACHER) --dev $(DEV) --mix $(OF_TEACHER) \
		--epochs .9 --rate 9e-5 --warmup .08 --frozen 6 --longest 72 --batch-tokens 3072 --average .99
	cat $(ASKED) > build/asked.jsonl.gz
	$(BIN)/rerank-nli score build/asked.jsonl.gz -o build/by_teacher.jsonl.gz --model build/teacher/checkpoint
	$(BIN)/rerank-nli score build/asked.jsonl.gz -o build/by_mini.jsonl.gz
	$(BIN)/python scripts/make_lessons.py keep build/by_teacher.jsonl.gz build/by_mini.jsonl.gz -o scripts/lessons.npz

# what ships: CHECKPOINT is the checkpoint of a run
.PHONY: bundle
bundle: .venv/dev.done
	rm -rf build/bundle
	$(BIN)/rerank-nli export $(CHECKPOINT) -o build/bundle --card scripts/nli-mini.json
	rm -rf rerank_nli/mini/nli
	mv build/bundle rerank_nli/mini/nli
