# How $(VENV) is made: by uv, from requirements.lock. $(VENV)/ready is written last and holds TORCH_BACKEND.

# A Python that was upgraded away leaves an environment that does not run; another backend needs another torch.
REMAKE := $(if $(or $(filter-out $(PYTHON),$(FOUND_PYTHON)),$(filter-out $(TORCH_BACKEND),$(INSTALLED_BACKEND)),\
	$(filter-out $(INSTALLED_BACKEND),$(TORCH_BACKEND))),yes)

$(VENV)/ready: requirements.lock pyproject.toml $(if $(REMAKE),FORCE)
	@fail() { printf '%s\n' "$$@" >&2; exit 1; }
	echo "Making $(VENV) from requirements.lock: the first time several gigabytes and a few minutes."
	rm -f $@
	uv=$$(command -v uv) && uv --version >/dev/null 2>&1 || uv=
	if [[ -n "$(REMAKE)" || ! -x $(VENV)/bin/python ]]; then
		python=$$("$(FOUND_PYTHON)" -c 'import sys; print(sys._base_executable)') # outlives what is removed now
		rm -rf $(VENV)
		if [[ -n $$uv ]]; then
			uv venv --quiet --python "$$python" $(VENV)
		else
			said=$$("$$python" -m venv $(VENV) 2>&1) || { rm -rf $(VENV); fail \
				"$$python cannot make a virtual environment." "  found:    $$(head -n 1 <<<"$$said") ..." \
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
	else # other builds have other hashes and other dependencies, so that the lock only says which versions
		"$$uv" pip install "$${into[@]}" --quiet --compile-bytecode --torch-backend "$(TORCH_BACKEND)" \
			--constraint requirements.lock --requirement pyproject.toml --extra dev 2>$(VENV)/setup.log || fail \
			"torch's '$(TORCH_BACKEND)' builds cannot be had: is their index reachable? ($(VENV)/setup.log; \`make setup TORCH_BACKEND=\` takes the locked builds)"
	fi
	"$$uv" pip install "$${into[@]}" --quiet --no-deps --no-build-isolation --editable .
	printf '%s\n' "$(TORCH_BACKEND)" >$@
