# What make does in a folder with competitions/. The Makefile of that folder includes this file. Before, it may set
#   PYTHON                the Python that has podium
#   READY, PLAN_PYTHON    the file that says that PYTHON is ready, with a rule; what plans while it is not
#   DEFAULT_COMPETITION   the competition where none is named, and none was before
#   OWN_TARGETS, OWN_OPTIONS, OWN_HELP   its own targets, of which UNNAMED need no competition; variables; lines of help
# podium.plan decides by content, not by time, which runs are stale.
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory

PYTHON ?= python3
READY ?=
PLAN_PYTHON ?= $(PYTHON)
DEFAULT_COMPETITION ?=
OWN_TARGETS ?=
OWN_OPTIONS ?=
OWN_HELP ?=
COMPETITION ?=
OPTIONS := DATA STRATEGY THRESHOLD OUT MESSAGE FORCE KAGGLE TARGET METRIC KIND RUN SET RECIPE WRITE TRIALS MINUTES \
	ENGINE ADDRESS CHECKPOINTS SLURM SCORE
$(foreach name,$(OPTIONS),$(eval $(name) ?=))
# nproc would take OMP_NUM_THREADS for the number of cores.
CORES := $(shell env -u OMP_NUM_THREADS nproc)

define HELP
make GOAL [COMPETITION=name] [DATA=folder or archive of the images] [PYTHON=another environment]
COMPETITION= and DATA= are remembered: the next command may omit them.

Start
  demo             train nine networks on the bundled digits, blend and score them: minutes on two cores
  new              write settings for COMPETITION= from DATA= (folder or archive) or KAGGLE= (name on Kaggle); what
                   the files do not say, it asks for: TARGET=ordinal METRIC=qwk KIND=labels SET='data.group_column=id'
  all              train stale runs, blend them, write the submission
Train
  prepare          find, check, decode and split the images
  show             draw training images as the network of RUN= gets them
  lr-find          plot the loss of RECIPE= over the learning rate; WRITE=1 writes the suggestion into the recipe
  embed            compute the features of all images by the pretrained network of RECIPE=; training does it too
  rehearse         run everything with few images and one epoch, before hours of training
  estimate         estimate the training time of the stale runs on this machine
  plan-cost        simulate hours and cost of 9 to 1,000 runs on 1 to 64 GPUs: SET='seconds_per_run=420 price=2'
  check-recipes    build the network of each stale run and load its weights; training does it too
  train            train stale runs (or RUN=) side by side; -j1 trains one at a time; with RUN=lite0.s1
                   SET='epochs=5 augment.shift_pixels=4' train a variant of this run: a new recipe with these values
                   ENGINE=ray ADDRESS=host:6379 (CHECKPOINTS=s3://...) trains the folds on a Ray cluster, ENGINE=slurm
                   SLURM='slurm_partition=gpu timeout_min=600' in an array job
  <recipe>, <run>  train the runs of one recipe, or one run: make lite0, make lite0.s1
  tune             search better values for the keys of RECIPE=: TRIALS=20 or MINUTES=30
Blend and look
  ensemble         blend the trained runs again: STRATEGY=greedy THRESHOLD=0.94 OUT=try2
  pseudo           write the test images that the blend predicts with confidence (THRESHOLD=0.99), to train on them
  suggest          find the recipe that deserves one more run
  runs             list the runs: up to date or stale, validation accuracy
  report           write a page: scores, runs, ensemble, mistakes, submission
  check            check the CSV FILE= as a submission
  verify           check that FILE= comes from this code and data; RUN= trains runs or recipes (`all`, or `rehearse`: a
                   few images) again in .rehearsal/ and compares them
Kaggle
  download         download the competition's files into data/
  kernel           train stale runs (or RUN=) on Kaggle's GPUs; rehearse-kernel runs the same script here
  notebook         push a notebook that predicts the test images by the ensemble, and with MESSAGE= submit it, where a
                   competition takes notebooks only; rehearse-notebook runs the same script here
  submit           upload FILE= with MESSAGE= and wait for its score
  submissions      list scores, and the two submissions to select
  leaderboard      print rank and medal zone of the best public score, or of SCORE=, and how far each zone is
Else
  clean            remove what can be made again: decoded images, rehearsals, files that killed commands left$(OWN_HELP)
More commands (why, grade, predict, import, compact): $(PYTHON) -m podium --help
endef

VERBS := prepare rehearse estimate plan-cost check-recipes runs suggest ensemble pseudo report check verify new show lr-find tune embed \
	download submit submissions leaderboard kernel rehearse-kernel notebook rehearse-notebook
TARGETS := help demo all train clean $(VERBS) $(OWN_TARGETS)
GOALS := $(or $(value MAKECMDGOALS),help)

# A misspelt variable would have no effect.
KNOWN := $(OPTIONS) COMPETITION FILE PYTHON $(OWN_OPTIONS)
UNKNOWN := $(filter-out $(KNOWN),$(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name))))
ifneq ($(UNKNOWN),)
NEAREST := $(shell $(PLAN_PYTHON) -S -c 'import difflib, sys; name, *known = sys.argv[1:]; \
	print(*difflib.get_close_matches(name.upper(), known, 1) or known)' $(firstword $(UNKNOWN)) $(KNOWN))
$(error make does not know $(firstword $(UNKNOWN))=; expected: $(NEAREST). Keys of a recipe go into SET=, as in \
	make train RUN=lite0.s1 SET='epochs=5')
endif
GOALS_RUN := train show verify kernel rehearse-kernel
GOALS_SET := train new plan-cost
GOALS_TARGET := new
GOALS_METRIC := new
GOALS_KIND := new
GOALS_ENGINE := train
GOALS_ADDRESS := train
GOALS_CHECKPOINTS := train
GOALS_SLURM := train
GOALS_SCORE := leaderboard
$(foreach name,RUN SET TARGET METRIC KIND ENGINE ADDRESS CHECKPOINTS SLURM SCORE,$(if $(and $(filter command,$(origin $(name))),$($(name))),\
	$(if $(filter $(GOALS_$(name)),$(GOALS)),,$(error $(name)= has no effect on make $(GOALS)))))

$(foreach name,ADDRESS CHECKPOINTS SLURM,$(if $($(name)),$(if $(ENGINE),,$(error $(name)= has no effect without ENGINE=))))

# Quotes a word for the shell, whatever characters it contains. `option` adds --name VALUE if a variable is set.
quoted = '$(subst ','\'',$(1))'
option = $(if $($(1)),--$(2) $(call quoted,$($(1))))

# Only `all`, `train`, recipes and runs need the whole plan. Where PYTHON is not ready every goal plans first, so that a
# wrong name is refused before the environment is made. A name that is typed is remembered, but not by an inner make.
UNNAMED += help new demo clean
UNPLANNED = $(UNNAMED) $(if $(filter $(PYTHON),$(lastword $(PLAN_PYTHON))),$(filter-out all train,$(TARGETS)))
NAMED := $(filter-out $(UNNAMED),$(GOALS))
PLANNED := $(filter-out $(UNPLANNED),$(NAMED))
RECIPES :=
RUNS :=
STALE :=
TRAIN := # those of RUN=, or all
FITS := # of stale runs, where they are trained side by side
TO_CHECK := # the recipes of the stale runs that the goals train
ENSEMBLE_STALE :=
ifneq ($(NAMED),)
PLAN := $(shell $(PLAN_PYTHON) -m podium.plan $(call quoted,$(COMPETITION)) \
	$(call quoted,$(PLANNED)) '$(TARGETS)' $(if $(SET),'',$(call quoted,$(RUN))) \
	'$(DEFAULT_COMPETITION)' '$(filter line0,$(origin COMPETITION)$(MAKELEVEL))')
$(if $(PLAN),,$(error Nothing was done))
override COMPETITION := $(patsubst COMPETITION=%,%,$(filter COMPETITION=%,$(PLAN)))
$(foreach assignment,$(filter-out COMPETITION=%,$(PLAN)),$(eval $(assignment)))
endif

PODIUM = $(PYTHON) -m podium
OF := --competition $(call quoted,$(COMPETITION))
CSV := submissions/$(COMPETITION)/ensemble.csv
ENSEMBLE := $(CSV:.csv=.json)# written last, and without test images too
FILE ?= $(CSV)
RUN_FILES := $(RUNS:%=oof/$(COMPETITION)/%.npz)
STALE_FILES := $(STALE:%=oof/$(COMPETITION)/%.npz)
file_of_fit = oof/$(COMPETITION)/$(patsubst %/,%,$(dir $(1))).npz
# What comes before any training. `estimate` checks all recipes too; a single recipe is checked by its training.
BEFORE := $(READY) prepare $(if $(filter all,$(GOALS)),estimate,$(if $(word 2,$(TO_CHECK)),check-recipes))

# Runs train side by side, one per core, unless -j says otherwise here or in an outer make. Where one fails, the others
# are trained all the same.
ifneq ($(filter all $(if $(SET),,train) $(RECIPES) $(RUNS),$(GOALS)),)
MAKEFLAGS += -k
ifeq ($(filter -j% --jobserver%,$(MAKEFLAGS) $(shell echo "$${MAKEFLAGS:-}")),)
MAKEFLAGS += -j$(CORES)
endif
endif

.PHONY: FORCE demo-all $(TARGETS) $(RECIPES) $(RUNS) $(FITS)
.PRECIOUS: $(RUN_FILES) $(ENSEMBLE) # written whole or not at all, so never deleted after a later error

help:
	@: $(info $(HELP))

demo: demo-all | $(READY)
	@$(PODIUM) score submissions/digits/ensemble.csv --competition digits

demo-all: | competitions/digits/competition.toml # a rule of its own, because `make -n` runs lines that call make
	@$(MAKE) all COMPETITION=digits

competitions/digits/competition.toml: | $(READY)
	@$(PODIUM) new --competition digits --demo

all: $(ENSEMBLE)
	@$(if $(STALE)$(ENSEMBLE_STALE),,echo "$(COMPETITION): $(words $(RUNS)) runs and $(or $(wildcard $(CSV)),$(ENSEMBLE)) are up to date.")

ifneq ($(ENGINE),)
$(if $(SET),$(error SET= has no effect beside ENGINE=: train the variant here, or write its recipe first))
train: | $(BEFORE)
	@$(PODIUM) train $(OF) $(RUN_NAMES) $(call option,ENGINE,engine) $(call option,ADDRESS,address) \
		$(call option,CHECKPOINTS,checkpoints) $(call option,SLURM,options)
else ifeq ($(SET),)
train: $(filter $(TRAIN:%=oof/$(COMPETITION)/%.npz),$(STALE_FILES))
	@$(if $^,,echo "$(COMPETITION): $(words $(TRAIN)) runs are up to date.")
else # `make -n` runs this rule too, because it calls make
train: | $(READY)
	@$(if $(findstring n,$(firstword -$(MAKEFLAGS))),echo "writes a variant of $(RUN) and trains it",\
		runs=$$($(PODIUM) variant $(OF) $(call quoted,$(RUN)) $(call quoted,$(SET))) && \
		$(MAKE) train RUN="$$runs" SET= COMPETITION=$(COMPETITION))
endif

$(foreach recipe,$(RECIPES),$(eval $(recipe): $(RUNS_$(recipe))))
$(foreach run,$(RUNS),$(eval $(run): oof/$(COMPETITION)/$(run).npz))

$(STALE_FILES): oof/$(COMPETITION)/%.npz: FORCE | $(BEFORE)
	@$(PODIUM) train $* $(OF)

$(foreach fit,$(FITS),$(eval $(call file_of_fit,$(fit)): $(fit)))
$(FITS): FORCE | $(BEFORE)
	@$(PODIUM) train $(@D) --fit $(@F) $(OF)

$(ENSEMBLE): $(STALE_FILES) $(if $(ENSEMBLE_STALE),FORCE | $(READY))
	@$(PODIUM) ensemble $(OF)

# `make VERB` is `podium VERB`: the competition, then the variables that the verb knows as its arguments.
$(foreach verb,$(VERBS),$(eval ARGUMENTS_$(verb) =))
ARGUMENTS_prepare = $(call option,DATA,data)
ARGUMENTS_rehearse = $(ARGUMENTS_prepare)
ARGUMENTS_check-recipes = $(TO_CHECK)$(if $(ENGINE), --elsewhere)
ARGUMENTS_plan-cost = $(call quoted,$(SET))
ARGUMENTS_new = $(ARGUMENTS_prepare) $(call option,KAGGLE,kaggle) $(call option,TARGET,target) \
	$(call option,METRIC,metric) $(call option,KIND,kind) $(call option,SET,set)
ARGUMENTS_ensemble = $(call option,STRATEGY,strategy) $(call option,THRESHOLD,threshold) $(call option,OUT,out)
ARGUMENTS_pseudo = $(call option,THRESHOLD,threshold)
ARGUMENTS_check = $(call quoted,$(FILE))
ARGUMENTS_show = $(call quoted,$(RUN))
ARGUMENTS_embed = $(call quoted,$(RECIPE))
ARGUMENTS_lr-find = $(ARGUMENTS_embed) $(if $(filter 1,$(WRITE)),--write)
ARGUMENTS_tune = $(ARGUMENTS_embed) $(call option,TRIALS,trials) $(call option,MINUTES,minutes) $(call option,OUT,out)
ARGUMENTS_submit = $(call quoted,$(FILE)) --message $(call quoted,$(MESSAGE)) $(FORCED)
ARGUMENTS_leaderboard = $(call option,SCORE,score)
ARGUMENTS_verify = $(RUN_NAMES) --file $(call quoted,$(FILE))
RUN_NAMES = $(foreach run,$(RUN),$(call quoted,$(run)))
ARGUMENTS_kernel = $(RUN_NAMES) $(FORCED)
ARGUMENTS_rehearse-kernel = $(RUN_NAMES) $(ARGUMENTS_prepare)
ARGUMENTS_notebook = $(call option,MESSAGE,message) $(FORCED)
ARGUMENTS_rehearse-notebook = $(ARGUMENTS_prepare)
FORCED = $(if $(filter 1,$(FORCE)),--force)

$(VERBS): | $(READY)
	@$(PODIUM) $@ $(OF) $(ARGUMENTS_$@)

estimate check-recipes show lr-find tune embed $(if $(RUN)$(DATA),verify): | prepare

# Trained runs and submissions stay. Files that are being written are younger than a minute.
clean:
	@rm -rf .cache .rehearsal competitions/.new-*
	@find $(wildcard .kernel oof models reports submissions competitions data/.*.tmp) -name '.*.tmp' -type f -mmin +1 -exec rm -f {} +
