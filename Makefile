# Each target alone does all the set-up that it needs, on a fresh machine with Python 3.11 or newer.
# `make PYTHON=/path/to/python3 ...` picks the Python of the environment.

PYTHON ?= python3
# Tried in this order, unless PYTHON was given.
ifeq ($(origin PYTHON),file)
PYTHONS := $(PYTHON) python3.13 python3.12 python3.11 python3.14
else
PYTHONS := $(PYTHON)
endif

VENV := .venv
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help tutorial lab test quick gpu lint format notebooks release site slides clean

help:
	@echo "make tutorial   set up, train and measure every part of EmoVLM-KD, execute the notebooks"
	@echo "make lab        open JupyterLab"
	@echo "make test       all tests, the slow ones too"
	@echo "make quick      the quick tests"
	@echo "make gpu        the tests that need CUDA, skipped where there is none"
	@echo "make lint       check style, imports' rule and budgets; make format mends what can be mended"
	@echo "make notebooks  build and execute the notebooks from their masters"
	@echo "make release    write the course as assignments for nbgrader into release/, check the whole website"
	@echo "make site       write the course as a website into site/ (REPOSITORY=owner/name, SOLUTIONS=1)"
	@echo "make slides     write the slides of the class of 90 minutes into site/slides/"
	@echo "make clean      remove caches and the generated scenes"

tutorial: $(VENV)/.installed
	$(PY) -m emokd_utils doctor
	$(PY) -m emokd_utils run
	$(PY) notebooks/build.py --run

lab: $(VENV)/.installed
	$(PY) -m jupyterlab notebooks/00_start_here.ipynb

test: $(VENV)/.installed-dev
	$(PY) -m pytest --slow --durations=10 -n 2 --maxschedchunk 2

quick: $(VENV)/.installed-dev
	$(PY) -m pytest -n 2

gpu: $(VENV)/.installed-dev
	$(PY) -m pytest --slow -rs tests/test_gpu.py

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) tests/test_house.py

format: $(VENV)/.installed-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

notebooks: $(VENV)/.installed-dev
	$(PY) notebooks/build.py

release: $(VENV)/.installed-dev
	$(PY) notebooks/build.py --release release
	EMOKD_RELEASE=1 $(PY) -m pytest --slow tests/test_site.py tests/test_dependencies.py

site: $(VENV)/.installed-dev
	$(PY) docs/make.py site site $(if $(REPOSITORY),--repository $(REPOSITORY)) $(if $(SOLUTIONS),--solutions)

slides: $(VENV)/.installed-dev
	$(PY) docs/make.py slides site/slides

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache .hypothesis
	rm -rf data/emoscenes/train data/emoscenes/val data/emoscenes/test data/emoscenes/metadata.csv data/emoscenes/scenes.json
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -print \
		| xargs rm -rf
	@echo "Kept: $(VENV)/ (the environment) and runs/ (trained models and results)."

# Installed anew when pyproject.toml changed since the last install.
$(VENV)/.installed: pyproject.toml $(PY)
	$(PY) -m pip install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(PY)
	$(PY) -m pip install --editable ".[dev]"
	@touch $(VENV)/.installed $@

$(PY):
	@for python in $(PYTHONS); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "$$python -m venv $(VENV)"; \
			"$$python" -m venv --clear $(VENV) && exit 0; \
			rm -rf $(VENV); \
			echo "$$python cannot make an environment (on Debian or Ubuntu: apt install python3-venv)." >&2; \
			exit 1; \
		fi; \
	done; \
	echo "Python 3.11 or newer is needed; tried: $(PYTHONS). If it is elsewhere: make PYTHON=/path/to/python3 ..." >&2; \
	exit 1
