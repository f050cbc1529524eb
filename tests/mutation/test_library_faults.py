"""Random damage to a library or a manifest, with digests that fit it: no changed logit passes.

`VITC_MUTATIONS=300` tries that many, and `--junit-xml` keeps the seed and the counts.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitc.devices import LocalDevice, RunRequest
from vitc.errors import VitcError
from vitc.runtime import Artefact
from vitc.runtime.artefact import file_sha256
from vitc.verify import CheckOptions, check, rebuilding

LIBRARY = "libvitc_model.so"
COUNT = int(os.environ.get("VITC_MUTATIONS", "40"))


@pytest.fixture(scope="module")
def again(sound, tmp_path_factory) -> Artefact:
    """The sound artefact, compiled again."""
    folder = tmp_path_factory.mktemp("again") / "a"
    return rebuilding.rebuild(Artefact.open(sound), folder, lambda _: None)


@pytest.fixture
def rebuilt_once(monkeypatch, again) -> None:
    """Compile the sound artefact again only once; another one is compiled as it asks for."""
    real = rebuilding.rebuild
    wanted = ("target", "batch", "tiles")

    def rebuild(artefact, folder, say):
        same = all(getattr(artefact.manifest, k) == getattr(again.manifest, k) for k in wanted)
        return again if same else real(artefact, folder, say)

    monkeypatch.setattr(rebuilding, "rebuild", rebuild)


def sealed(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest whose digests are those of the files as they are."""
    if isinstance(manifest.get("files"), dict):
        for name in manifest["files"]:
            if (folder / name).is_file():
                manifest["files"][name] = file_sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def leaves(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of everything in a JSON value that is no container, and of empty containers."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inside:
        if isinstance(part, dict | list) and part:
            yield from leaves(part, (*path, key))
        else:
            yield (*path, key)


def damage_library(folder: Path, chance: random.Random) -> str:
    file = folder / LIBRARY
    data = bytearray(file.read_bytes())
    place, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
    data[place] ^= bit
    file.write_bytes(data)
    sealed(folder, json.loads((folder / "manifest.json").read_text()))
    return f"bit {bit} of byte {place} of {LIBRARY}"


def damage_manifest(folder: Path, chance: random.Random) -> str:
    manifest = json.loads((folder / "manifest.json").read_text())
    path = chance.choice([p for p in leaves(manifest) if p[0] != "files"])
    holder = manifest
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    changes = [None, 0, "x", []]
    if isinstance(old, bool):
        changes = [not old]
    elif isinstance(old, int):
        changes += [old + 1, old - 1, old * 2, old ^ 1 << chance.randrange(12)]
    elif isinstance(old, float):
        changes += [old * 1.01, -old]
    elif isinstance(old, str):
        changes += [old + "x", old[:-1]]
    new = chance.choice([each for each in changes if each != old])
    holder[path[-1]] = new
    sealed(folder, manifest)
    return f"{path}: {old!r} became {new!r}"


def logits(folder: Path) -> bytes | None:
    """What it computes of eight images, on one thread and on two; None if it does not run."""
    images = np.random.default_rng(0).standard_normal((8, 3, 12, 12), dtype=np.float32)
    try:
        artefact = Artefact.open(folder)
        runs = [
            LocalDevice().run(artefact, images, RunRequest(threads=threads, timeout_s=60))
            for threads in (1, 2)
        ]
    except VitcError:
        return None
    return b"".join(run.logits.tobytes() for run in runs)


def passes(folder: Path) -> bool:
    """Whether the comparison of bytes, which `vitc check` takes part of, finds nothing."""
    try:
        artefact = Artefact.open(folder)
        return not rebuilding.compare_with_rebuilt(artefact)[1]
    except VitcError:
        return False


@pytest.mark.usefixtures("rebuilt_once")
def test_no_random_damage_that_changes_a_logit_passes(sound, tmp_path, record_property):
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    record_property("seed", seed)
    whole = logits(sound)
    assert whole is not None
    assert passes(sound)
    found = harmless = 0
    for number in range(COUNT):
        copy = Path(shutil.copytree(sound, tmp_path / "copy"))
        damage = damage_library if number % 2 else damage_manifest
        what = damage(copy, chance)
        if passes(copy):
            assert damage is damage_manifest, f"seed {seed}: {what} is not found"
            assert logits(copy) == whole, f"seed {seed}: {what} changes logits and is not found"
            harmless += 1
        else:
            found += 1
        shutil.rmtree(copy)
    record_property("found, harmless", (found, harmless))
    assert found > COUNT // 2


@pytest.mark.usefixtures("rebuilt_once", "export_once")
@pytest.mark.parametrize("place", ["code", "constants", "end"])
def test_damage_that_no_image_shows_is_not_equal(world, sound, artefact, place):
    file = artefact / LIBRARY
    data = bytearray(file.read_bytes())
    # A constant or an instruction whose change shows in no run, if there is any among these.
    before, chance = logits(sound), random.Random(place)
    middle = {"code": 0.75, "constants": 0.3, "end": 1.0}[place]
    for _ in range(60):
        at = min(len(data) - 1, int(len(data) * (middle + 0.05 * chance.random())))
        changed = bytearray(data)
        changed[at] ^= 1
        file.write_bytes(changed)
        sealed(artefact, json.loads((artefact / "manifest.json").read_text()))
        if logits(artefact) == before:
            break
    else:
        pytest.fail("each of 60 changes shows in a logit")
    report = check(artefact, world.source, CheckOptions(images=1))
    assert not report.equal
    assert any(f"the first at offset {at}" in fault for fault in report.faults)


@pytest.mark.usefixtures("rebuilt_once", "export_once")
def test_the_sound_artefact_has_the_bytes_of_its_onnx_file(world, sound):
    report = check(sound, world.source, CheckOptions(images=1))
    assert report.equal, report.verdict
    assert report.library == rebuilding.SAME_BYTES


@pytest.mark.usefixtures("export_once")
def test_an_artefact_of_another_compiler_is_judged_by_values_and_says_so(world, artefact):
    manifest = json.loads((artefact / "manifest.json").read_text())
    manifest["compiler"] = "0" * 64
    sealed(artefact, manifest)
    report = check(artefact, world.source, CheckOptions(images=1))
    assert report.equal
    assert report.library == rebuilding.OTHER_COMPILER


def test_preprocessing_that_the_onnx_file_does_not_state_is_found(world, artefact, rebuilt_once):
    manifest = json.loads((artefact / "manifest.json").read_text())
    manifest["preprocessing"]["mean"][1] += 0.01
    sealed(artefact, manifest)
    _, faults = rebuilding.compare_with_rebuilt(Artefact.open(artefact))
    assert len(faults) == 1
    assert faults[0].startswith("manifest.json: preprocessing.mean[1] is ")


def test_what_is_compiled_again_is_not_run_for_a_self_test(again, sound):
    own, made = (set(each.manifest.digests) for each in (Artefact.open(sound), again))
    assert own - made == {"self_test.npy", "self_test.expected.npy"}
    assert made < own
