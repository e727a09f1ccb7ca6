# The commands of the project. `make serve` and `make test` do all necessary set-up.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help serve test test-slow test-kill test-migrations test-faults test-fuzz test-fuzz-quick matrix check format bench bench-quick \
  bench-import lock sbom tools test-external clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# Each stamp is written last, so that an interrupted set-up is repeated.
.venv/run-time: requirements/base.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "shopassist needs Python 3.11 or later: make PYTHON=python3.12 …")'
	@echo "Setting up .venv"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv >/dev/null || { $(PYTHON) -m venv --clear --without-pip .venv && \
	  $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }  # Debian parts venv from pip
	@$(BIN)/pip install --quiet --require-hashes -r requirements/base.txt
	@$(BIN)/pip install --quiet --no-deps -e .
	@touch $@

.venv/development: .venv/run-time requirements/dev.txt
	@echo "Setting up what tests and checks need"
	@$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

serve: .venv/run-time  ## Serve on http://127.0.0.1:8000, with an embedded PostgreSQL unless DATABASE_URL is set
	@exec $(BIN)/shopassist serve --with-parent

test: .venv/development  ## Run the tests that need neither Debian packages nor root nor much time
	$(BIN)/pytest -n 2 -m "not external and not slow and not faults" $(ARGS)

test-slow: .venv/development  ## Run the tests that take long
	$(BIN)/pytest -n 2 -m "slow and not external and not faults" $(ARGS)

test-kill: .venv/development  ## Kill the server 100 times during questions: no credit lost, none spent twice
	KILL_ROUNDS=100 $(BIN)/pytest tests/faults/test_kill.py $(ARGS)

test-migrations: .venv/development  ## Migrate a million users up and down under writes: no lock wait over a second
	MIGRATED_USERS=1000000 $(BIN)/pytest tests/faults/test_migrations_under_load.py $(ARGS)

test-faults: .venv/development  ## Cause real faults on a server under load; writes build/faults.json
	$(BIN)/pytest -m "faults and not external" --timeout 300 $(ARGS)

check: .venv/development  ## Check lint, types, imports and schema drift
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	$(BIN)/pytest -q tests/architecture tests/db/test_migrations.py

# Installed separately, because it brings a plugin that every start of pytest would load.
.venv/fuzz: .venv/development requirements/fuzz.txt
	@echo "Setting up schemathesis"
	@$(BIN)/pip install --quiet --require-hashes -r requirements/fuzz.txt
	@touch $@

test-fuzz: .venv/fuzz  ## Run schemathesis with 5,000 requests on the whole API: no server error
	$(BIN)/python -m tests.support.fuzz $(ARGS)

test-fuzz-quick: .venv/fuzz  ## The same with 500
	$(BIN)/python -m tests.support.fuzz --cases 500 --examples 5 --seconds 120 $(ARGS)

matrix: .venv/development  ## Show which identity may use which route, and update docs/security.md
	@$(BIN)/python -m tests.support.access_matrix

bench: .venv/development  ## Measure speed compared with plain implementations; writes build/bench.json
	$(BIN)/python -m benchmarks.speed

bench-quick: .venv/development  ## The same, smaller, in under two minutes
	$(BIN)/python -m benchmarks.speed --quick

bench-import: .venv/development  ## Measure importing a million users and five million transactions
	$(BIN)/python -m benchmarks.state_import $(ARGS)

format: .venv/development  ## Format the code
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

lock: .venv/development  ## Pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" pyproject.toml -o requirements/base.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" -c requirements/base.txt pyproject.toml --group dev -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" -c requirements/dev.txt pyproject.toml --group tracing -o requirements/tracing.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" -c requirements/base.txt -c requirements/dev.txt --group fuzz -o requirements/fuzz.txt

sbom: .venv/development  ## Write the software bill of materials to build/sbom.cdx.json
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements requirements/base.txt --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --of JSON -o build/sbom.cdx.json

tools:  ## Install the Debian packages that `make test-external` needs
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql pgbouncer redis-server nginx
	@mkdir -p build/tools  # unpacked only: installed, Prometheus would be started
	cd build/tools && apt-get download -qq prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool

test-external: .venv/development  ## Run the tests that need Debian packages or root; a skip is a failure
	$(BIN)/pytest -m external --no-skips --timeout 300 $(ARGS)

clean:  ## Remove the environment and everything built, but not the data
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
