# Every target builds the environment it needs: `make help`.

VENV ?= .venv
PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || command -v python3)
WORKERS ?= 2
PYTEST_ARGS ?=
SPHINX_ARGS ?=
EXAMPLES ?= $(sort $(wildcard examples/plot_*.py))

BIN := $(VENV)/bin
# Tests use a core per worker, so a worker's BLAS and OpenMP loops get one thread.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST = $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS)

export MPLBACKEND = Agg
export PIP_DISABLE_PIP_VERSION_CHECK = 1

OLDEST ?= .venv-oldest
OLDEST_TESTS ?= $(addprefix tests/,test_estimator_checks.py test_early_exit_checks.py \
	test_composable_head_checks.py test_routing.py test_thresholds.py test_stages.py test_out_of_fold.py \
	test_composition.py test_bad_input.py model_selection test_threads.py neural/test_net_stage.py \
	neural/test_tabular_net_input.py reporting)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-oldest wheel lint examples docs bench bench-quick clean \
	need-data

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo
	@echo 'VENV=folder puts the environment elsewhere (default .venv), PYTHON=... picks the interpreter,'
	@echo 'PYTEST_ARGS=... goes to pytest, SPHINX_ARGS=... to sphinx.'

# An environment holds one stamp per extra that is installed in it; a stamp is as good as the
# pyproject.toml and constraints.txt that it is newer than.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[$*]'
	@touch $@

demo: $(VENV)/.installed-$(if $(DATA),bench,plots)  ## the cascade on simulated transactions; DATA=file.parquet: on yours
	$(BIN)/python examples/plot_01_feedback_cascade.py $(if $(DATA),--data '$(DATA)')

test: $(VENV)/.installed-dev  ## tests and docstring examples, without the slow ones
	$(PYTEST) $(PYTEST_ARGS)

# pytest exits with 5 when it finds nothing to run, which is right as long as no test is slow.
test-slow: $(VENV)/.installed-dev  ## the statistical tests
	$(PYTEST) -m slow $(PYTEST_ARGS) || { rc=$$?; test $$rc -eq 5 && echo 'no slow tests'; }

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -c constraints-oldest.txt setuptools
	$(OLDEST)/bin/python -m pip install --quiet -c constraints-oldest.txt --no-build-isolation \
		-e '.[plots,tabm]' pandas polars pyarrow pytest pytest-xdist
	@touch $@

# The checks of the default cascade, which train nets, take minutes: `make test` runs them.
test-oldest: $(OLDEST)/.installed  ## tests with the oldest scikit-learn and skorch
	$(ONE_THREAD) $(OLDEST)/bin/python -m pytest -n $(WORKERS) $(OLDEST_TESTS) $(PYTEST_ARGS) \
		--deselect 'tests/test_estimator_checks.py::test_estimator_checks[FeedbackCascadeClassifier()-'

wheel: $(VENV)/.installed-dev  ## build the archives; install the wheel and test it outside the tree
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m zipfile -l dist/*.whl | grep -q '^skmsc/py.typed'
	! $(BIN)/python -m zipfile -l dist/*.whl | grep -q '^tests/'
	$(BIN)/python -m venv --without-pip --clear build/venv
	$(BIN)/python -m pip --python build/venv/bin/python install --quiet --no-deps --no-index dist/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$(echo build/venv/lib/python3*/site-packages)/shared.pth
	mkdir -p build/elsewhere
	tar xzf dist/*.tar.gz -C build/elsewhere --strip-components 1 --wildcards '*/tests' '*/pyproject.toml'
	cd build/elsewhere && $(ONE_THREAD) ../venv/bin/python -m pytest -q -p no:cacheprovider \
		tests/test_import.py tests/test_routing.py tests/test_thresholds.py tests/serving/test_archive.py

lint: $(VENV)/.installed-dev  ## ruff, the import contract, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

examples: $(VENV)/.installed-dev  ## run every examples/plot_*.py, without a screen
	@printf '%s\n' $(EXAMPLES) | $(ONE_THREAD) xargs -n 1 -P $(WORKERS) sh -c \
		'said=$$($(BIN)/python "$$0" 2>&1); rc=$$?; printf "== %s\n%s\n" "$$0" "$$said"; exit $$rc'

docs: $(VENV)/.installed-dev  ## the site in docs/_build/html, every example run; a warning is an error
	$(ONE_THREAD) $(BIN)/python -m sphinx -j $(WORKERS) -W --keep-going $(SPHINX_ARGS) -b html docs docs/_build/html

bench: need-data $(VENV)/.installed-bench  ## DATA=folder: the benchmarks on the data sets in that folder
	$(BIN)/python -m benchmarks.run --data '$(DATA)'

bench-quick: $(VENV)/.installed-bench  ## the same on a few simulated rows: shows that the code runs
	$(ONE_THREAD) $(BIN)/python -m benchmarks.run --quick

need-data:
	@test -n '$(DATA)' || { echo 'make bench needs DATA=folder, the folder with the data sets' >&2; exit 2; }

clean:  ## remove builds and caches, keep the environment
	rm -rf build dist docs/_build docs/gallery docs/reference/generated docs/sg_execution_times.rst
	rm -rf *.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(wildcard skmsc tests benchmarks examples) -name __pycache__ -type d -prune -exec rm -rf {} +
