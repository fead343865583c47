# gristmill: text in, trained model out. `make` prints what can be made.
#
# Every target sets itself up through file stamps: a virtual environment in .venv, the pinned
# packages of constraints.txt, the demo corpus. All paths are relative, so the folder may have any
# name and stand anywhere.

PYTHON      ?= python3
CONFIG      ?= configs/demo.toml
INPUT       ?=
ARGS        ?=
PIP_ARGS    ?=
VENV_ARGS   ?=
CONSTRAINTS ?= constraints.txt
NANOGPT     := 3adf61e154c3fe3fca428ad6bc3818b27a3b8291

BIN     := .venv/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) \
           $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
# loadfile: files whose tests share a costly start (ranks, a run) stay on one worker.
PYTEST  := $(BIN)/python -m pytest -n 2 --dist loadfile

# With INPUT=folder the texts of that folder are used, and everything is written to runs/<folder>.
ifneq ($(INPUT),)
RUN_FOLDER      := runs/$(notdir $(patsubst %/,%,$(INPUT)))
PREPROCESS      := $(BIN)/gristmill preprocess "$(INPUT)" --output "$(RUN_FOLDER)"
PRETRAIN        := $(BIN)/gristmill pretrain configs/small.toml --output "$(RUN_FOLDER)"
else
PREPROCESS      := $(BIN)/gristmill preprocess "$(CONFIG)"
PRETRAIN        := $(BIN)/gristmill pretrain "$(CONFIG)"
ifeq ($(CONFIG),configs/demo.toml)
CORPUS          := runs/demo-corpus/.complete
endif
endif

# A folder of this checkout must never be imported as a top-level module (`kernels`, `trainer`).
export PYTHONSAFEPATH = 1
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help preprocess pretrain demo-corpus test test-quick test-deep bench peers megatron-peers nanogpt lint clean
.DELETE_ON_ERROR:

help: ## print this list
	@echo "gristmill: multilingual text in, memory-mapped token files and trained models out"
	@echo
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | \
		awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo
	@echo "Variables: CONFIG=file.toml  INPUT=folder of texts  ARGS='--model.num-layers 4'"
	@echo "           PYTHON=python3.12  PIP_ARGS='pip options'  VENV_ARGS=--system-site-packages"
	@echo "           CONSTRAINTS= (empty: do not pin versions; a GPU container keeps its torch)"

preprocess: .venv/.installed $(CORPUS) ## text -> token files (demo corpus, CONFIG=, or INPUT=)
	$(PREPROCESS) $(ARGS)

pretrain: .venv/.installed $(CORPUS) ## all of preprocess, then train a model and sample from it
	@if [ -n "$(INPUT)" ] || grep -q 'preprocess.sources' "$(CONFIG)"; then \
		echo '$(PREPROCESS)'; $(PREPROCESS); \
	fi
	$(PRETRAIN) $(ARGS)

demo-corpus: runs/demo-corpus/.complete ## fetch the demo corpus into runs/demo-corpus

test: .venv/.installed-dev ## all tests but the long ones (15 minutes on two cores)
	$(PYTEST) -m "not deep" $(ARGS)

test-quick: .venv/.installed-dev ## the quick tests (2 minutes)
	$(PYTEST) -m "not deep and not slow" $(ARGS)

test-deep: .venv/.installed-dev ## every test, with many more random cases
	GRISTMILL_TEST_DEEP=1 $(PYTEST) $(ARGS)

bench: .venv/.installed-dev ## measure speeds, beside the peers where `make peers` has run
	$(BIN)/python benchmarks/run.py $(ARGS)

peers: .venv-peers/.installed .venv-peers-next/.installed .venv-text-dedup/.installed ## install the tools we compare with into environments of their own

megatron-peers: .venv-megatron/.installed ## install what the tools of a Megatron-LM checkout import

nanogpt: .nanogpt/model.py ## fetch nanoGPT's model for benchmarks/trainer.py and gpu_trainer.py

.nanogpt/model.py:
	@mkdir -p .nanogpt
	curl -fsSL -o $@ https://raw.githubusercontent.com/karpathy/nanoGPT/$(NANOGPT)/model.py

lint: .venv/.installed-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/mypy && ln -sfn ../.. build/mypy/gristmill
	MYPYPATH=build/mypy $(BIN)/mypy -p gristmill.kernels -p gristmill.indexed_dataset \
		-p gristmill.pipeline -p gristmill.trainer -p gristmill.commands -m gristmill.cli -m gristmill.config

clean: ## remove environments, caches and builds (runs/ is kept)
	rm -rf .venv .venv-* build dist gristmill.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "gristmill needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`."; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module, which the virtual environment in .venv needs."; \
		echo "Install it (Debian, Ubuntu: apt-get install python3-venv) and run make again."; exit 1; }
	$(PYTHON) -m venv $(VENV_ARGS) .venv

.venv/.installed: .venv/bin/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing gristmill into .venv (about a minute)"
	$(PIP) -e '.[all]'
	@touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml $(CONSTRAINTS)
	@echo "Installing gristmill with its test tools into .venv (about two minutes)"
	$(PIP) -e '.[dev]'
	@touch .venv/.installed $@

.venv-peers/.installed: benchmarks/peers.txt
	$(PYTHON) -m venv $(VENV_ARGS) .venv-peers
	.venv-peers/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) -r benchmarks/peers.txt
	@touch $@

.venv-megatron/.installed: benchmarks/peers-megatron.txt
	$(PYTHON) -m venv $(VENV_ARGS) .venv-megatron
	.venv-megatron/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) -r benchmarks/peers-megatron.txt
	@touch $@

.venv-text-dedup/.installed: benchmarks/peers-text-dedup.txt
	$(PYTHON) -m venv $(VENV_ARGS) .venv-text-dedup
	.venv-text-dedup/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) -r benchmarks/peers-text-dedup.txt
	@touch $@

.venv-peers-next/.installed: benchmarks/peers-next.txt
	$(PYTHON) -m venv $(VENV_ARGS) .venv-peers-next
	.venv-peers-next/bin/python -m pip --disable-pip-version-check install -q $(PIP_ARGS) -r benchmarks/peers-next.txt
	@touch $@

runs/demo-corpus/.complete: .venv/.installed
	$(BIN)/gristmill demo --output runs/demo-corpus --pip-args="$(PIP_ARGS)"
	@touch $@
