# make run    a mail server to try things out, on loopback, with its data in ./var
# make test   everything that can be tested here
# make soak   processes and networks that fail under load, for ten minutes each; SOAK_SECONDS, SOAK_SEED and SOAK_ACCESS change that
# make bench  the benchmarks
# make lint   style, types and layers
# make lock   requirements*.lock anew from setup.cfg
# make clean  remove what the others made, but not ./var
#
# Needed beforehand: make, and python3 of version 3.11 or later with its venv module.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA := var
COMPILE := pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --annotation-style=line \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --extra build

.PHONY: run test soak bench lint lock clean
.DELETE_ON_ERROR:

# The second start changes nothing and shows where everything is.  exec: Ctrl-C and SIGTERM reach the server itself.
run: $(VENV)/.runtime
	@$(BIN)/forwardemail init --data $(DATA) --development --example
	@exec $(BIN)/twistd --nodaemon --pidfile= forwardemail --config $(DATA)/forwardemail.toml

test: $(VENV)/.tests
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest

soak: $(VENV)/.tests
	@SOAK_SECONDS=$${SOAK_SECONDS:-600} SOAK_SEED=$${SOAK_SEED:-$$$$} $(BIN)/python -m pytest -s tests/soak/test_soak.py

bench: $(VENV)/.tests
	@$(BIN)/python -m bench

lint: $(VENV)/.tests
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict
	@$(BIN)/lint-imports --no-logo

lock:
	@$(PYTHON) -m venv --clear .lock-venv
	@.lock-venv/bin/pip --quiet install pip-tools
	@.lock-venv/bin/$(COMPILE) --output-file requirements.lock setup.cfg
	@.lock-venv/bin/$(COMPILE) --extra test --extra lint --constraint requirements.lock --output-file requirements-test.lock setup.cfg
	@sed -i '1i # Made by `make lock` from setup.cfg; installed with --require-hashes.' requirements.lock requirements-test.lock
	@rm -rf .lock-venv

clean:
	@rm -rf $(VENV) .lock-venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# What is there already is not asked for again.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "python3 lacks its venv module (Debian: apt install python3-venv)"; exit 1; }

# The checkout itself comes in by a .pth file (editable_mode=compat), since twistd looks for plugins along sys.path.
$(VENV)/.runtime: requirements.lock setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing the locked requirements, a minute the first time ..."
	@$(BIN)/python -m pip --disable-pip-version-check install -qq --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip --disable-pip-version-check install -qq --no-deps --no-build-isolation \
		--config-settings editable_mode=compat --editable .
	@touch $@

$(VENV)/.tests: requirements-test.lock $(VENV)/.runtime
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip --disable-pip-version-check install -qq --require-hashes --only-binary :all: -r requirements-test.lock
	@touch $@
