# `make` prints what it can do. A fresh machine needs Python >= 3.11 and make: targets that need the environment make
# it first (environment.mk). What make does in any folder with competitions/ is in src/podium/podium.mk; this file adds
# what concerns Podium's own code.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:

UNNAMED := test test-kaggle lint format chaos setup lock build docs bench-all
OWN_TARGETS := $(UNNAMED) bench
OWN_OPTIONS := TORCH_BACKEND LOCK_OPTIONS
DEFAULT_COMPETITION := cifar10
define OWN_HELP

Code
  test lint format bench setup lock
  test-kaggle      run the tests of tests/kaggle/ with the newest kaggle package, instead of the locked one
  docs             write the site of docs/ into site/, its reference from the code first
  build            write the wheel and the source archive into dist/
  bench-all        Podium, fastai, timm and AutoGluon on the same three tasks: accuracy, CPU seconds, lines
  chaos            kill commands at random moments, repeat them, and compare every byte
endef

include environment.mk
PLAN_PYTHON = PYTHONPATH=src $(FOUND_PYTHON)
include src/podium/podium.mk

test: | $(READY)
	@$(PYTHON) -m pytest -q -n $(CORES) --dist worksteal --cov

NEWEST := $(CURDIR)/.cache/kaggle-newest# beside the environment, which stays as it is
NOTEBOOKS := follow quota# what starts the CLI for notebooks; the others take minutes

test-kaggle: | $(READY)
	@rm -rf $(NEWEST)
	$(PYTHON) -m uv pip install --quiet --python $(PYTHON) --target $(NEWEST) kaggle six
	kaggle_version() { $(PYTHON) -c 'from importlib.metadata import version; print("kaggle", version("kaggle"))'; }
	locked=$$(kaggle_version)
	export PYTHONPATH="$(NEWEST):$$PYTHONPATH"
	newest=$$(kaggle_version)
	if [[ $$newest == "$$locked" ]]; then
		echo "$$newest is the newest and the locked one: make test runs its tests."
		exit
	fi
	echo "$$newest instead of $$locked"
	$(PYTHON) -m pytest -q -n $(CORES) --dist worksteal tests/kaggle/test_*.py $(NOTEBOOKS:%=tests/kaggle/notebooks/test_%.py)

bench: | $(READY) prepare
	@$(PYTHON) -W ignore benchmarks/training.py $(OF)
	$(PYTHON) -W ignore benchmarks/finetune.py

bench-all: | $(READY)
	@$(PYTHON) -W ignore benchmarks/all.py

chaos: | $(READY)
	@$(PYTHON) -W ignore benchmarks/chaos.py

lint: | $(READY)
	@$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -c 'from importlinter.cli import lint_imports_command as check; check()'

format: | $(READY)
	@$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

docs: | $(READY)
	@$(PYTHON) docs/make_reference.py
	$(PYTHON) -m sphinx -q -W --keep-going -d .cache/doctrees docs site
	echo "wrote site/index.html"

build: | $(READY)
	@$(PYTHON) -m uv build --quiet --no-build-isolation
	ls -l dist

clean: clean-code
clean-code:
	@rm -rf dist site .pytest_cache .ruff_cache .import_linter_cache .coverage .coverage.*
	find . \( -path ./$(VENV) -o -path ./data -o -path ./.git \) -prune -o -name __pycache__ -prune -exec rm -rf {} +
.PHONY: clean-code
