# Mammoseq: `make help` lists every verb.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
SERVE := .venv/serve
DEV := .venv/dev
PEERS := $(patsubst benchmarks/peers/requirements/%.txt,%,\
  $(wildcard benchmarks/peers/requirements/*.txt))

# As in tests/test_static.py
NOT_OURS := '^model_store/|^requirements/|package-lock\.json$$|^app/web/vendor/|\.baseline$$'

.DEFAULT_GOAL := help
.PHONY: secrets
.PHONY: help serve bridge test test-long soak fuzz docs bench capacity peers peers-install train export
.PHONY: screenshots vendor sign requirements cluster-check checkov clean
.PHONY: wheels image image-check image-reproducible sbom

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

serve: $(SERVE)/.done ## install what serving needs, then serve on http://127.0.0.1:8000
	$(SERVE)/bin/python -m app

bridge: $(SERVE)/.done ## connect a PACS with the service (docs/bridge.md)
	$(SERVE)/bin/python -m app.bridge

test: $(DEV)/.done ## install everything, then lint, types and all tests
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/python -m pytest

test-long: $(DEV)/.done ## the tests that are left out there, since they take long
	$(DEV)/bin/python -m pytest -m long

soak: $(DEV)/.done ## mixed load, then studies while all parts are killed, MINUTES=30 of each; OUTAGE=60
	$(DEV)/bin/python -m tests.survive.soak $(or $(MINUTES),30)
	$(DEV)/bin/python -m tests.bridge.soak $(or $(MINUTES),30)
	$(if $(OUTAGE),$(DEV)/bin/python -m tests.bridge.outage $(OUTAGE))

fuzz: $(DEV)/.done ## mutate files of every kind, CASES=200000 of them: only refusals, no crash
	$(DEV)/bin/python -m tests.fuzz_decode --cases $(or $(CASES),200000)

docs: $(DEV)/.done ## write the reference tables of docs/, and the alerts for the Operator
	$(DEV)/bin/python -m docs.reference
	$(DEV)/bin/python -m docs.prometheus_rule

BENCHMARKS := overhead decode series start memory overload

bench: $(DEV)/.done ## what everything costs, side by side (docs/benchmarks.md)
	$(foreach name,$(BENCHMARKS),$(DEV)/bin/python -m benchmarks.$(name) && ) true

capacity: $(DEV)/.done ## three replicas behind haproxy against the model in docs/performance.md
	$(DEV)/bin/python -m benchmarks.replicas

peers: $(DEV)/.done ## other ways of serving the same model beside the service (half an hour)
	-$(MAKE) --keep-going peers-install
	$(DEV)/bin/python -m benchmarks.peers

peers-install: $(PEERS:%=.venv/peers/%/.done) ## install what it is compared with

screenshots: $(DEV)/.done ## take the pictures of the page in docs/images (needs Chromium)
	$(DEV)/bin/python -m docs.screenshots

secrets: $(DEV)/.done ## write anew what looks like a secret and is none: look at the difference
	$(DEV)/bin/python -m detect_secrets scan --exclude-files $(NOT_OURS) > .secrets.new
	mv .secrets.new .secrets.baseline

vendor: ## fetch the page's libraries from npm as pinned in app/web/vendor (needs npm)
	$(PYTHON) -m docs.vendored

train: $(DEV)/.done ## train the default model (hours); data as docs/training.md says
	$(DEV)/bin/python -m training fit --config training/configs/fit.toml

export: $(DEV)/.done ## export runs/default to TO=model_store/<name>/<version>
	$(DEV)/bin/python -m export --model runs/default --to $(TO)

sign: $(DEV)/.done ## sign BUNDLE=model_store/<name>/<version> with KEY=private.pem
	$(DEV)/bin/python -m export sign --bundle $(BUNDLE) --key $(KEY)

wheels: ## fetch what the image installs, so that its build needs no package index
	k8s/fetch_wheels.sh

image: ## build the container image, VARIANT=cpu or cuda (docs/deploy.md)
	k8s/build_image.sh

image-check: $(DEV)/.done ## build it and run it as a cluster would
	MAMMOSEQ_REAL_PARTS=required $(DEV)/bin/python -m pytest tests/image

image-reproducible: ## build it twice: the digests must be the same
	mkdir -p dist
	k8s/build_image.sh > dist/first-build
	k8s/build_image.sh > dist/second-build
	tail -n 1 dist/first-build dist/second-build && cmp dist/first-build dist/second-build

IMAGE ?= localhost/mammoseq:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)-cpu
sbom: $(DEV)/.done ## write what is in IMAGE, package by package, to dist/mammoseq.spdx.json
	mkdir -p dist
	PATH="$(CURDIR)/$(DEV)/bin:$$PATH" k8s/write_sbom.sh $(IMAGE) dist/mammoseq.spdx.json

cluster-check: $(DEV)/.done ## the manifests on a real API server, compiled once (docs/deploy.md)
	KUBE_APISERVER="$${KUBE_APISERVER:-$$(tests/cluster/compile_api_server.sh)}" && \
	  test -x "$$KUBE_APISERVER" && export KUBE_APISERVER && \
	  $(DEV)/bin/python -m pytest tests/cluster/check.py

checkov: .venv/checkov/.done ## weaknesses in manifests and Dockerfile (docs/deploy.md)
	k8s/check_with_checkov.sh .venv/checkov/bin/checkov

requirements: ## compile requirements/*.txt from pyproject.toml (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header pyproject.toml -o requirements/serve.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --extra tracing -c requirements/serve.txt pyproject.toml \
	  -o requirements/serve-tracing.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --all-extras -c requirements/serve-tracing.txt pyproject.toml -o requirements/dev.txt
	echo pip | uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate - -o requirements/pip.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header requirements/checkov.in -o requirements/checkov.txt

clean: ## remove the environments, caches and wheels
	rm -rf .venv dist requirements/wheels .mypy_cache .ruff_cache .pytest_cache

$(SERVE)/.done: requirements/serve.txt
$(DEV)/.done: requirements/dev.txt
.venv/checkov/.done: requirements/checkov.txt
# The file names every package, so nothing is resolved (--no-deps): pip would take the newest
# release for `package[extra]`, which has no hash here, and give up.
.venv/%/.done:
	$(PYTHON) -m venv --clear .venv/$*
	.venv/$*/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/$*.txt
	.venv/$*/bin/python -m pip check
	touch $@
.venv/peers/%/.done: benchmarks/peers/requirements/%.txt
	$(PYTHON) -m venv --clear .venv/peers/$*
	.venv/peers/$*/bin/python -m pip install --quiet -r $<
	touch $@
