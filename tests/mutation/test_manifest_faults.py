"""Faults put into an artefact folder: stale files and a stale manifest never count as equal."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vitc.errors import VitcError
from vitc.runtime import Artefact

pytestmark = pytest.mark.usefixtures("export_once")

Manifest = dict[str, Any]


def read(folder: Path) -> Manifest:
    return json.loads((folder / "manifest.json").read_text())


def write(folder: Path, manifest: Manifest, *, sealed: bool) -> None:
    """Write a manifest; sealed with the digests that fit the files as they are."""
    if sealed:
        for name in manifest["files"]:
            manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_sound_artefact_is_equal(world, sound):
    report = world.judge(sound)
    assert report.equal
    assert not report.near_ties


@pytest.mark.parametrize("sealed", [False, True], ids=["old digest", "new digest"])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("libvitc_model.so", "embedding"),
        ("model.onnx", "embedding"),
    ],
)
def test_a_stale_file_of_another_model_is_named(world, artefact, foreign, name, place, sealed):
    shutil.copyfile(foreign / name, artefact / name)
    write(artefact, read(artefact), sealed=sealed)
    report = world.judge(artefact)
    assert not report.equal
    assert report.first_difference == place
    assert any(name in fault for fault in report.faults) != sealed
    if not sealed:
        with pytest.raises(VitcError, match=name):
            Artefact.open(artefact)


def test_a_whole_artefact_of_another_model_is_not_equal(world, foreign):
    report = world.judge(foreign)
    assert not report.equal
    assert report.first_difference == "embedding"


@dataclass(frozen=True)
class Stale:
    """A stale entry of the manifest.

    Attributes:
        name: What is wrong.
        change: Does it.
        says: Part of the name of the layer, or of the sentence that refuses it.
    """

    name: str
    change: Callable[[Manifest], object]
    says: str


def step(manifest: Manifest, tap: str) -> Manifest:
    """What the step of a tap writes."""
    steps = manifest["entries"][0]["steps"]
    return next(s["writes"][0] for s in steps if s["tap"] == f"blocks.1.{tap}")


def port(manifest: Manifest, kind: str) -> Manifest:
    return manifest["entries"][0][kind][0]


def layout(tap: str, **changes: Any) -> Callable[[Manifest], object]:
    return lambda manifest: step(manifest, tap)["layout"].update(changes)


def views(tap: str, found: list[Any]) -> Callable[[Manifest], object]:
    return lambda manifest: step(manifest, tap)["taps"][0].update(views=found)


def swap_steps(manifest: Manifest) -> None:
    one, other = step(manifest, "attn.query"), step(manifest, "attn.key")
    first, second = one["taps"][0], other["taps"][0]
    first["name"], second["name"] = second["name"], first["name"]


def rename(manifest: Manifest) -> None:
    entry = step(manifest, "mlp.input")
    entry["tap"] = entry["taps"][0]["name"] = "blocks.9.mlp.input"


STALE = [
    Stale("layout of another instruction set", layout("attn.key", lanes=32), "blocks.1.attn.key"),
    Stale("elements of another width", layout("attn.value", element_bits=32), "attn.value"),
    Stale("other heads", layout("attn.context", axis={"size": 2, "groups": 21}), "attn.context"),
    Stale("axes not exchanged", views("attn.value", []), "attn.value"),
    Stale("another stride", layout("mlp.output", stride=42), "mlp.output"),
    Stale("no view", views("attn.query", []), "attn.query"),
    Stale("an unknown view", views("attn.query", [["rotate", [1]]]), "rotate"),
    Stale("a view of another shape", views("attn.query", [["reshape", [7]]]), "attn.query"),
    Stale("a field too many", layout("attn.query", swap=True), "attn.query"),
    Stale("an unknown kind", layout("attn.query", kind="tiles"), "tiles"),
    Stale("a kind of another step", layout("attn.query", kind="columns"), "attn.query"),
    Stale("no rows", layout("attn.query", rows=-1), "attn.query"),
    Stale("exchanged taps", swap_steps, "blocks.1.attn.query"),
    Stale("another size of a buffer", lambda m: step(m, "attn.query").update(bytes=4), "trace"),
    Stale("a step less", lambda m: m["entries"][0]["steps"].pop(3), "trace"),
    Stale("no steps", lambda m: m["entries"][0].update(steps=[]), "steps"),
    Stale("another tap name", rename, "blocks.1.mlp.input"),
    Stale("another image size", lambda m: port(m, "inputs").update(shape=[3, 16, 16]), "image"),
    Stale("another target", lambda m: m["target"].update(name="armv7"), "armv7"),
    Stale("another width", lambda m: m["config"].update(width=44), "width 44"),
    Stale("other heads in the configuration", lambda m: m["config"].update(heads=3), "heads 3"),
]  # fmt: skip


@pytest.mark.parametrize("stale", STALE, ids=lambda stale: stale.name)
def test_a_stale_manifest_is_refused_or_named(world, artefact, stale):
    manifest = read(artefact)
    before = json.dumps(manifest)
    stale.change(manifest)
    assert json.dumps(manifest) != before
    write(artefact, manifest, sealed=True)
    report, refused = world.verdict(artefact)
    if report is None:
        assert stale.says in refused
        return
    assert not report.equal
    assert stale.says in f"{report.first_difference} {report.faults}", report.first_difference


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(batch=2), "batch 1"),
        (lambda m: port(m, "inputs").update(shape=[1, 12, 12]), r"N, 3, 12, 12\] \(not"),
        (lambda m: (port(m, "inputs").update(shape=[3, 8, 8]), m.update(config={})), "3, 12, 12"),
        (lambda m: (port(m, "outputs").update(shape=[4]), m.update(config={})), r"\[N, 5\]"),
        (lambda m: port(m, "inputs").update(name="other"), "input float32"),
        (lambda m: port(m, "inputs").update(dtype="int32"), "input float32"),
        (lambda m: port(m, "inputs").update(per_image=False), "input float32"),
        (lambda m: m["entries"][0].update(name="other"), "run with"),
        (lambda m: m["entries"][0]["steps"].pop(), "steps"),
    ],
)
def test_sizes_that_are_not_the_library_s_are_refused_before_it_runs(artefact, change, says):
    # Memory is made by the manifest and touched by the library.
    manifest = read(artefact)
    change(manifest)
    write(artefact, manifest, sealed=True)
    with pytest.raises(VitcError, match=says):
        Artefact.open(artefact).load()
