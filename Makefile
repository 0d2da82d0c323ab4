# make quickstart     the whole path on drawn pictures, in about six minutes
# make test           the tests
# make test-services  workers that share a study on real servers; installs Debian's postgresql where it can
# make test-faults    kills, full disks, damaged files; FAULTS=full takes hours and as many of them as docs/reliability.md tells
# Both make .venv first where it is missing. TENSORFLOW names the build: tensorflow-cpu, or tensorflow[and-cuda].

PYTHON ?= python3
TENSORFLOW ?= tensorflow-cpu
QUICKSTART ?=
PYTEST ?=
FAULTS ?=

INSTALLED := .venv/.installed
RUN := .venv/bin/python

.PHONY: install quickstart test test-slow test-services test-faults lint clean

install: $(INSTALLED)

# TensorFlow first: its two builds share one folder, so nothing else may bring in the other one.
$(INSTALLED): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: PYTHON: expected 3.11 or newer, received $$($(PYTHON) -V)" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check "$(TENSORFLOW)>=2.21,<2.22"
	.venv/bin/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(INSTALLED)

quickstart: $(INSTALLED)
	$(RUN) tools/quickstart.py $(QUICKSTART)

# Files side by side: most of a test's time is the tracing of graphs, which has one thread.
test: $(INSTALLED)
	$(RUN) -m pytest -q -n auto --maxprocesses=4 --dist=loadfile $(PYTEST)

test-slow: $(INSTALLED)
	$(RUN) -m pytest -q -m slow $(PYTEST)

# Side by side, each process with servers of its own: nearly all of their time is waiting.
test-services: $(INSTALLED)
	$(RUN) -m pytest -q -n 4 --dist=worksteal -m services tests/services $(PYTEST)

test-faults: $(INSTALLED)
	NAS_SEG_FAULTS=$(FAULTS) $(RUN) -m pytest -q -n 2 --dist=loadfile $(if $(FAULTS),-m faults,-m "faults and not slow") tests/faults $(PYTEST)

lint: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

clean:
	rm -rf .venv build dist *.egg-info
