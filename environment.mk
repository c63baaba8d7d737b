# $(VENV) is made by uv from requirements.lock. $(VENV)/ready is written last and holds TORCH_BACKEND.
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
ifneq ($(filter-out help clean,$(or $(value MAKECMDGOALS),help)),)
ifeq ($(FOUND_PYTHON),)
$(error Podium needs Python 3.11 or newer; looked for $(filter-out $(VENV)/%,$(CANDIDATES)))
endif
endif

# The environment is made again if its Python is gone or another TORCH_BACKEND is wanted.
REMAKE := $(if $(or $(filter-out $(PYTHON),$(FOUND_PYTHON)),$(filter-out $(TORCH_BACKEND),$(INSTALLED_BACKEND)),\
	$(filter-out $(INSTALLED_BACKEND),$(TORCH_BACKEND))),yes)

setup: | $(READY)
	@echo "The environment is ready: $(PYTHON)"

lock: | $(READY)
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(PYTHON) -m uv pip compile --quiet --universal \
		--python-version 3.11 --generate-hashes --extra dev --extra onnx --extra weights $(LOCK_OPTIONS) --output-file requirements.lock pyproject.toml

$(VENV)/ready: requirements.lock pyproject.toml $(if $(REMAKE),FORCE)
	@fail() { printf '%s\n' "$$@" >&2; exit 1; }
	echo "Making $(VENV) from requirements.lock: the first time several gigabytes and a few minutes."
	rm -f $@
	uv=$$(command -v uv) && uv --version >/dev/null 2>&1 || uv=
	if [[ -n "$(REMAKE)" || ! -x $(VENV)/bin/python ]]; then
		python=$$("$(FOUND_PYTHON)" -c 'import sys; print(sys._base_executable)') # exists after $(VENV) is removed
		rm -rf $(VENV)
		if [[ -n $$uv ]]; then
			uv venv --quiet --python "$$python" $(VENV)
		else
			error=$$("$$python" -m venv $(VENV) 2>&1) || { rm -rf $(VENV); fail \
				"$$python cannot make a virtual environment." "  found:    $$(head -n 1 <<<"$$error") ..." \
				"  fix:      install Python's venv (Debian, Ubuntu: apt install python3-venv), or install uv"; }
		fi
	fi
	if [[ -z $$uv ]]; then
		uv=$(VENV)/bin/uv
		$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
			--requirement <(sed -n '/^uv==/,/[^\\]$$/p' requirements.lock)
	fi
	into=(--python $(VENV)/bin/python)
	if [[ -z "$(TORCH_BACKEND)" ]]; then
		"$$uv" pip sync "$${into[@]}" --require-hashes --compile-bytecode requirements.lock 2>&1 | sed '/^ [-+~] /d'
	else # other builds have other hashes and other dependencies, so that the lock only gives the versions
		"$$uv" pip install "$${into[@]}" --quiet --compile-bytecode --torch-backend "$(TORCH_BACKEND)" \
			--constraint requirements.lock --requirement pyproject.toml --extra dev --extra onnx --extra weights 2>$(VENV)/setup.log || fail \
			"torch's '$(TORCH_BACKEND)' builds cannot be downloaded." "  found:    see $(VENV)/setup.log" \
			"  fix:      make setup TORCH_BACKEND=, which takes the locked builds"
	fi
	"$$uv" pip install "$${into[@]}" --quiet --no-deps --no-build-isolation --editable .
	printf '%s\n' "$(TORCH_BACKEND)" >$@
