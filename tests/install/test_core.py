"""`pip install vitc` without extras runs and times artefacts, and says what it lacks."""

from __future__ import annotations

import json
import re
import sys
import tarfile
import zipfile
from importlib import metadata

import numpy as np
import pytest
from typer.main import get_command

from tests.install.conftest import PROJECT, REPOSITORY, run
from vitc.cli.main import app
from vitc.extras import EXTRAS, explained
from vitc.runtime import Artefact

FRAMEWORKS = {module for modules in EXTRAS.values() for module in modules}
MOST_BYTES = 46e6
"""Of the core beside NumPy, compiled bytecode included."""

IN_PYTHON = """
import json, sys
import vitc
artefact = vitc.open("here")
said = vitc.predict("here", "x.png")
print(json.dumps([
    artefact(artefact.preprocess("x.png")).tolist(),
    said.logits.tolist(),
    vitc.bench("here", vitc.BenchOptions(baseline=None, runs=30)).ratio,
    vitc.inspect("here").kind,
    sorted(sys.modules.keys() & set(%r)),
]))
"""

LACKING = (
    ("new micro --out out", "train"),
    ("pretrain --data photos --out out", "train"),
    ("train --out out", "train"),
    ("probe m.safetensors", "train"),
    ("export m.safetensors --out out", "train"),
    ("inspect m.safetensors", "train"),
    ("retrieve train --out out", "train"),
    ("bench here", "train"),
    ("bench here --baseline int8", "train"),
    ("index build photos --model m.safetensors --out out", "train"),
    ("bench here --baseline packed", "onnx"),
    ("run m.onnx x.png", "onnx"),
    ("inspect m.onnx", "onnx"),
    ("inspect own", "onnx"),
    ("compile m.onnx --out out", "compile"),
    ("tune here", "compile"),
    ("bench here --baseline none --profile", "compile"),
    ("retrieve bench", "compile"),
    ("check here --reference m.safetensors", "train,compile"),
    ("check m.onnx --reference m.safetensors", "train"),
    ("check here --reference m.safetensors --no-rebuild", "train"),
    ("demo --out out", "train,compile"),
    ("device serve", "farm"),
    ("device tracker", "farm"),
    ("bench here --device rpc://127.0.0.1:9", "farm"),
    ("search photos.vidx dog", "search"),
    ("index split photos.vidx --parts 2 --out out", "search"),
)


def test_the_table_of_extras_has_the_modules_of_what_is_declared() -> None:
    homes: dict[str, set[str]] = {}
    for module, names in metadata.packages_distributions().items():
        for name in names:
            homes.setdefault(name.lower(), set()).add(module)

    def modules(extra: str) -> set[str]:
        found = set()
        for requirement in PROJECT["optional-dependencies"][extra]:
            name, _, inner = re.match(r"([\w-]+)(\[([\w,]+)\])?", requirement).groups()
            if name == "vitc":
                found |= {module for other in inner.split(",") for module in modules(other)}
            else:
                found |= homes[name.lower()] & FRAMEWORKS
        return found

    assert {extra: set(wanted) for extra, wanted in EXTRAS.items()} == {
        extra: modules(extra) for extra in EXTRAS
    }
    assert modules("all") == FRAMEWORKS
    assert "vitc[all]" in PROJECT["optional-dependencies"]["dev"]


def test_a_failed_import_names_the_smallest_extra() -> None:
    assert "vitc[onnx]" in str(explained(ModuleNotFoundError(name="onnx")))
    assert "vitc[train]" in str(explained(ModuleNotFoundError(name="torch.nn")))
    assert explained(ModuleNotFoundError(name="nothing_of_ours")) is None


def test_the_core_has_none_of_the_frameworks_and_is_small(core) -> None:
    held = {path.name for path in core.packages.iterdir()}
    sizes = {
        path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        for path in core.packages.iterdir()
        if path.is_dir()
    }
    numpy = sum(size for path, size in sizes.items() if path.name.startswith("numpy"))

    assert not held & {*FRAMEWORKS, "pydantic"}  # of typer it would be the second largest
    assert numpy > 0
    assert sum(sizes.values()) - numpy < MOST_BYTES


def test_the_core_runs_an_artefact_as_all_of_vitc_does(core, folder) -> None:
    done = core.vitc("run", "here", "x.png", "--out", "core.npy", folder=folder)
    artefact = Artefact.open(folder / "here")

    assert done.returncode == 0, done.stderr
    expected = artefact(artefact.preprocess(folder / "x.png"))
    assert np.array_equal(np.load(folder / "core.npy"), expected)


def test_the_core_times_and_inspects_an_artefact(core, folder) -> None:
    options = ("--baseline", "none", "--runs", "30")
    timed = core.vitc("bench", "here", *options, "--report", "report.html", folder=folder)
    inspected = core.vitc("inspect", "here", "--json", "-", folder=folder)

    assert timed.returncode == 0, timed.stderr
    assert "median" in timed.stdout
    assert "<html" in (folder / "report.html").read_text()
    assert inspected.returncode == 0, inspected.stderr
    found = json.loads(inspected.stdout)
    assert found["kernels"]
    assert found["labels"] is None or found["labels"]


def test_the_core_is_used_from_python(core, folder) -> None:
    said = run(core.python, "-c", IN_PYTHON % (sorted(FRAMEWORKS),), folder=folder)
    logits, predicted, ratio, kind, loaded = json.loads(said)
    artefact = Artefact.open(folder / "here")

    assert np.array_equal(np.float32(logits), artefact(artefact.preprocess(folder / "x.png")))
    assert logits == predicted
    assert (ratio, kind, loaded) == (None, "artefact", [])


@pytest.mark.parametrize(("line", "extra"), LACKING)
def test_a_command_says_which_extra_it_lacks_and_how_to_install_it(
    core, folder, line, extra
) -> None:
    before = sorted(folder.iterdir())
    done = core.vitc(*line.split(), folder=folder)

    assert done.returncode == 1, done.stderr
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    hints = [text for text in done.stderr.splitlines() if text.startswith("hint: ")]
    assert len(errors) == len(hints) == 1
    assert f"needs vitc[{extra}]: " in errors[0]
    assert "not installed." in errors[0]
    assert f"python -m pip install 'vitc[{extra}]'" in hints[0]
    assert ("download.pytorch.org/whl/cpu" in hints[0]) == ("train" in extra)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("vitc.new('micro')", "train"),
        ("vitc.train", "train"),
        ("vitc.load", "train"),
        ("vitc.check", "train"),
        ("vitc.compile('m.onnx', 'out')", "compile"),
        ("vitc.inspect('m.onnx')", "onnx"),
    ],
)
def test_python_says_it_too(core, folder, code, extra) -> None:
    program = f"""
import vitc
try:
    {code}
except vitc.VitcError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    assert f"vitc[{extra}]" in run(core.python, "-c", program, folder=folder)


def test_help_and_doctor_work_without_extras(core, folder) -> None:
    commands = get_command(app).commands
    assert core.vitc("--help", folder=folder).returncode == 0
    for command in commands:
        assert core.vitc(command, "--help", folder=folder).returncode == 0, command
    done = core.vitc("doctor", "--json", "-", folder=folder)

    assert done.returncode == 0, done.stdout
    states = {each["what"]: each["state"] for each in json.loads(done.stdout)["findings"]}
    assert {states[f"vitc[{extra}]"] for extra in EXTRAS} == {"optional"}
    assert states["numpy"] == "ok"


def test_the_sdist_makes_the_same_wheel_as_the_checkout(built, wheel, checkout, tmp_path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, checkout)
    (direct,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(direct) as other:
        contents = [{name: each.read(name) for name in each.namelist()} for each in (one, other)]
        assert contents[0] == contents[1]
        held = set(one.namelist())
    sources = {
        f"vitc/{path.relative_to(REPOSITORY / 'toolchain')}"
        for path in (REPOSITORY / "toolchain").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= held
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"packaging/vitc_build.py", "CHANGELOG.md", "LICENSE", "docs/design.md"} <= names
    assert not [name for name in names if name.startswith("tests/") or name.endswith(".pyc")]
