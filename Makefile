# Each target sets up what it needs by itself: Python 3.11+, pip, make and a C++ compiler suffice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2

.PHONY: quickstart test check bench compat base reference clean help

help:
	@echo "make quickstart   a finished sweep on this machine, with its report"
	@echo "make test         the tests, by WORKERS=$(WORKERS) processes"
	@echo "make check        lint, types, import contract, sweep files, cluster file"
	@echo "make bench        speed and memory, as ratios"
	@echo "make compat       saved models in transformers 4.57 and peft 0.17, and back"
	@echo "make base         train the built-in model anew"
	@echo "make reference    write docs/reference.md anew, from the specs"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

quickstart: $(READY)
	$(BIN)/python jobs/sweep.py sweeps/quickstart.yaml

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit/test_shipped_files.py

bench: $(READY)
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

OLD := .venv-compat
$(OLD)/.ready:
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/python -m pip install --quiet torch torchvision num2words \
		transformers==4.57.6 peft==0.17.1
	@touch $@

compat: $(READY) $(OLD)/.ready
	HF_HUB_OFFLINE=1 PYTHONPATH=tests:tests/unit/training \
		$(BIN)/python tests/compat/compare.py $(OLD)/bin/python

base: $(READY)
	$(BIN)/python jobs/pretrain.py

reference: $(READY)
	$(BIN)/python -m mixlens schema --reference > docs/reference.md

clean:
	rm -rf $(VENV) $(OLD) runs
