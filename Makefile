# make demo: the main job on a scene that comes with the package.   make test: everything that CI checks.
# Both set up a virtual environment of their own; PYTHON and VENV say from which interpreter and where.

PYTHON ?= python3
VENV ?= .venv
SOURCES := pyproject.toml data_catalog.yaml $(shell find geoseg -type f -not -path '*/__pycache__/*')
INSTALL = "$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check

.PHONY: demo test clean

demo: $(VENV)/.installed
	"$(VENV)/bin/geoseg" demo demo/

test: $(VENV)/.installed-test
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/mypy"
	"$(VENV)/bin/pytest" -q -n auto --maxprocesses 4

clean:
	rm -rf "$(VENV)" demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find geoseg tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(PYTHON) -m venv "$(VENV)"

$(VENV)/.installed: $(SOURCES) | $(VENV)/bin/python
	@echo "Installing geoseg and what it needs into $(VENV); the first time takes minutes and some GB."
	$(INSTALL) ".[cpu]"
	@touch "$@"

$(VENV)/.installed-test: $(SOURCES) | $(VENV)/bin/python
	@echo "Installing geoseg and what its tests need into $(VENV); the first time takes minutes and some GB."
	$(INSTALL) ".[test]"
	@touch "$(VENV)/.installed" "$@"
