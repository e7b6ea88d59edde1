# make run   a cluster of two hosts on this machine, with lonc in front of it;
#            PORT=6663 for londs at another port than 5663, HTTP=none for no page at port 8663
# make test  every check: tests, lint, types, and that the documentation can be built
# make docs  the documentation, in docs/_build/html
# make man   the manual pages lonc.1 and twistd-lonc.1, in docs/man
# make pictures  the pictures of the documentation anew, from what lonc prints
# make bench how fast it is, against a relay in C (needs gcc); BENCH=--quick for the short form,
#            BENCH='--against COMMIT' to measure another commit in turn
# make soak  what it promises, in figures; SOAK='--size 20 --seed 7' for a longer run
# All of them first set up what they need in .venv; nothing else has to be installed.

PYTHON := $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: run test lint docs man pictures bench soak clean

run: .venv/installed-top
	@exec $(BIN)/twistd -n lonc --standalone var $(if $(PORT),--lond-port $(PORT)) --http $(or $(HTTP),tcp:8663:interface=127.0.0.1)

test: .venv/installed-test lint docs
	$(BIN)/trial lonc

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-docs
	$(BIN)/sphinx-build --quiet --fail-on-warning -d docs/_build/doctrees docs docs/_build/html

man: .venv/installed
	$(BIN)/python docs/man/make.py

pictures: .venv/installed-top
	$(BIN)/python docs/pictures/make.py

bench: .venv/installed
	$(BIN)/python benchmarks/run.py $(BENCH)

soak: .venv/installed-test
	EXAMPLES=10000 $(BIN)/trial lonc.test.host.test_releases
	$(BIN)/python -m reliability.soak $(SOAK)

# An editable install: a changed source needs no new one, a changed dependency does.
.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) install --editable .
	@touch $@

.venv/installed-%: .venv/installed
	$(PIP) install --editable '.[$*]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info _trial_temp* docs/_build docs/man/*.1 benchmarks/bin
