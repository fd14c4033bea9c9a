# sparsetune. `make demo` and `make test` do all the set-up that they need; both are incremental
# and leave nothing outside this folder but Debian packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
TOOL := PYTHONPATH=tools $(PY) -m sparsetune_tools.

# Every cache stays in the project.
export PIP_CACHE_DIR := $(CURDIR)/build/cache/pip
export npm_config_cache := $(CURDIR)/build/cache/npm
export XDG_CACHE_HOME := $(CURDIR)/build/cache
export MPLCONFIGDIR := $(CURDIR)/build/cache/matplotlib
# pip asks rustc for its version; where rustc is rustup's, that leaves a folder behind.
export RUSTUP_HOME := $(CURDIR)/build/cache/rustup
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export npm_config_update_notifier := false

.PHONY: help setup firmware natmods demo test lint bench bench-accept bench-quality clean

help:
	@echo "make demo      build all, fine-tune a model on an emulated Pico, show the result"
	@echo "make test      run every test, the emulated board's included"
	@echo "make firmware  build firmware.uf2 for the Raspberry Pi Pico"
	@echo "make natmods   build the kernels as native modules for stock MicroPython"
	@echo "make bench     measure speed and sizes, into bench/results (make bench-accept: keep the"
	@echo "               emulated cycles that tests compare with; bench-quality: all other figures)"
	@echo "make lint      format and type checks"
	@echo "make clean     remove what was built (not the downloads)"

setup: build/.packages $(VENV)/.ready tools/emulator/node_modules/.ready

build/.packages: tools/sparsetune_tools/needs.py
	@command -v $(PYTHON) >/dev/null || { echo "error: Python is missing; run: apt-get install -y python3 python3-venv python3-dev"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) is older than 3.10; name another: make PYTHON=python3.11 ..."; exit 1; }
	@mkdir -p build
	@PYTHONPATH=tools $(PYTHON) -m sparsetune_tools.needs --install
	@touch $@

# 1.5 GB, most of it a compiler for RISC-V, which a demo does not need.
build/.optional-packages: build/.packages
	@PYTHONPATH=tools $(PYTHON) -m sparsetune_tools.needs --install-optional
	@touch $@

$(VENV)/.ready: pyproject.toml setup.py build/.packages $(wildcard ulab_kernels/*.[ch])
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV)"
	@$(PY) -m pip install --progress-bar off --editable '.[plot,demo,dev,quantize]'
	@touch $@

tools/emulator/node_modules/.ready: tools/emulator/package-lock.json build/.packages
	@echo "installing npm packages into tools/emulator/node_modules"
	@cd tools/emulator && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

firmware: setup
	@$(TOOL)sources
	@$(TOOL)firmware

natmods: setup
	@$(TOOL)natmod

demo: firmware
	@$(TOOL)demo

test: build/.optional-packages firmware natmods lint
	@$(PY) -m pytest -n logical --maxprocesses 4 --dist loadfile

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run --Werror ulab_kernels/*.c ulab_kernels/*.h

bench: firmware natmods
	@$(PY) bench/speed.py

bench-accept: firmware
	@$(PY) bench/kept.py --accept

bench-quality: firmware
	@for name in gradients memory quantize convert rates store cycles main_job; do \
		echo "== bench/$$name.py"; $(PY) bench/$$name.py || exit 1; done

clean:
	rm -rf build/firmware build/natmod build/modules build/unix build/emulator build/logs out
