# `make demo` and `make test` are all the set-up there is: Linux, git, make and Python 3.11.
PYTHON ?= python3.11
VENV := .venv
NEWEST := .venv-newest
# Tests that import the library and nothing of agm.pipeline.
LIBRARY_TESTS := tests/test_battery.py tests/test_library.py tests/test_masks.py tests/test_competition.py tests/test_intervals.py
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Many short processes import the same modules: they are compiled once, whatever the user's shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test numerical newest heavy experiments lock lint

install: $(VENV)/installed  ## build .venv from requirements.lock

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[^ ]*' requirements.lock)"
	@# Bytecode now: importing torch without it takes twice as long, in each of many short jobs.
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	touch $@

demo: install  ## make the demo data, run the whole DAG, print the result table
	agm compose study=demo
	snakemake
	agm record
	@echo && cat reports/summary.txt

test: install  ## the tests, without the heavy ones
	@# A file is one process's: what its tests share is made once.
	pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not heavy"

numerical: install  ## the numerical tests with the kernels of another processor
	@# Other kernels sum in another order: the last bit of a sum must not decide anything.
	ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE \
	  pytest -n 2 --dist loadfile --no-loadscope-reorder -m "numerical and not heavy"

newest: install  ## the library's tests with the newest torch that installs, in an environment of its own
	@# About 3 GB to download and 6 GB on disk: the wheels of torch bring CUDA.
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(NEWEST)
	$(BIN)/uv pip install --quiet --python $(NEWEST)/bin/python torch --requirement pyproject.toml \
	  --extra encoders --extra metrics hypothesis pytest pytest-timeout pytest-xdist
	@$(BIN)/uv pip list --python $(NEWEST)/bin/python | grep -E "^(torch|torchvision|numpy|scipy|scikit-learn) "
	OMP_NUM_THREADS=1 PYTHONPATH=src $(NEWEST)/bin/python -m pytest -n 2 -m "not heavy" $(LIBRARY_TESTS)

heavy: install  ## the tests that need system services or many minutes
	@# Three at a time, because they wait much: for SLURM, for the disk, for one another.
	pytest -n 3 --dist loadfile --no-loadscope-reorder -m heavy --timeout=1800 --durations=10

experiments: install  ## the experiments side by side, only the columns in which they differ
	@# As Markdown, because the other table drops the ends of names to fit the terminal.
	@dvc exp show --only-changed --drop '.*/|.*\.d_' --keep '.*\.(accuracy|starvation)$$' --md

lock: install  ## resolve the dependencies of all extras
	uv pip compile pyproject.toml --all-extras --constraint constraints.txt --python-version 3.11 \
	  --no-emit-index-url --generate-hashes --no-annotate --output-file requirements.lock

lint: install  ## style, types, and Snakemake's own linter
	ruff check
	ruff format --check
	mypy
	lint-imports
	snakemake --lint
