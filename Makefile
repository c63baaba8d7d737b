# The front door: `make` lists what it can do. A fresh machine needs Python >= 3.11 and make; every target that
# needs the environment makes it first. Which runs there are and which are stale, podium.plan says, by content.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory

COMPETITION ?= cifar10
DATA ?=
STRATEGY ?=
THRESHOLD ?=
OUT ?=
MESSAGE ?=
FORCE ?=
SCORE ?=
KAGGLE ?=
RUN ?=
RECIPE ?=
WRITE ?=
TRIALS ?=
MINUTES ?=
WHEELS ?=
CORES := $(shell nproc)
TARGETS := help setup new all train prepare show lr-find tune estimate ensemble suggest compact check runs report \
	rehearse demo download submit submissions leaderboard kernel rehearse-kernel \
	test bench lint format lock clean
GOALS := $(or $(value MAKECMDGOALS),help)

# A word as the shell will read it, whatever is in it.
quoted = '$(subst ','\'',$(1))'

# The environment. `make PYTHON=python3` uses another one as it is.
VENV := .venv
PYTHON ?= $(VENV)/bin/python
READY := $(if $(filter $(VENV)/bin/python,$(PYTHON)),$(VENV)/ready)
INSTALLED_BACKEND := $(file <$(VENV)/ready)
TORCH_BACKEND ?= $(INSTALLED_BACKEND)
LOCK_OPTIONS ?=
export PYTHONPATH := $(CURDIR)/src$(if $(value PYTHONPATH),:$(value PYTHONPATH))

# The first of these that is new enough: it makes the environment, and plans before there is one.
CANDIDATES := $(PYTHON) $(if $(READY),python3 python3.14 python3.13 python3.12 python3.11)
NEW_ENOUGH := -S -c 'import sys; sys.exit(sys.version_info < (3, 11))'
FOUND_PYTHON := $(shell for python in $(CANDIDATES); do \
	if "$$python" $(NEW_ENOUGH) 2>/dev/null; then echo "$$python"; break; fi; done)

PODIUM = $(PYTHON) -m podium
OF := --competition $(call quoted,$(COMPETITION))
WITH_DATA := $(OF) $(if $(DATA),--data $(call quoted,$(DATA)))
CSV := submissions/$(COMPETITION)/ensemble.csv
FILE ?= $(CSV)
RECIPES :=
RUNS :=
STALE :=
ENSEMBLE_STALE :=

ifneq ($(filter-out help clean,$(GOALS)),)
ifeq ($(FOUND_PYTHON),)
$(error Podium needs Python 3.11 or newer, and here is none: looked for $(filter-out $(VENV)/%,$(CANDIDATES)))
endif
endif

# What these goals do does not depend on a competition; demo asks again, for its own. Some look for themselves: with
# an environment that costs less than to plan first.
LOOK := $(if $(filter $(PYTHON),$(FOUND_PYTHON)),ensemble suggest runs report show lr-find tune download submit \
	submissions leaderboard kernel rehearse-kernel)
PLANNED := $(filter-out help setup new demo test bench lint format lock clean $(LOOK),$(GOALS))
ifneq ($(PLANNED),)
PLAN := $(shell PYTHONPATH=src $(FOUND_PYTHON) -S -m podium.plan \
	$(call quoted,$(COMPETITION)) $(call quoted,$(PLANNED)) '$(TARGETS)')
ifneq ($(.SHELLSTATUS),0)
$(error Nothing was done)
endif
$(foreach assignment,$(PLAN),$(eval $(assignment)))
endif

RUN_FILES := $(RUNS:%=oof/$(COMPETITION)/%.npz)
STALE_FILES := $(STALE:%=oof/$(COMPETITION)/%.npz)

# Runs are trained side by side, one a core, unless make was told how many. They share the cores among
# themselves. The environment shows what an outer make was told; a -j of this one wins over this line.
ifneq ($(filter all train $(RECIPES),$(GOALS)),)
ifeq ($(filter -j% --jobserver%,$(MAKEFLAGS) $(shell echo "$${MAKEFLAGS:-}")),)
MAKEFLAGS += -j$(CORES)
endif
endif

.PHONY: FORCE demo-all $(TARGETS) $(RECIPES) $(RUNS)
.PRECIOUS: $(RUN_FILES) $(CSV) # whole whenever they are there: never deleted for an error that came after them

help: ## what make can do
	@echo "make TARGET [COMPETITION=$(COMPETITION)] [DATA=where the images are] [PYTHON=an environment of yours]"
	awk -F ':.*## ' '/^[#a-zA-Z<>. -]+:.*## / { sub("^# ", "", $$1); printf "  %-15s %s\n", $$1, $$2 }' Makefile

demo: demo-all | $(READY) ## the whole way on scikit-learn's digits, in minutes, and the score on its withheld answers
	@$(PODIUM) score submissions/digits/ensemble.csv --competition digits

demo-all: # a rule of its own: `make -n` runs lines that call make, and the score must not run with them
	@$(MAKE) all COMPETITION=digits

all: $(CSV) ## train what is stale, blend, write the submission
	@$(if $(STALE)$(ENSEMBLE_STALE),,echo "$(COMPETITION): $(words $(RUNS)) runs and $(CSV) are up to date.")

train: $(STALE_FILES) ## train the runs that are missing or whose recipe or data changed
	@$(if $(STALE),,echo "$(COMPETITION): $(words $(RUNS)) runs are up to date.")

# <recipe>: ## train one recipe's runs, as in: make resnet34
# <recipe>.s<n>: ## train one run, as in: make resnet34.s1
$(foreach recipe,$(RECIPES),$(eval $(recipe): $(RUNS_$(recipe))))
$(foreach run,$(RUNS),$(eval $(run): oof/$(COMPETITION)/$(run).npz))

ESTIMATE := $(if $(filter all,$(GOALS)),estimate)
$(STALE_FILES): oof/$(COMPETITION)/%.npz: FORCE | $(READY) prepare $(ESTIMATE)
	@$(PODIUM) train $* $(WITH_DATA)

$(CSV): $(STALE_FILES) $(if $(ENSEMBLE_STALE),FORCE | $(READY))
	@$(PODIUM) ensemble $(OF)

ensemble: | $(READY) ## blend again: STRATEGY=greedy THRESHOLD=0.94 OUT=try2 tries another way; trains nothing
	@$(PODIUM) ensemble $(OF) $(if $(STRATEGY),--strategy $(call quoted,$(STRATEGY))) \
		$(if $(THRESHOLD),--threshold $(call quoted,$(THRESHOLD))) $(if $(OUT),--out $(call quoted,$(OUT)))

suggest: | $(READY) ## which recipe deserves one more run
	@$(PODIUM) suggest $(OF)

compact: | $(READY) ## halve the predictions' files, to be committed, where the submission stays the same
	@$(PODIUM) compact $(OF)

prepare: | $(READY) ## find, check, split and decode the images
	@$(PODIUM) prepare $(WITH_DATA)

show: | $(READY) prepare ## draw what the network of RUN= sees: training images with labels, augmented
	@$(PODIUM) show $(call quoted,$(RUN)) $(WITH_DATA)

lr-find: | $(READY) prepare ## ask lr_find for the learning rate of RECIPE=; WRITE=1 writes it into the recipe
	@$(PODIUM) lr-find $(call quoted,$(RECIPE)) $(WITH_DATA) $(if $(filter 1,$(WRITE)),--write)

estimate: | $(READY) prepare ## how long the stale runs will take here
	@$(PODIUM) estimate $(OF)

runs: | $(READY) ## list the runs: up to date or stale, validation accuracy
	@$(PODIUM) runs $(OF)

report: | $(READY) ## one page to look at: scores, runs, ensemble, mistakes, submission; needs no images, shows them if decoded
	@$(PODIUM) report $(OF)

check: | $(READY) ## is the CSV a valid submission? FILE=one.csv checks another one
	@$(PODIUM) check $(call quoted,$(FILE)) $(OF)

rehearse: | $(READY) ## the whole way on few images and one epoch: before spending hours
	@$(PODIUM) rehearse $(WITH_DATA)

tune: | $(READY) prepare ## search better values for RECIPE='s keys: TRIALS=20 or MINUTES=30; judged on inner rows
	@$(PODIUM) tune $(call quoted,$(RECIPE)) $(WITH_DATA) $(if $(TRIALS),--trials $(call quoted,$(TRIALS))) \
		$(if $(MINUTES),--minutes $(call quoted,$(MINUTES))) $(if $(OUT),--out $(call quoted,$(OUT)))

new: | $(READY) ## begin with COMPETITION=, from KAGGLE= (its name there) or DATA= (a folder or an archive)
	@$(PODIUM) new $(WITH_DATA) $(if $(KAGGLE),--kaggle $(call quoted,$(KAGGLE)))

download: | $(READY) ## fetch the competition's files from Kaggle into data/
	@$(PODIUM) download $(OF)

submit: | $(READY) ## upload FILE= (the ensemble's CSV) to Kaggle with MESSAGE=, and wait for its score
	@$(PODIUM) submit $(call quoted,$(FILE)) $(OF) $(if $(filter 1,$(FORCE)),--force) \
		--message $(call quoted,$(MESSAGE))

submissions: | $(READY) ## ask Kaggle for scores; validation against leaderboard, and which two to select
	@$(PODIUM) submissions $(OF)

leaderboard: | $(READY) ## rank and medal zone of the best submission, or of SCORE=
	@$(PODIUM) leaderboard $(OF) $(if $(SCORE),--score $(call quoted,$(SCORE)))

IN_KERNEL = $(foreach run,$(RUN),$(call quoted,$(run))) $(if $(WHEELS),--wheels $(call quoted,$(WHEELS)))

kernel: | $(READY) ## train stale runs (RUN= names some) on Kaggle's GPUs, and bring their predictions into oof/
	@$(PODIUM) kernel $(IN_KERNEL) $(OF) $(if $(filter 1,$(FORCE)),--force)

rehearse-kernel: | $(READY) ## push one run (or RUN=) to a Kaggle on this machine, which trains it here, offline
	@$(PODIUM) rehearse-kernel $(IN_KERNEL) $(WITH_DATA)

test: | $(READY) ## run the tests, with coverage
	@$(PYTHON) -m pytest -q -n $(CORES) --cov

bench: | $(READY) prepare ## images/s beside stock fastai and a plain PyTorch loop
	@$(PYTHON) -W ignore benchmarks/training.py $(OF)

lint: | $(READY) ## is the code formatted and clean?
	@$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

format: | $(READY) ## format the code and fix what can be fixed
	@$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

setup: | $(READY) ## make the environment; TORCH_BACKEND=cpu takes torch's small CPU builds
	@echo "The environment is ready: $(PYTHON)"

lock: | $(READY) ## pin what pyproject.toml asks for; LOCK_OPTIONS=--upgrade takes the newest of everything
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(PYTHON) -m uv pip compile --quiet --universal \
		--python-version 3.11 --generate-hashes --extra dev $(LOCK_OPTIONS) --output-file requirements.lock pyproject.toml

clean: ## remove decoded images, rehearsals and tools' caches; trained runs, submissions and .venv stay
	@rm -rf .cache .rehearsal .pytest_cache .ruff_cache .coverage .coverage.*
	find . \( -path ./$(VENV) -o -path ./data -o -path ./.git \) -prune -o -name __pycache__ -prune -exec rm -rf {} +

include environment.mk
