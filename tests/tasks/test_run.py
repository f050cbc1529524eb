"""`vitc run` of a detector and of a segmentation network: pixels of the original photo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tasks.networks import LABELS, compiled, exported
from vitc.models.checkpoint import load
from vitc.runtime.detection import DecodeOptions, decode
from vitc.runtime.overlay import colour
from vitc.runtime.segmentation import classes_of_pixels

SIZE = (64, 96)
WIDE, HIGH = 300, 128
"""Of the photo: halved it is 150 x 64, so that 27 columns are cut off on the left."""


@pytest.fixture(scope="module", params=["detection", "segmentation"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Task, checkpoint, ONNX file, artefact, photo."""
    folder = tmp_path_factory.mktemp(request.param)
    paths = exported(folder, request.param, size=SIZE)
    random = np.random.default_rng(8)
    few = Image.fromarray(random.integers(0, 256, (8, 17, 3), dtype=np.uint8))
    few.resize((WIDE, HIGH), Image.Resampling.BICUBIC).save(folder / "photo.png")
    return request.param, *paths, compiled(paths[1]).path, folder / "photo.png"


def wanted_boxes(maps: dict[str, Any], least: float) -> list[list[float]]:
    """Class, score and sides, from maps, where the photo is known to be halved."""
    found = decode(maps, (8,), SIZE, DecodeOptions(score=least))
    sides = found.boxes.astype(np.float64) * 2 + [54, 0, 54, 0]
    return [
        [int(own), float(score), *map(float, box)]
        for own, score, box in zip(found.classes, found.scores, sides, strict=True)
    ]


def test_what_is_told_is_what_the_network_sees_in_pixels_of_the_photo(
    vitc: Any, made: Any, tmp_path: Path
) -> None:
    task, checkpoint, onnx, artefact, photo = made
    model = load(checkpoint)
    pixels = model.preprocessing.apply(photo)
    np.save(tmp_path / "x.npy", pixels[None])
    shown = {}
    for source in (artefact, onnx):
        done = vitc("run", source, photo, "--json", "-", "--out", tmp_path / "m.npz", "--force")
        assert done.code == 0, done.err
        (entry,) = done.json["inputs"]
        shown[source] = entry
        with np.load(tmp_path / "m.npz") as file:
            maps = {name: file[name] for name in file.files}
        assert set(maps) == set(artefact_outputs(task))
        assert entry["picture"] == {"width": WIDE, "height": HIGH}
        if task == "detection":
            one = {name: value[0] for name, value in maps.items()}
            found = [[box["index"], box["score"], *box["box"]] for box in entry["boxes"]]
            wanted = wanted_boxes(one, 0.2)
            assert len(wanted) > 3
            assert np.allclose(found, wanted, rtol=1e-6)
            assert [box["label"] for box in entry["boxes"]] == [LABELS[int(w[0])] for w in wanted]
        else:
            mask = classes_of_pixels(maps["logits"][0], SIZE)
            shares = {each["label"]: each["share"] for each in entry["shares"]}
            counts = {LABELS[k]: int((mask == k).sum()) for k in np.unique(mask)}
            assert shares == {name: count / mask.size for name, count in counts.items()}
            assert list(shares.values()) == sorted(shares.values(), reverse=True)
    array = vitc("run", artefact, tmp_path / "x.npy", "--json", "-")
    (entry,) = array.json["inputs"]
    assert entry["picture"] == {"width": SIZE[1], "height": SIZE[0]}
    key = "boxes" if task == "detection" else "shares"
    assert len(entry[key]) == len(shown[artefact][key])


def artefact_outputs(task: str) -> list[str]:
    return ["logits"] if task == "segmentation" else ["classes_8", "boxes_8", "centreness_8"]


def test_the_overlay_is_the_photo_with_boxes_or_classes_where_they_are(
    vitc: Any, made: Any, tmp_path: Path
) -> None:
    task, _, _, artefact, photo = made
    done = vitc(
        "run", artefact, photo, "--save-overlay", tmp_path / "o.png", "--json", tmp_path / "o.json",
        "--topk", 3,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "photo.png" in done.out
    with Image.open(tmp_path / "o.png") as file:
        drawn = np.asarray(file.convert("RGB")).astype(int)
    with Image.open(photo) as file:
        plain = np.asarray(file.convert("RGB")).astype(int)
    assert drawn.shape == plain.shape == (HIGH, WIDE, 3)
    (entry,) = json.loads((tmp_path / "o.json").read_text())["inputs"]
    if task == "detection":
        assert len(entry["boxes"]) == 3
        box = entry["boxes"][-1]  # what is drawn last hides others
        left, _, right, bottom = map(int, box["box"])
        lower = drawn[bottom - 1, left + 1 : right - 1]
        assert (lower == colour(box["index"])).all()
        assert (drawn[bottom:, right:] == plain[bottom:, right:]).mean() > 0.5
        return
    assert (drawn[:, :53] == plain[:, :53]).all()
    assert (drawn[:, 247:] == plain[:, 247:]).all()
    changed = (drawn[:, 54:246] != plain[:, 54:246]).any(axis=2).mean()
    told = {each["label"]: each["share"] for each in entry["shares"]}
    assert changed == pytest.approx(1 - told.get("background", 0.0), abs=0.03)


def test_many_inputs_are_told_line_by_line_and_boxes_above_the_score_asked_for(
    vitc: Any, made: Any, tmp_path: Path
) -> None:
    task, _, _, artefact, _ = made
    random = np.random.default_rng(1)
    np.save(tmp_path / "x.npy", random.standard_normal((18, 3, *SIZE)).astype(np.float32))
    done = vitc("run", artefact, tmp_path / "x.npy", "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    assert all(f"x.npy[{index}]" in done.out for index in range(18))
    entries = json.loads((tmp_path / "r.json").read_text())["inputs"]
    assert len(entries) == 18
    if task == "segmentation":
        assert all(sum(s["share"] for s in e["shares"]) == pytest.approx(1) for e in entries)
        return
    none = vitc("run", artefact, tmp_path / "x.npy", "--score", 1, "--json", "-")
    assert [entry["boxes"] for entry in none.json["inputs"]] == [[]] * 18
    few = vitc("run", artefact, tmp_path / "x.npy", "--score", 0.6, "--json", "-")
    found, fewer = (
        [box for e in told for box in e["boxes"]] for told in (entries, few.json["inputs"])
    )
    assert 0 < len(fewer) < len(found)
    assert all(box["score"] > 0.59 for box in fewer)


def test_what_does_not_fit_is_one_sentence(vitc: Any, made: Any, tmp_path: Path) -> None:
    task, _, _, artefact, photo = made
    overlay = ("--save-overlay", tmp_path / "o.png")
    cases = [((photo, photo, *overlay), "draws one picture, found 2")]
    if task == "segmentation":
        cases.append(((photo, "--score", 0.5), "--score is of boxes"))
    for arguments, words in cases:
        done = vitc("run", artefact, *arguments)
        assert done.code == 1
        assert words in done.err
    assert not (tmp_path / "o.png").exists()
