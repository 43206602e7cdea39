# Everlong's commands. `make` alone lists them. They need Python 3.11 or newer and make, nothing else.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit check fuzz bench chaos up train docs secrets clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --progress-bar off -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.installed  ## make .venv and install Everlong into it, with the embedded broker and store

demo: $(VENV)/.installed  ## a shop's clicks, queries and orders become candidates, on this machine; ends by itself
	@$(BIN)/everlong demo $(ARGS)

# As many workers as cores, at most four. Tests that start servers share one of them (tests/conftest.py). ARGS="-n 0" runs all in one process.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadscope

test: $(VENV)/.dev  ## run all tests; one that lacks something says what (ARGS="-m 'not containers'" and the like)
	@$(PYTEST) $(ARGS)

test-unit: $(VENV)/.dev  ## run the unit tests that need only the installation, without those marked slow
	@$(PYTEST) tests/unit -m "not (slow or broker or chaos or containers or browser or data)" $(ARGS)

check: $(VENV)/.dev  ## style, types, and which way imports point
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fuzz: $(VENV)/.dev  ## hostile bytes to every decoder and handler for MINUTES=10, other ones each time; with atheris where it is installed
	@$(BIN)/python -m tests.fuzz.long --minutes $(or $(MINUTES),10) $(ARGS)

bench: $(VENV)/.dev  ## measure, and write the tables of bench/README.md
	@$(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/.dev  ## kill workers of a real Kafka at random moments and compare every row with the offline one
	@$(BIN)/python -m pytest -v -m chaos $(ARGS)

up: $(VENV)/.installed  ## as demo, but keep running and print the address of the page
	@$(BIN)/everlong up $(ARGS)

train: $(VENV)/.installed  ## train a bundle on the simulated shop, into .everlong/bundle
	@$(BIN)/everlong train --data shop --out .everlong/bundle $(ARGS)

docs: $(VENV)/.installed  ## write the generated pages of docs/ again
	@$(BIN)/python -m infra.pages docs
	@$(BIN)/python tests/fault_table.py

secrets:  ## make the passwords and tokens of docker-compose.yml, in ./secrets; those that exist are kept
	@sh infra/compose/make-secrets.sh secrets

clean:  ## remove .venv, caches, and the data of demo, up and train
	rm -rf $(VENV) .everlong .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find features models stream infra research tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# On Linux torch's default wheel brings several GB of CUDA. TORCH_INDEX, PyTorch's own package index for the CPU, makes pip take the small one.
# An installation is done anew only when what it is made from has changed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Everlong into $(VENV) (minutes the first time) ..."
	@$(PIP) -e '.[embedded,plot]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Everlong and what its tests need into $(VENV) (minutes the first time) ..."
	@$(PIP) -e '.[embedded,plot,baselines,dev]'
	@touch $@ $(VENV)/.installed
