# make install a Python environment in .venv; the others do it, too
# make demo     photographs -> shards -> profile -> two networks that learn
# make test     the tests
# make test-fast  those that take little time, in under two minutes
# make test-newest  the tests of the data path and of all adapters on the newest Python there, in .venv-newest
# make stress   the tests of damage, kills, mutated images and datasets again, by the thousand, and of lost hosts
# make lint     ruff and mypy
# make docs-check  every command and every Python block of README.md, docs and benchmarks, on a few pictures; those of
#               frameworks in .venv-newest, too
# make bench    our loader beside tf.data, on drawn pictures or PHOTOS=folder/of/classes
# make mnist-questions  LeNet-5 seven times, once as it should be: MNIST=folder/of/IDX/files; a quarter of an hour
#
# Each finds a Python 3.10 or 3.11, makes .venv and installs there, once; again only when pyproject.toml changes.
# To choose the Python: make PYTHON=/path/to/python3.11 test

SHELL := /bin/bash
BIN := .venv/bin
INSTALLED := .venv/installed
NEWEST := .venv-newest
FAST_ON_NEWEST := $(patsubst %,tests/test_%.py,ahead batches build cli columns dataflow formats frameworks jpeg loader options \
  record sampler transforms) -m "not slow"
SLOW_ON_NEWEST := tests/test_frameworks.py tests/test_accelerator.py tests/test_packaging.py -m slow

.PHONY: install demo test test-fast test-newest stress lint docs-check bench mnist-questions clean

say = printf '\n== %s\n' "$(1)"

install: $(INSTALLED)
	@echo "installed into .venv: 'source .venv/bin/activate' puts ingest and its python at hand; ingest --help says more"

demo: $(INSTALLED)
	@rm -rf demo
	@$(call say,1. Photographs. No download: 1000 pictures of eight kinds are drawn in the layout of ImageNet.)
	$(BIN)/ingest synth demo/photos --images 1000
	@$(call say,2. Shards. A few large files instead of many small ones. The records are the same in both formats.)
	$(BIN)/ingest build-shards demo/photos/train demo/train-tfrecord --format tfrecord
	$(BIN)/ingest build-shards demo/photos/train demo/train-lmdb --format lmdb
	$(BIN)/ingest build-shards demo/photos/val demo/val --format tfrecord
	@$(call say,3. A profile. How many images a second can the loader give? What limits it? And what is in the shards?)
	$(BIN)/ingest profile demo/train-tfrecord --seconds 4 --html demo/profile.html
	$(BIN)/ingest inspect demo/train-lmdb --sheet demo/sheet.png
	@$(call say,4. AlexNet learns. At 64 pixels instead of 224 and in minutes instead of days.)
	$(BIN)/python train.py --model alexnet --data demo/train-tfrecord --eval-data demo/val --model-dir demo/alexnet \
	  --image-size 64 --batch-size 32 --epochs 9 --schedule cosine --warm-up 0.1 --min-crop-area 0.5 \
	  --optimizer adam --learning-rate 0.0003 --json demo/alexnet.json
	@$(call say,5. ResNet-18 learns. From the other format: nothing but the name changes.)
	$(BIN)/python train.py --model resnet18 --data demo/train-lmdb --eval-data demo/val --model-dir demo/resnet18 \
	  --image-size 48 --batch-size 32 --epochs 7 --schedule cosine --min-crop-area 0.5 \
	  --optimizer adam --learning-rate 0.001 --json demo/resnet18.json
	@$(BIN)/python -c "$$CONCLUSION"

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

test-newest: $(NEWEST)/installed
	@if [ -x $(NEWEST)/bin/python ]; then \
	  $(NEWEST)/bin/python -m pytest $(FAST_ON_NEWEST) && $(NEWEST)/bin/python -m pytest $(SLOW_ON_NEWEST); \
	else \
	  echo "no Python after 3.11 was found: its tests are left out"; \
	fi

stress: $(INSTALLED)
	INGEST_KILLS=20 INGEST_FLIPS=200 INGEST_CUTS=50 INGEST_FUZZ=30000 INGEST_DATASETS=500 INGEST_RESUMES=12 \
	  $(BIN)/python -m pytest tests/test_resumable.py tests/test_verify.py tests/test_fuzz_jpegs.py tests/test_fuzz_lists.py \
	    tests/test_fuzz_tars.py tests/test_fuzz_parquet.py tests/test_fuzz_datasets.py tests/test_resume.py tests/test_devices.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The examples for PyTorch, JAX and Keras 3 are run in the environment that has these.
docs-check: $(INSTALLED) $(NEWEST)/installed
	PYTHONPATH=tests $(BIN)/python -m support.docs_check
	@[ ! -x $(NEWEST)/bin/python ] || PYTHONPATH=tests $(NEWEST)/bin/python -m support.docs_check docs/frameworks.md

bench: $(INSTALLED)
	$(BIN)/python benchmarks/loaders.py $(PHOTOS)

mnist-questions: $(INSTALLED)
	$(BIN)/python benchmarks/mnist_questions.py $(MNIST)

clean:
	rm -rf .venv .venv-newest demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A Python counts only if it runs, is 3.10 or 3.11, and can make environments: a launcher may have no Python behind it,
# and Debian's cannot without the package python3-venv.
FITS := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))

$(INSTALLED): pyproject.toml
	@for python in $(or $(PYTHON),python3.11 python3.10 python3 python); do \
	  "$$python" -c '$(FITS)' 2>/dev/null && found="$$python" && break; \
	done; \
	set -e; \
	if [ -n "$$found" ]; then \
	  echo "installing into .venv with $$("$$found" --version): TensorFlow is large, this takes a minute or a few"; \
	  "$$found" -m venv --clear .venv; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	elif command -v uv >/dev/null; then \
	  echo "installing into .venv with uv: TensorFlow is large, this takes a minute or a few"; \
	  uv venv --quiet --clear --python '>=3.10,<3.12' .venv; \
	  uv pip install --quiet --python $(BIN)/python --editable '.[dev]'; \
	else \
	  echo "ingest needs Python 3.10 or 3.11 with its venv module (TensorFlow 2.15 has wheels for no later one)," >&2; \
	  echo "and found neither. On Debian 12 and Ubuntu 22.04: apt install python3 python3-venv. Anywhere else:" >&2; \
	  echo "install uv (https://docs.astral.sh/uv), which fetches a Python by itself. Then run make again." >&2; \
	  exit 1; \
	fi; \
	touch $(INSTALLED)

# Of what pyenv may have, its launchers do not run, but its Pythons do.
$(NEWEST)/installed: pyproject.toml
	@rm -rf $(NEWEST) && mkdir $(NEWEST); \
	set -e; \
	for python in $(or $(PYTHON_NEWEST),python3.13 "$$(pyenv root 2>/dev/null)"/versions/3.13*/bin/python python3.14 python3.12); do \
	  "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && found="$$python" && break; \
	done; \
	if [ -z "$$found" ] && [ -n "$(PYTHON_NEWEST)" ]; then \
	  echo "PYTHON_NEWEST=$(PYTHON_NEWEST) does not run, or is older than 3.12" >&2; exit 1; \
	fi; \
	if [ -n "$$found" ]; then \
	  echo "installing into $(NEWEST) with $$("$$found" --version): the frameworks are large, this takes minutes"; \
	  "$$found" -m venv --clear $(NEWEST); \
	  $(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,frameworks]'; \
	fi; \
	touch $(NEWEST)/installed

define CONCLUSION
import json, sys
chance = 1 / len(json.load(open("demo/val/manifest.json"))["classes"])
results = [json.load(open(f"demo/{name}.json")) for name in ("alexnet", "resnet18")]
print(f"\n== Evaluation top-1 on 200 pictures that neither network was trained on; chance is {chance}")
for result in results:
    print(f"   {result['model']:<10}{result['eval_top1']:>6.3f}   {result['eval_top1'] / chance:.1f} times chance")
print("""
== Everything is in demo/: photographs, shards, checkpoints; look at profile.html and sheet.png. What to try next:
   .venv/bin/tensorboard --logdir demo                                   the curves
   .venv/bin/python train.py --model resnet50 --summary                  a network, layer by layer
   .venv/bin/ingest build-shards PHOTOS shards --format tfrecord         your own, as PHOTOS/CLASS/IMAGE.jpg
""")
sys.exit(min(result["eval_top1"] for result in results) < 3 * chance)
endef
export CONCLUSION
