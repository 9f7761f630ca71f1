# Every action of the project; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON := .venv/bin/python
# One stamp for each content of the lock: a changed lock is installed, an unchanged one costs nothing.
VENV := .venv/installed-$(shell sha256sum requirements.lock | cut -c1-16)

# Two at once, since tests wait most of the time; what shares something stays in one lane (tests/conftest.py).
LANES := -n 2 --dist loadscope --no-loadscope-reorder --durations 15

.PHONY: help demo up down status test test-fast check bench lock datasets cluster-setup

help: ## list the actions
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV) ## evaluate a real model from start to scores (ENDPOINT=, MODEL=, DATASET= for your own; key in OPENAI_API_KEY)
	@$(PYTHON) -m dev.demo

up: $(VENV) ## bring the local stack up: Redis, Dapr, Kubernetes, the engine image, a model
	@$(PYTHON) -m dev up

down: $(VENV) ## stop the stack; leave no process, mount or network behind (data and caches stay)
	@$(PYTHON) -m dev down

status: $(VENV) ## show every part of the stack
	@$(PYTHON) -m dev status

test: check ## all tests against real parts; brings the stack up before and down after
	@set -o pipefail; trap '$(PYTHON) -m dev down' EXIT; \
	  $(PYTHON) -m dev up && $(PYTHON) -m pytest $(LANES) $(ARGS)

test-fast: $(VENV) ## the unit tests: no stack, no root
	@$(PYTHON) -m pytest -n 2 tests/unit $(ARGS)

check: $(VENV) ## style, types, import contracts, playbooks, YAML, and manifests by a real API server
	@$(PYTHON) -m dev.check

bench: $(VENV) ## measure what the README states
	@$(PYTHON) -m dev up redis dapr api
	@$(PYTHON) -m benchmarks $(ARGS)

lock: $(VENV) ## pin the newest versions that pyproject.toml allows
	@$(PYTHON) -m pip install -q uv
	@UV_CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/uv pip compile -q -U pyproject.toml --all-extras --generate-hashes --no-emit-index-url --python-version 3.11 -o requirements.lock
	@UV_CUSTOM_COMPILE_COMMAND="make lock" .venv/bin/uv pip compile -q pyproject.toml --extra postgresql --generate-hashes --no-emit-index-url --python-version 3.11 -c requirements.lock -o requirements-service.lock

cluster-setup: $(VENV) ## give the cluster of KUBECONFIG what the service needs there
	@$(PYTHON) -m dev cluster-setup

datasets: $(VENV) ## put published data sets onto the local volume (NAMES="siqa_gen ..."; all without)
	@$(PYTHON) -m dev.datasets install $(NAMES)

$(VENV): requirements.lock
	@command -v python3 >/dev/null || { echo "Python 3.11 or later is needed"; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed, and python3 is $$(python3 --version)"; exit 1; }
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { apt-get -q update && apt-get -q -y install --no-install-recommends python3-venv; }
	@python3 -m dev.virtualenv $@
