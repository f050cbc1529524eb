# make demo   train, export, compile, check and bench a small model on this machine and for 64-bit ARM
# make test   run the tests
# Both set up .venv by themselves.
# make dist   the wheel, the sdist and their checksums, of the version of pyproject.toml (docs/releasing.md)
# make userland   fetch a 64-bit ARM userland (220 MB) in which the tests run TVM's RPC server under qemu

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QEMU := $(VENV)/qemu
USERLAND := $(VENV)/userland
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/$(QEMU)/usr/bin:$(PATH)

.PHONY: demo test dev qemu userland lint types bench dist clean

demo: $(READY) qemu
	vitc demo --force

# Tests of one file share what they export, so a file stays with one worker; each worker computes on one thread. The order is
# random: `make test TESTS=--randomly-seed=N` repeats that of a run; the last line says what was skipped and why.
test: $(READY) qemu
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile $(TESTS)

dev: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vitc needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

# ARM artefacts run in qemu's user emulation. Where none that counts instructions is installed, Debian's is unpacked into
# .venv; where that cannot be fetched, one sentence says so.
qemu:
	@tests/devices/qemu.sh $(QEMU)

userland: $(USERLAND)/python3

$(USERLAND)/python3: tests/devices/userland.sh constraints.txt | $(READY)
	tests/devices/userland.sh $(USERLAND) $(BIN)/python constraints.txt

lint: $(READY)
	ruff check .

# mypy reads the package as it is installed, not the checkout.
types: $(READY)
	rm -rf build/types
	python -m pip install --quiet --no-deps --no-build-isolation --target build/types . || \
	  python -m pip install --quiet --no-deps --target build/types .
	MYPYPATH=build/types mypy -p vitc

bench: $(READY)
	python benchmarks/table.py

# A release without a word in the changes is a mistake. The files of the wheel carry the date of the last commit.
dist: $(READY)
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml); grep -q "^## $$version" CHANGELOG.md || \
	  { echo "CHANGELOG.md says nothing of $$version" >&2; exit 1; }
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 315532800) \
	  $(BIN)/python -m build --no-isolation --outdir dist .
	cd dist && sha256sum *.whl *.tar.gz >SHA256SUMS

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
