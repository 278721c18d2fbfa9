# MedIQA Node. Two commands matter: `make demo` and `make test`.
.PHONY: demo test test-fast test-slow chaos attack fuzz setup lint lock clean

PYTEST = .venv/bin/python -m pytest -q
# compiled modules are kept, whatever the surroundings say: else each process that a test starts compiles them anew
export PYTHONDONTWRITEBYTECODE =
STUDY ?=
SECONDS ?= 60

demo: ## install, run the node and a small PACS, send simulated patients (or STUDY=folder), show the results
	@scripts/setup
	@.venv/bin/python scripts/demo.py $(if $(STUDY),--study "$(STUDY)")

test: ## install what is missing, run every test that is not marked slow
	@scripts/setup test
	@scripts/peers
	.venv/bin/ruff check .
	$(PYTEST) -m "not slow" -n 2 --dist loadfile $(ARGS)

test-fast: ## the tests of one's own loop: no peers, no network, under two minutes on two cores (they wait more than they compute)
	@scripts/setup test
	$(PYTEST) -m "not slow and not peer and not model and not data" -n 4 --dist loadfile $(ARGS)

test-slow: ## what takes minutes
	@scripts/setup test
	@scripts/peers
	$(PYTEST) -m slow $(ARGS)

attack: ## every attack of docs/security.md upon a receiver of its own, SECONDS each, as a table
	@scripts/setup test
	.venv/bin/python -m tests.attack --seconds $(SECONDS)

fuzz: ## what peers send, coverage-guided, MINUTES for each of six targets
	@scripts/setup fuzz
	.venv/bin/python -W ignore -m tests.fuzz --minutes $(or $(MINUTES),1)

chaos: ## kill -9, full disk, locked database and worse for hours: make chaos KILLS=1000 SEED=1, or MINUTES=120 (docs/reliability.md)
	@scripts/setup test
	@scripts/peers
	.venv/bin/python -m tests.chaos.run $(if $(KILLS),--kills $(KILLS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

setup:
	@scripts/setup test

lint:
	.venv/bin/ruff check .

lock: ## write constraints.txt anew from pyproject.toml
	.venv/bin/uv pip compile -q --all-extras --no-annotate --no-header --no-emit-index-url pyproject.toml \
	    | grep -Ev '^(torch|nvidia-|triton|cuda|setuptools)' > constraints.txt

clean:
	rm -rf .venv build dist *.egg-info demo-run
