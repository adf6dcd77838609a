# Everything a newcomer needs: `make demo` and `make test` do their own set-up.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.banditloop-installed
# Four files at a time on two cores: half of their time is waiting. One thread each for linear algebra.
PARALLEL = -n 4 --dist loadfile --no-loadscope-reorder
export OPENBLAS_NUM_THREADS = 1
export OMP_NUM_THREADS = 1
# pip compiles every module of every package, on one core: more than half of the install. Python compiles the few
# it imports, when it first imports them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test thorough check docs reference chaos cluster-redis cluster-test console-test partitions vw-arguments bench cost lint unit wheel dockerfile lock clean
.DEFAULT_GOAL := check

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v[:2] < (3, 13) and "banditloop needs Python 3.11 or 3.12, this is %d.%d: make PYTHON=python3.11" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q --no-compile -c constraints.txt -e '.[train,dev,docs]'
	$(BIN)/python -m bandits.kernels.ahead
	@touch $@

demo: $(READY)
	$(BIN)/banditloop demo $(ARGS)

check: lint unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -n 2
	$(BIN)/lint-imports

# The site, in build/site: fails on a link or an anchor that leads nowhere.
docs: $(READY)
	$(BIN)/zensical build --clean --strict

# Writes the reference pages that follow from the code, and names those that have changed.
reference: $(READY)
	$(BIN)/python docs/reference/generate.py

unit: $(READY)
	$(BIN)/pytest -q $(PARALLEL) tests/unit tests/contract

# The clusters of the first part wait most of the time, so that others have the processor. The cases of the API's document
# are made by each process that collects them: hence in the second part.
test: $(READY)
	$(BIN)/pytest -q $(PARALLEL) -m "not slow" tests/cluster tests/integration tests/statistical tests/contract tests/unit --ignore tests/integration/test_openapi.py
	$(BIN)/pytest -q -n 4 --dist loadfile -m "not slow" tests/e2e tests/integration/test_openapi.py

# All cases but those of whole services, on Redis as on Valkey, and what is slow: an hour.
thorough: $(READY)
	BANDITLOOP_THOROUGH=1 BANDITLOOP_TEST_SERVERS=valkey,redis $(BIN)/pytest -q $(PARALLEL) tests/integration tests/statistical tests/contract tests/unit

# What make test does with the console, and axe-core on each of its pages in light, in dark and on a phone: minutes. Pictures in build/console.
console-test: $(READY)
	mkdir -p build/console
	BANDITLOOP_EVERY_PAGE=1 $(BIN)/pytest -q tests/e2e/test_console.py

cluster-test: $(READY)
	$(BIN)/pytest -q -s tests/cluster tests/e2e tests/integration/test_train_command.py -m "cluster or slow"

chaos: $(READY)
	$(BIN)/python tests/chaos/run.py $(ARGS)

# The commands are those of one server; what only one server can show (its own counters) is left out.
cluster-redis: $(READY)
	BANDITLOOP_TEST_SERVERS=cluster $(BIN)/pytest -q $(PARALLEL) tests/contract/test_event_log.py \
	    tests/integration/test_redis.py tests/integration/test_learner.py tests/integration/test_archiver.py \
	    tests/integration/test_doctor.py tests/integration/test_partitions.py tests/integration/test_redis_cluster.py \
	    tests/integration/test_users.py tests/integration/test_user_copies.py tests/integration/test_user_export.py \
	    tests/integration/test_large_blobs.py \
	    -k "not share and not whichever_call_fails"

partitions: $(READY)
	BANDITLOOP_EVERY_FAULT=1 $(BIN)/pytest -q $(PARALLEL) tests/unit/policies/fold/test_partition.py tests/integration/test_partitions.py
	BANDITLOOP_EVERY_FAULT=1 $(BIN)/pytest -q -s tests/e2e/test_partitions.py

# Every set of VW's arguments that is accepted finds the best of three actions: five minutes.
vw-arguments: $(READY)
	BANDITLOOP_THOROUGH=1 BANDITLOOP_EVERY_ARGUMENT=1 $(BIN)/pytest -q -n 2 tests/statistical/test_vw_arguments.py

# The processor time of a rank beside that of an earlier build, in its short form: fails what surely costs more.
cost: $(READY)
	$(BIN)/python -m benchmarks.serving.cost --quick $(ARGS)

bench: $(READY)
	$(BIN)/python -m benchmarks.run

# From scratch: setuptools takes whatever an earlier build left in build/. The test builds another, installs it in a
# fresh environment and runs its commands in an empty folder.
wheel: $(READY)
	rm -rf build dist
	$(BIN)/pip wheel -q --no-deps -w dist .
	$(BIN)/pytest -q tests/e2e/test_wheel.py

# Each instruction of deploy/Dockerfile in a chroot, then the image: as root, with debootstrap and iproute2. Minutes.
dockerfile: $(READY)
	$(BIN)/python tests/support/dockerfile.py

lock: $(READY)
	$(BIN)/pip install -q --upgrade -e '.[train,dev,docs,text]'
	(echo '# The whole closure, tested together. Regenerate: make lock'; $(BIN)/pip freeze --exclude-editable | sed 's/^torch==.*/torch==2.13.0/') > constraints.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
