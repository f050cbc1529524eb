"""vitc as a library: what a program of a user calls, and what its type checker reads."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import setuptools
from PIL import Image

import vitc

REPOSITORY = Path(__file__).parents[2]
BUILDS = (
    "toolchain", "passes", "targets", "packaging", "pyproject.toml", "README.md", "LICENSE",
)  # fmt: skip

USERS_PROGRAM = """\
from pathlib import Path
import numpy as np
import vitc

artefact = vitc.compile("m.onnx", Path("here"), target="rpi4", batch=2)
pixels = artefact.preprocess(["a.png", Path("b.png"), np.zeros((4, 4, 3), np.uint8)])
reveal_type(artefact(pixels))
reveal_type(vitc.predict("here", "x.jpg").top(0, 5))
reveal_type(vitc.tune("here").replaced)
reveal_type(vitc.targets.find("rpi4").name)
vitc.predict(3)
"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "x.png"
    pixels = np.random.default_rng(8).integers(0, 256, (41, 57, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_are_strings_or_paths_everywhere(built, tmp_path, picture, kind) -> None:
    checkpoint, onnx, artefact = map(kind, (built.checkpoint, built.onnx, built.artefact))

    vitc.save(vitc.load(checkpoint), kind(tmp_path / "m.safetensors"))
    vitc.export(checkpoint, kind(tmp_path / "m.onnx"), vitc.ExportOptions(check=False))
    for given in (kind(picture), [kind(picture)]):
        assert vitc.predict(artefact, given).logits.shape == (1, 10)
    assert vitc.predict(onnx, kind(picture.parent)).names == (str(picture),)
    assert vitc.inspect(artefact).kind == "artefact"
    assert vitc.check(onnx, checkpoint, vitc.CheckOptions(images=1)).equal
    options = vitc.BenchOptions(baseline="none", runs=30)
    assert vitc.bench(artefact, options).latency.median > 0


def test_paths_of_options_are_strings_or_paths() -> None:
    from vitc.training.probes.options import ProbeOptions

    text = vitc.TrainOptions(out="a.safetensors", start="b", teacher="c", data="photos")
    path = vitc.TrainOptions(
        out=Path("a.safetensors"), start=Path("b"), teacher=Path("c"), data=Path("photos")
    )
    assert text == path
    assert (text.out.stem, text.data) == ("a", "photos")
    assert ProbeOptions("a").checkpoint == Path("a")
    assert vitc.CheckOptions(data=Path("photos")).data == "photos"
    assert vitc.CompileOptions(dump_ir="ir").dump_ir == Path("ir")
    assert vitc.ExportOptions(dump="ir", calibrate=Path("photos")) == vitc.ExportOptions(
        dump=Path("ir"), calibrate="photos"
    )
    with pytest.raises(vitc.VitcError, match=r"Write to a\.safetensors"):
        vitc.TrainOptions(out="a.pth")


def test_compile_takes_target_batch_and_force_by_name(built, tmp_path) -> None:
    unchecked = vitc.CompileOptions(check=False, batch=3)
    out = tmp_path / "here"

    made = vitc.compile(str(built.onnx), str(out), unchecked, target="x86-64-v2")
    assert (made.target.name, made.batch) == ("x86-64-v2", 3)
    with pytest.raises(vitc.VitcError, match="exists already"):
        vitc.compile(built.onnx, out, unchecked)
    again = vitc.compile(built.onnx, out, unchecked, target="x86", batch=2, force=True)
    assert (again.target.name, again.batch) == ("x86", 2)


def test_an_artefact_makes_inputs_of_pictures_as_vitc_run_does(built, picture) -> None:
    artefact = vitc.open(built.artefact)
    expected = vitc.predict(built.artefact, picture).logits
    image = Image.open(picture)

    for given in (picture, str(picture), image, np.asarray(image)):
        pixels = artefact.preprocess(given)
        assert pixels.shape == (1, 3, 32, 32)
        assert np.array_equal(artefact(pixels), expected)
    several = artefact.preprocess([picture, image, np.zeros((33, 34), np.uint8)])
    assert several.shape == (3, 3, 32, 32)
    assert np.array_equal(several[0], several[1])
    assert artefact.preprocess(np.stack([image, image])).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "no picture to preprocess"),
        (3, "A int is no picture"),
        (np.zeros((4, 4, 3), np.float32), "array of float32, 4 x 4 x 3; wanted uint8"),
        (np.zeros((3, 4, 4), np.uint8), "array of uint8, 3 x 4 x 4; wanted uint8 of H x W x 3"),
        ("none.png", "There is no file none.png"),
    ],
)
def test_what_is_no_picture_is_refused(built, given, words) -> None:
    with pytest.raises(vitc.VitcError, match=words):
        vitc.open(built.artefact).preprocess(given)


def test_what_comes_back_is_shown_in_a_line(built, picture) -> None:
    report = vitc.check(built.onnx, built.checkpoint, vitc.CheckOptions(images=1))
    shown = {
        "Artefact": vitc.open(built.artefact),
        "Prediction": vitc.predict(built.artefact, [picture] * 5),
        "CheckReport": report,
        "Inspection": vitc.inspect(built.artefact),
        "Target": vitc.targets.find("rpi4"),
    }
    for name, thing in shown.items():
        assert repr(thing).startswith(name), thing
        assert len(repr(thing)) < 400 + 3 * len(str(picture)), thing
        assert "\n" not in repr(thing)
    assert "2 more" in repr(shown["Prediction"])
    assert "rpi4" in repr(vitc.targets.TARGETS["rpi4"])


def test_submodules_are_there_without_an_import_of_their_own() -> None:
    code = "import vitc; print(vitc.targets.find('rpi4').cpu, vitc.nn.__name__, vitc.tune.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)

    assert done.stdout.split() == ["cortex-a72", "vitc.nn", "tune"], done.stderr


def test_docs_python_is_what_the_docstrings_say() -> None:
    specification = importlib.util.spec_from_file_location(
        "python_page", REPOSITORY / "benchmarks" / "python_page.py"
    )
    assert specification is not None
    assert specification.loader is not None
    made = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(made)

    assert made.PAGE.read_text(encoding="utf-8") == made.page(), (
        "docs/python.md is old: python benchmarks/python_page.py"
    )


def test_mypy_reads_the_package_of_an_editable_install(tmp_path) -> None:
    sources = tmp_path / "a checkout"
    sources.mkdir()
    for name in BUILDS:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, sources)
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (site,) = (environment / "lib").glob("python*/site-packages")
    with_setuptools = Path(setuptools.__file__).parents[1]
    for part in (with_setuptools / "_distutils_hack", *with_setuptools.glob("setuptools*")):
        (site / part.name).symlink_to(part)
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    install = [sys.executable, "-m", "pip", "--python", python, "install", *options, "-e", sources]
    done = subprocess.run(install, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    # What the program shows of it; all that vitc stands on takes minutes to read.
    (site / "numpy").symlink_to(Path(np.__file__).parent)
    program = tmp_path / "program.py"
    # Files that come later are seen too.
    (sources / "toolchain" / "cli" / "later.py").write_text("x: int = 3\n")
    program.write_text(f"import vitc.cli.later\n{USERS_PROGRAM}")

    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", python, "--strict", program],
        capture_output=True, text=True, timeout=900, cwd=tmp_path, check=False,
        env=os.environ | {"MYPYPATH": "", "MYPY_FORCE_COLOR": "0"},
    )  # fmt: skip
    revealed = [line.partition("Revealed type is ")[2] for line in checked.stdout.splitlines()]
    for kind in ("numpy.ndarray[", "list[vitc.devices.prediction.Ranked]", '"bool"', '"str"'):
        assert any(kind in line for line in revealed), checked.stdout
    assert 'Missing positional argument "inputs"' in checked.stdout
    assert "import-" not in checked.stdout

    # Python imports the sources, and not through the links.
    imported = subprocess.run(
        [python, "-c", "import vitc; print(vitc.__file__)"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert imported.stdout.strip() == str(sources / "toolchain" / "__init__.py"), imported.stderr
