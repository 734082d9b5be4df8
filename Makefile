# `make demo` and `make test` need git, make and Python 3.11 or newer with venv; everything else they fetch themselves.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(shell command -v uv 2>/dev/null)

# uv is faster where it is there, and never required.
ifeq ($(UV),)
MAKE_VENV = $(PYTHON) -m venv $(VENV)
INSTALL   = $(BIN)/python -m pip install --quiet --disable-pip-version-check
else
MAKE_VENV = $(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
INSTALL   = VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip install --quiet
endif

RUNTIME := $(VENV)/.runtime
DEV     := $(VENV)/.dev

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: demo
demo: $(RUNTIME) ## Send two bulk jobs through OAuth on this machine and show what became of everyone
	@$(BIN)/tocsin demo

.PHONY: test
test: lint types unit ## Run every gate
	@echo "Four groups of tests with real servers run side by side; each tells its outcome when it is done."
	@$(MAKE) --no-print-directory --jobs=4 --output-sync=target integration acceptance operating recovery

.PHONY: lint
lint: $(DEV) ## Check style and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

.PHONY: types
types: $(DEV) ## Check types
	$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: unit
unit: $(DEV) ## Tests without I/O
	$(BIN)/pytest tests/unit

.PHONY: integration
integration: $(DEV) ## Tests against a real Postgres, RabbitMQ and SMTP
	$(BIN)/pytest tests/integration

OPERATING := $(wildcard tests/acceptance/test_commands_*.py) $(foreach subject,alerts backup_restore docs_commands \
    health metrics scaling traces_and_logs upgrading,tests/acceptance/test_$(subject).py)

.PHONY: operating
operating: $(DEV) ## Tests of what operators work with: the commands, alerts, upgrades, backups, scaling
	$(BIN)/pytest $(OPERATING)

.PHONY: acceptance
acceptance: $(DEV) ## Tests of the whole, from the job to the mail
	$(BIN)/pytest $(filter-out $(OPERATING),$(wildcard tests/acceptance/test_*.py))

.PHONY: recovery
recovery: $(DEV) ## Tests that kill, freeze and break things (a short form of `faults` among them)
	$(BIN)/pytest tests/acceptance/faults

.PHONY: soak
soak: $(DEV) ## Send over ten lifetimes of a 30 s token, and break a fleet's sign-in (7 minutes; `test` has a short form)
	TOCSIN_TEST_LONG=1 $(BIN)/pytest tests/acceptance/test_token_fleet.py

.PHONY: faults
faults: $(DEV) ## Break everything under load and account for every recipient (25 minutes; `test` has a short form)
	TOCSIN_TEST_LONG=1 $(BIN)/pytest -s tests/acceptance/faults/test_faults.py tests/acceptance/faults/test_recovery.py

.PHONY: fleet
fleet: $(DEV) ## Hold a fleet to a mailbox's limits, and let it grow and shrink (18 minutes; `test` has a short form)
	TOCSIN_TEST_LONG=1 $(BIN)/pytest -s tests/acceptance/test_fleet_budget.py tests/acceptance/test_scaling.py

.PHONY: docs
docs: $(DEV) ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: format
format: $(DEV) ## Put the code into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: schema
schema: $(DEV) ## Write schema.sql anew from the migrations
	$(BIN)/python -m tests.servers.schema_dump > schema/tocsin_schema/ledger/schema.sql.new
	mv schema/tocsin_schema/ledger/schema.sql.new schema/tocsin_schema/ledger/schema.sql

.PHONY: dist
dist: $(DEV) ## Build wheel and sdist
	$(BIN)/python -m build --no-isolation --outdir dist .

.PHONY: lock
lock: ## Resolve the locked dependencies anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" --extra embedded --extra tracing --group build pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" --extra embedded --extra tracing --group dev -c requirements.lock \
	    pyproject.toml -o requirements-dev.lock

.PHONY: clean
clean: ## Remove everything that was made here
	rm -rf $(VENV) .cache dist build site .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Tocsin needs Python 3.11 or newer; '$(PYTHON)' is `$(PYTHON) --version`. Try: make PYTHON=python3.12"; exit 1; }
	$(MAKE_VENV)

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@
