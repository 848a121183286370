# The two commands: make demo, make test. What they need they install: .ci/bootstrap, and
# tests/integration/stacks/stack for the CE.

PY      := .venv/bin/python
PYTEST  := $(PY) -m pytest -rfEs
STACK   := tests/integration/stacks/stack
VERSION ?= 7.0.0
CONFIG  ?= token
# Workers of the tests that need no CE; 0: none, as with --pdb.
JOBS    ?= 2
# CEs that the tests run on at a time; 0: one, in this process. Mostly they wait for the CE.
STACK_JOBS ?= 3

unexport PYTHONHOME PYTHONPATH PYTHONUSERBASE
export PYTHONUNBUFFERED := 1
.NOTPARALLEL:
.PHONY: demo demo-real test check format lint types layers unit wheel integration \
        stack-start stack-stop stack-logs stack-status venv graphviz openssl clean

# The main job, watched, on a simulated CE that runs its jobs on this machine; or on yours:
#   make demo CE=https://ce.example.org:443 TOKEN_FILE=FILE [QUEUE=NAME] [CA_DIR=FOLDER|CA_FILE=FILE]
ifdef CE
demo: venv
	@test -n '$(TOKEN_FILE)' || { echo 'make demo CE=... needs TOKEN_FILE=...' >&2; exit 2; }
	@$(PY) examples/demo.py --endpoint '$(CE)' --token-file '$(TOKEN_FILE)' \
	    $(if $(QUEUE),--queue '$(QUEUE)') $(if $(CA_FILE),--ca-file '$(CA_FILE)') \
	    $(if $(CA_DIR),--ca-dir '$(CA_DIR)')
else
demo: venv
	@$(PY) examples/demo.py
endif

# The same on a real CE in front of a real Slurm, which is started for it (KEEP=1: and left running).
demo-real: venv
	@$(PY) -m tests.integration.demo_on_stack --version '$(VERSION)' $(if $(KEEP),--keep)

# Everything; a failing step does not hide the results of the later ones.
test: venv
	@.ci/steps format lint types layers unit wheel integration

# Everything that takes seconds.
check: venv
	@.ci/steps format lint types layers

format: venv
	.venv/bin/ruff format --check .

lint: venv
	.venv/bin/ruff check .

types: venv
	.venv/bin/mypy

layers: venv
	.venv/bin/lint-imports

# No server needed.
unit: venv graphviz openssl
	$(PYTEST) tests --ignore tests/integration --ignore tests/packaging -n $(JOBS)

# What users install, and what the README shows.
wheel: venv
	$(PYTEST) tests/packaging

# On every real CE of tests/integration/stacks.yml.
integration: venv
	$(PYTEST) tests/integration --durations=25 -n $(STACK_JOBS)

stack-start:
	$(STACK) build arc-slurm --version '$(VERSION)'
	$(STACK) start arc-slurm --version '$(VERSION)' --config '$(CONFIG)'

stack-stop stack-logs:
	$(STACK) $(@:stack-%=%) arc-slurm --version '$(VERSION)' --config '$(CONFIG)'

stack-status:
	$(STACK) status

venv:
	@.ci/bootstrap

# For the test that draws. Where it cannot be installed, that test says so; in CI it fails.
graphviz:
	@command -v dot >/dev/null || { command -v apt-get >/dev/null && .ci/apt-install graphviz; } || \
	    echo 'graphviz is not installed: diagrams are not drawn in the tests' >&2

# For the tests in which it judges what we have signed.
openssl:
	@command -v openssl >/dev/null || { command -v apt-get >/dev/null && .ci/apt-install openssl; } || \
	    echo 'openssl is not installed: proxies are not verified in the tests' >&2

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache \
	    .hypothesis
