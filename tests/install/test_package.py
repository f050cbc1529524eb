"""`vitc package`: a wheel that is installed where there is no vitc, and answers as the artefact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.install.conftest import Environment, clean, run
from vitc import VitcError, api
from vitc.runtime import Artefact
from vitc.runtime.wheel import package, platform_tags
from vitc.targets import TARGETS

USED = """
import json, sys
{before}
import numpy as np
import cats
model = cats.Model(threads=2)
pixels = np.load("pixels.npy")
print(json.dumps([
    model.logits(np.stack([model.preprocess(pixels)] * 3)).tolist(),
    [[each.index, each.label] for each in cats.predict(pixels, top=3)],
    [[each.index, each.label] for each in {picture}],
    sorted({{"vitc", "torch", "tvm", "onnx", "PIL"}} & set(sys.modules)),
]))
"""


@pytest.fixture(scope="module")
def pixels(folder) -> np.ndarray:
    made = np.random.default_rng(8).integers(0, 256, (45, 61, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", made)
    return made


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """An ONNX file of a network with names of classes, of batches of two."""
    made = tmp_path_factory.mktemp("labelled")
    model = api.new("micro", depth=1, seed=5)
    model.labels = tuple(f"cat {i}" for i in range(10))
    api.export(model, made / "m.onnx", api.ExportOptions(check=False))
    return made / "m.onnx"


def check_said(said: str, artefact: Artefact, pixels: np.ndarray) -> list[str]:
    logits, ranked, of_file, loaded = json.loads(said)
    expected = artefact(artefact.preprocess([pixels] * 3))
    assert np.allclose(np.float32(logits), expected, atol=1e-4)
    order = np.argsort(-expected[0])[:3].tolist()
    assert ranked == [[index, f"cat {index}"] for index in order]
    assert of_file in (ranked, [])
    return loaded


def test_a_wheel_predicts_in_an_environment_with_numpy_and_pillow_alone(
    environment, labelled, folder, pixels, tmp_path
) -> None:
    artefact = api.compile(labelled, tmp_path / "here", batch=2)
    wheel = package(artefact, tmp_path / "wheels", name="cats", version="1.2")
    again = package(artefact, tmp_path / "again", name="cats", version="1.2")
    made: Environment = environment("model")
    made.fetch(["numpy", "pillow"])
    made.install(wheel)
    from PIL import Image

    Image.fromarray(pixels).save(folder / "p.png")
    used = USED.format(before="", picture='cats.predict("p.png", 3)')
    said = run(made.python, "-c", used, folder=folder)
    assert check_said(said, artefact, pixels) == ["PIL"]
    assert json.loads(said)[2] == json.loads(said)[1]
    without = USED.format(before='sys.modules["PIL"] = None', picture="[]")
    said = run(made.python, "-c", without, folder=folder)
    check_said(said, artefact, pixels)
    refused = "import sys; sys.modules['PIL'] = None; import cats; cats.predict('p.png')"
    done = subprocess.run(
        [made.python, "-c", refused], capture_output=True, text=True, cwd=folder, env=clean(),
        check=False,
    )  # fmt: skip
    assert "need Pillow, which is not installed" in done.stderr
    assert not {"vitc", "torch"} & {path.name for path in made.packages.iterdir()}
    assert wheel.stat().st_size < 2 * artefact.library.stat().st_size
    assert wheel.read_bytes() == again.read_bytes()


def test_a_wheel_for_arm_is_one_for_pip_there_and_predicts_in_an_arm_machine(
    need_userland, labelled, folder, pixels, tmp_path, need_emulator
) -> None:
    # The Python there finds its emulator on the path.
    emulators = str(Path(need_emulator("aarch64")).parent)
    path = f"{emulators}:{os.environ.get('PATH', '')}"
    options = api.CompileOptions(target="arm", check=False)
    artefact = api.compile(labelled, tmp_path / "there", options)
    wheel = package(artefact, tmp_path, name="cats")
    install_for(tmp_path / "site", wheel, "manylinux_2_17_aarch64")
    before = f"sys.path.insert(0, {str(tmp_path / 'site')!r})"
    used = USED.format(before=before, picture="[]")
    said = run(need_userland, "-c", used, folder=folder, PATH=path)
    here = api.compile(labelled, tmp_path / "here", api.CompileOptions(check=False))

    assert check_said(said, here, pixels) == []


def install_for(site: Path, wheel: Path, platform: str) -> None:
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
        *("--only-binary=:all:", "--platform", platform, "--target", site, wheel),
    )


def test_pip_refuses_a_wheel_for_another_machine(labelled, tmp_path) -> None:
    options = api.CompileOptions(target="armv7", check=False)
    wheel = package(api.compile(labelled, tmp_path / "v7", options), tmp_path, name="cats")
    install_for(tmp_path / "site", wheel, "manylinux2014_armv7l")
    assert (tmp_path / "site" / "cats" / "libvitc_model.so").is_file()

    with pytest.raises(AssertionError, match="not a supported wheel"):
        install_for(tmp_path / "other", wheel, "manylinux2014_x86_64")


def test_tags_name_the_machine_of_every_target() -> None:
    named = {"x86_64": "x86_64", "aarch64": "aarch64", "arm": "armv7l"}
    for target in TARGETS.values():
        if target.name == "android-arm64":
            with pytest.raises(VitcError, match="No wheel is for android-arm64"):
                platform_tags(target)
        else:
            machine = named[target.emulator]
            tags = [f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]
            assert platform_tags(target) == tags


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "my cats"}, "is no name of a package"),
        ({"name": "class"}, "is no name of a package"),
        *(({"name": name}, "is a package already") for name in ("vitc", "NumPy", "pil", "json")),
        ({"version": "new"}, "is no version"),
        ({}, "already"),
    ],
)
def test_what_makes_no_wheel_is_refused_in_a_sentence(folder, tmp_path, options, said) -> None:
    kept = package(folder / "here", tmp_path)
    before = kept.read_bytes()
    with pytest.raises(VitcError, match=said):
        package(folder / "here", tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    assert kept.read_bytes() == before


def test_the_core_makes_a_wheel_without_extras(core, folder, tmp_path) -> None:
    done = core.vitc("package", folder / "here", "--name", "cats", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.iterdir()
    assert f"next: pip install {wheel.name}" in done.stderr
    refused = core.vitc("package", folder / "here", "--name", "a b", folder=tmp_path)
    assert refused.returncode == 1
    assert "no name of a package" in refused.stderr
