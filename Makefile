# make run, make test, make lint, make bench: each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000

.PHONY: run test soak lint bench format clean

run: $(VENV)/.run
	$(BIN)/python manage.py migrate --verbosity 0
	$(BIN)/python manage.py runserver $(HOST):$(PORT)

# Files in their own order: xdist would keep those of few tests for the end, and they are the slowest.
test: $(VENV)/.dev tests/clients/node_modules tests/conformance/node_modules benchmarks/node_modules chromium
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --ignore=tests/faults/test_storm.py
	$(BIN)/python -m pytest tests/faults/test_storm.py  # by itself: it says how soon readers are told
endif

# Servers killed with -9, SOAK_ROUNDS times under 50 writers and as often under 50 answers; the test run does it ten times.
soak: $(VENV)/.dev tests/clients/node_modules
	SOAK_ROUNDS=$(or $(SOAK_ROUNDS),2000) $(BIN)/python -m pytest -s tests/streams/test_kill.py tests/faults/test_storm.py

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/djlint --quiet --check --lint templates durable_chat/templates durable_chat/streams/embedded/templates
	$(BIN)/python manage.py makemigrations --check --dry-run

bench: $(VENV)/.dev benchmarks/node_modules
	$(BIN)/python -m benchmarks $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	-$(BIN)/djlint --quiet --reformat templates durable_chat/templates durable_chat/streams/embedded/templates

clean:
	rm -rf $(VENV) tests/clients/node_modules tests/conformance/node_modules benchmarks/node_modules

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
		|| { echo "$(PYTHON) is too old: name a Python 3.11 to 3.13, as in: make run PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Not `npm ci`: it refuses a registry that lacks the optional binaries of other platforms. The lock is kept all the same.
benchmarks/node_modules: benchmarks/package.json benchmarks/package-lock.json
	npm install --prefix benchmarks --no-save --no-audit --no-fund --loglevel=error
	@touch $@

tests/%/node_modules: tests/%/package.json tests/%/package-lock.json
	npm ci --prefix tests/$* --no-audit --no-fund --loglevel=error
	@touch $@

# The system's browser: Playwright's own download is not needed.
.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
		|| { SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); $$SUDO apt-get update -qq \
		&& $$SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium >/dev/null; }
