# Two commands do everything: `make up` starts the product, `make test` proves it.
# Needs make and a Python >= 3.11 with pip; uv is fetched when it is missing.

PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python
# The interpreter itself, never a shim: uv cannot look through the shims of version managers.
INTERPRETER = $(shell $(PYTHON) -c 'import sys; print(sys._base_executable or sys.executable)')
UV ?= $(shell command -v uv 2>/dev/null || echo $(VENV)-uv/bin/uv)

# What no database is used by; the rest of these folders is run with PostgreSQL, too.
WITHOUT_DATABASE := $(patsubst %,--ignore tests/integration/test_%.py,bell bus cell examples hostile hostile_ordinary hostile_probes monitor monitor_cells monitor_groups supervisor warden warden_deaths warden_held warden_ordinary warden_stops warden_upgrade warden_wire)
# What kills services, NATS and processes, and looks at what is left.
FAULTS := $(patsubst %,tests/integration/test_%.py,kill two_schedulers outbox stopping upgrade_runner warden warden_deaths warden_held warden_upgrade)

.PHONY: setup up test test-all test-cgroup2 test-compose images upgrade fault soak check format bench lock schemas wheel clean

setup: $(VENV)/.installed

up: setup
	@exec $(BIN)/openbell up $(ARGS)

# As many files at one time as there are processors.
test: setup
	@$(PY) -m pytest -n auto --dist loadfile -m "not cgroup2 and not compose and not compose_faults" $(ARGS)

test-all: test
	@OPENBELL_TEST_DATABASE=postgres $(PY) -m pytest -n auto --dist loadfile -m "not cgroup2" tests/integration tests/e2e $(WITHOUT_DATABASE) $(ARGS)
	@$(MAKE) test-compose

# Limits on a real cgroup v2 kernel, in a machine that QEMU emulates.
test-cgroup2: setup
	@$(PY) -m tests.cgroup2 $(ARGS)

# Openbell as docker compose runs it, and what it survives there.
test-compose: setup
	@$(PY) -m pytest -m "compose or compose_faults" tests/compose $(ARGS)

fault: setup
	@$(PY) -m pytest $(FAULTS) $(ARGS)
	@OPENBELL_TEST_DATABASE=postgres $(PY) -m pytest $(foreach one,$(FAULTS),$(if $(findstring warden,$(one)),,$(one))) $(ARGS)

# Strategies that start, crash and stop at random for minutes: nothing may grow.
soak: setup
	@$(PY) -m tests.soak $(or $(ARGS),--minutes 10)

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@for platform in Linux Windows Darwin; do echo "pyright $$platform"; \
	  PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonplatform $$platform || exit 1; done
	@$(BIN)/lint-imports

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup
	@$(PY) -m bench $(ARGS)

lock: $(UV)
	$(UV) pip compile -q --universal --generate-hashes --python-version 3.11 pyproject.toml \
	  --all-extras --group dev -o requirements.lock --custom-compile-command "make lock"

$(VENV)/.installed: requirements.lock pyproject.toml $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Openbell needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 up")'
	@test -x $(PY) || $(UV) venv -q --python "$(INTERPRETER)" $(VENV)
	@echo "installing Openbell into $(VENV) ..."
	@VIRTUAL_ENV=$(VENV) $(UV) pip install -q --compile-bytecode --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(UV) pip install -q --no-deps -e .
	@touch $@

$(VENV)-uv/bin/uv:
	@echo "fetching uv ..."
	@$(PYTHON) -m venv $(VENV)-uv
	@$(VENV)-uv/bin/python -m pip install -q --disable-pip-version-check \
	  "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"

schemas: setup
	@$(PY) -m openbell.contracts

wheel: setup
	@$(UV) build -q --wheel

# `make -j3 images TAG=1.2`; `make image-api` for one.
SERVICES := api scheduler runner calendar status
TAG ?= $(or $(OPENBELL_TAG),latest)
images: $(addprefix image-,$(SERVICES) warden)

image-%:
	@DOCKER_BUILDKIT=1 docker build -q -f deploy/Dockerfile --build-arg SERVICE=$* -t openbell/$*:$(TAG) .

# Of a running docker compose: everything but the warden, whose processes are the strategies.
upgrade: $(addprefix image-,$(SERVICES))
	@docker compose up -d --no-build --wait

clean:
	rm -rf $(VENV) $(VENV)-uv build dist
