# Two commands on a bare machine with python3 (3.11 or newer), make and a package index:
#   make demo   sets up .venv and runs the main job on the bundled photographs
#   make test   sets up .venv and passes the whole suite, checks included
# Others: make check, make test-fast, make bench, make clean.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
PIP := $(RUN) -m pip --disable-pip-version-check
# What `make bench` measures against lives in an environment of its own: bench/README.md.
PEER ?= bench/.peer/bin/python

.PHONY: demo test test-fast check bench clean
.DEFAULT_GOAL := demo

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/core.ready: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) install -q -e .
	@touch $@

$(VENV)/dev.ready: pyproject.toml tools/install_torch.py | $(VENV)/pyvenv.cfg
	$(RUN) tools/install_torch.py
	$(PIP) install -q -e '.[train,serve,video,text,openvino,litert,tf,dev]'
	@touch $@ $(VENV)/core.ready

demo: $(VENV)/core.ready
	$(RUN) -m openlepton detect openlepton/assets/photos --out demo --overwrite
	@echo "The annotated pictures are in demo/"

test: check
	$(RUN) -m pytest -n auto

test-fast: $(VENV)/dev.ready
	$(RUN) -m pytest -n auto -m "not slow"

check: $(VENV)/dev.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

bench: $(VENV)/dev.ready
	$(RUN) bench/run.py --peer-python "$(PEER)"

clean:
	rm -rf $(VENV) build dist demo runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
