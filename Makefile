# `make` shows the targets. Everything runs in $(VENV), made with the first suitable interpreter, or with PYTHON=... .
VENV ?= .venv
CANDIDATES = $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3)
SUITABLE = import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTEST = $(VENV)/bin/python -m pytest
# A file stays on one worker, so what it compiled is compiled once. Four workers also on two cores: compiled code stays for the life of a
# process, and so each holds less of it.
WORKERS = -n 4 --dist loadfile
LINTED = staticgrad kernels tests benchmarks examples setup.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv install demo test lint format bench latency golden clean FORCE

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=...  the interpreter (3.11 to 3.13; otherwise the first suitable of python3.13 python3.12 python3.11 python3)"
	@echo "  VENV=...    the virtual environment (.venv)"
	@echo "  FLAGS=...   more arguments for the demo, pytest or the benchmark"

demo: $(VENV)/.installed-examples ## train a small network on handwritten digits: the main job
	$(VENV)/bin/python -m staticgrad demo $(FLAGS)

test: $(VENV)/.installed-dev ## run the whole test suite
	$(PYTEST) $(WORKERS) $(FLAGS)

lint: $(VENV)/.installed-dev ## check style, formatting and types
	$(VENV)/bin/ruff check $(LINTED)
	$(VENV)/bin/ruff format --check $(LINTED)
	@# mypy cannot follow `__path__`: show it the package as it is shipped, with kernels/ inside.
	@rm -rf build/types && mkdir -p build/types/staticgrad
	@ln -s $(addprefix ../../../,$(wildcard staticgrad/*)) ../../../kernels build/types/staticgrad/
	cd build/types && $(abspath $(VENV))/bin/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p staticgrad

format: $(VENV)/.installed-dev ## format the code and apply the safe fixes
	$(VENV)/bin/ruff check --fix $(LINTED)
	$(VENV)/bin/ruff format $(LINTED)

bench: $(VENV)/.installed-dev ## compare with graphs rebuilt at every pass (pip install -e '.[bench]' adds PyTorch, PyTensor, CasADi)
	$(VENV)/bin/python benchmarks/static_vs_dynamic.py $(FLAGS)

latency: $(VENV)/.installed-dev ## time single calls, compiling and new processes, beside the packages of the extra bench
	$(VENV)/bin/python benchmarks/latency.py $(FLAGS)

golden: $(VENV)/.installed-dev ## write tests/golden/ anew; read the diff before you commit it
	$(PYTEST) --update-golden $(FLAGS)

venv: $(VENV)/bin/python ## make the virtual environment only

install: $(VENV)/.installed-dev ## install staticgrad there, editable, with everything a developer needs

clean: ## remove what make, pytest and the build left (the virtual environment too)
	rm -rf $(VENV) build dist demo_output lessons_output *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find staticgrad kernels tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is made anew when it does not work, or when PYTHON names another interpreter than the one it was made with.
IDENTITY = import pip, sys; print(sys.base_prefix, sys.version)
FOUND := $(shell $(VENV)/bin/python -c '$(IDENTITY)' 2>/dev/null)
WANTED := $(if $(PYTHON),$(shell "$(PYTHON)" -c '$(IDENTITY)' 2>/dev/null),$(FOUND))
ifneq ($(FOUND),$(or $(WANTED),nothing))
$(VENV)/bin/python $(VENV)/.installed-examples $(VENV)/.installed-dev: FORCE
endif

# Each candidate is run, not only looked up: a pyenv shim exists for versions that are not there.
$(VENV)/bin/python:
	@for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c '$(SUITABLE)' >/dev/null 2>&1; then \
	        echo "Making $(VENV) with $$candidate"; \
	        exec "$$candidate" -m venv --clear $(VENV); \
	    fi; \
	done; \
	echo "No suitable Python among:" $(CANDIDATES) >&2; \
	echo "staticgrad needs Python 3.11, 3.12 or 3.13 with its venv and ensurepip modules (Debian and Ubuntu: the package python3-venv)." >&2; \
	echo "Install one of them, or name it: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)" >&2; \
	exit 1

$(VENV)/.installed-%: pyproject.toml setup.py | $(VENV)/bin/python
	@echo "Installing staticgrad[$*] and what it needs into $(VENV) (a few minutes the first time)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@$(if $(filter dev,$*),touch $(VENV)/.installed-examples)
	@touch $@
