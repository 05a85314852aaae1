# make demo    photographs -> shards -> profile -> two networks that learn
# make test    the tests          make lint    ruff and mypy          make bench    our loader beside tf.data
#
# Each finds a Python 3.10 or 3.11, makes .venv and installs there, once; again only when pyproject.toml changes.
# To choose the Python: make PYTHON=/path/to/python3.11 test

SHELL := /bin/bash
BIN := .venv/bin
INSTALLED := .venv/installed
PYTHON ?=

.PHONY: demo test lint bench clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/demo.sh

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python benchmarks/loaders.py

clean:
	rm -rf .venv demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A Python counts only if it runs, is 3.10 or 3.11, and can make environments: launchers may stand for none, and
# Debian's lacks ensurepip without python3-venv.
$(INSTALLED): pyproject.toml
	@for python in "$(PYTHON)" python3.11 python3.10 python3 python; do \
	  [ -n "$$python" ] && "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))' \
	    2>/dev/null && found="$$python" && break; \
	done; \
	set -e; \
	if [ -n "$$found" ]; then \
	  echo "installing into .venv with $$("$$found" --version); TensorFlow is large: a minute or a few"; \
	  "$$found" -m venv --clear .venv; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	elif command -v uv >/dev/null; then \
	  echo "installing into .venv with uv"; \
	  uv venv --quiet --clear --python '>=3.10,<3.12' .venv; \
	  uv pip install --quiet --python $(BIN)/python --editable '.[dev]'; \
	else \
	  echo "ingest needs Python 3.10 or 3.11 (TensorFlow 2.15 has no wheels for others), and found neither." >&2; \
	  echo "Install one, with its venv module: on Debian 12 and Ubuntu 22.04 'apt install python3 python3-venv';" >&2; \
	  echo "anywhere else uv (https://docs.astral.sh/uv), which fetches it by itself. Then run make again." >&2; \
	  exit 1; \
	fi; \
	touch $(INSTALLED)
