# make up                   serve the embedded demo model
# make up MODEL=model.gguf  serve another one; ARGS="--port 9000" passes options on
# make test, make lint      what continuous integration runs
# make clean                remove the environment and caches

PYTHON ?= python3
MODEL ?=
ARGS ?=
BIN := .venv/bin

define setup
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "moestro needs Python 3.11 or newer as “$(PYTHON)”. Name another: make PYTHON=python3.12" >&2; \
  exit 1; }
@$(PYTHON) scripts/setup.py $(1)
endef

.PHONY: up test lint clean

up: .venv/.ready
	@$(BIN)/moestro up $(if $(MODEL),"$(MODEL)") $(ARGS)

test: .venv/.ready-dev
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

lint: .venv/.ready-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

.venv/.ready: pyproject.toml scripts/setup.py
	$(call setup,)

.venv/.ready-dev: pyproject.toml scripts/setup.py
	$(call setup,--dev)

clean:
	rm -rf .venv .venv-tools build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
