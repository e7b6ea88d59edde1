# make run   run a cluster of two hosts on this machine, served by lonc;
#            PORT=6663 for another port of the londs than 5663, HTTP=none for no page at port 8663
# make test  all checks: tests, lint, types, and building the documentation;
#            PYTHON=python3.13 for another Python, with which .venv is created again
# make test-oldest  the tests with the oldest packages that setup.cfg allows; TESTS=lonc.test.host for some
# make docs  build the documentation in docs/_build/html
# make man   write the manual pages lonc.1 and twistd-lonc.1 in docs/man
# make pictures  create the pictures of the documentation again, from output of lonc
# make bench measure the performance, compared with a relay in C (needs gcc); BENCH=--quick for a short run,
#            BENCH='--against COMMIT' to compare with another commit
# make soak  long reliability tests; SOAK='--size 20 --seed 7' for a longer run
# All of them first install what they need in .venv; nothing else has to be installed.

# With PYTHON=python3.13, .venv is created with that. Otherwise an existing usable one is kept, or it is created with
# the first of these that works (some may exist without working).
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
USABLE := -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
VERSION := -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null
BIN := .venv/bin
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for each in $(BIN)/python $(PYTHONS); do \
                $$each $(USABLE) && echo $$each && break; done)
endif
ifneq ($(PYTHON),$(BIN)/python)
ifneq ($(if $(PYTHON),$(shell $(PYTHON) $(VERSION))),$(shell $(BIN)/python $(VERSION)))
REMAKE := remake
endif
endif
# One retry: without a network, pip's default of five would take more than a minute.
PIP := PIP_RETRIES=1 $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALLED = 2>.venv/pip.log || { echo "make: pip cannot install what lonc needs. Is there a network," \
            "or a mirror in pip.conf? See .venv/pip.log" >&2; exit 1; }

.PHONY: run test test-oldest lint docs man pictures bench soak clean remake

run: .venv/installed-top
	@exec $(BIN)/twistd -n lonc --standalone var $(if $(PORT),--lond-port $(PORT)) --http $(or $(HTTP),tcp:8663:interface=127.0.0.1)

# Two jobs, since tests often wait for a daemon to start.
test: .venv/installed-test lint docs
	$(BIN)/trial --jobs=2 lonc

# The tests with the oldest packages that setup.cfg allows, in an environment of their own.
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/trial $(or $(TESTS),lonc)

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
	EXAMPLES=1000 $(BIN)/trial lonc.test.delayed.test_random
	EXAMPLES=500 $(BIN)/trial lonc.test.host.test_delivery_random
	$(BIN)/python -m reliability.soak $(SOAK)

remake: ;

# An editable install: it is repeated if dependencies change, not for source changes.
.venv/installed: setup.cfg pyproject.toml $(REMAKE)
	@$(if $(PYTHON),,$(error no Python 3.11 or later with the venv module found: \
	    install it, or specify it: make PYTHON=/path/to/python3))
	@$(if $(shell $(PYTHON) $(USABLE) && echo yes),,$(error \
	    $(PYTHON) is not Python 3.11 or later with the venv module))
	@$(if $(REMAKE),rm -rf .venv && $(PYTHON) -m venv .venv)
	@$(PIP) install --editable . $(INSTALLED)
	@touch $@

.venv/installed-%: .venv/installed
	@$(PIP) install --editable '.[$*]' $(INSTALLED)
	@touch $@

.venv-oldest/installed: setup.cfg pyproject.toml .venv/installed
	@rm -rf .venv-oldest && $(BIN)/python -m venv .venv-oldest
	@sed -n 's/^    \([a-z0-9.-]*\)\(\[[a-z]*\]\)\{0,1\}>=\([0-9.]*\)$$/\1==\3/p' setup.cfg >.venv-oldest/oldest.txt
	@PIP_RETRIES=1 .venv-oldest/bin/python -m pip --quiet --disable-pip-version-check install \
	    --constraint .venv-oldest/oldest.txt --editable '.[top,trial]' $(subst .venv/,.venv-oldest/,$(INSTALLED))
	@touch $@

clean:
	rm -rf .venv .venv-oldest build dist *.egg-info _trial_temp* docs/_build benchmarks/bin
