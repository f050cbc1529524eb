"""Any number of images: read, run and shown in parts, with memory that does not grow with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitc.devices import LocalDevice, picture_network, prediction
from vitc.onnx_files.confined import ConfinedSession
from vitc.training import data

COUNT = 37
PART = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(6)
    (tmp_path / "all" / "sub").mkdir(parents=True)
    for index in range(COUNT):
        place = tmp_path / "all" / ("sub" if index % 3 else "")
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"[b]{index:02d}.png")
    (tmp_path / "all" / "notes.txt").write_text("")
    return tmp_path / "all"


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images that came to a runner or to ONNX Runtime at once, in parts of few."""
    seen: list[int] = []
    on_device, in_session = LocalDevice.run, ConfinedSession.run

    def run(self, artefact, inputs, request):
        seen.append(len(inputs))
        return on_device(self, artefact, inputs, request)

    def run_session(self, names, feed):
        seen.append(len(next(iter(feed.values()))))
        return in_session(self, names, feed)

    monkeypatch.setattr(LocalDevice, "run", run)
    monkeypatch.setattr(ConfinedSession, "run", run_session)
    for name in ("_BYTES", "_ONNX_BYTES"):
        monkeypatch.setattr(picture_network, name, PART * 3 * 32 * 32 * 4 + 100)
    return seen


@pytest.mark.parametrize("kind", ["artefact", "onnx"])
def test_a_folder_of_many_images_is_a_line_an_image_and_one_array(
    vitc, built, folder, sizes, kind
) -> None:
    out = folder.parent / "logits.npy"
    ran = vitc("run", getattr(built, kind), folder, "--out", out)
    assert ran.code == 0, ran.err
    assert sizes == [PART] * (COUNT // PART) + [COUNT % PART]
    lines = ran.out.splitlines()
    assert lines[0].split() == ["input", "class", "probability", "logit"]
    names = [str(path) for path in sorted(folder.rglob("*.png"))]
    assert [line.split()[0] for line in lines[1:]] == names
    assert "left out: 1 .txt" in ran.err
    logits = np.load(out)
    assert logits.shape == (COUNT, 10)
    assert [int(line.split()[1]) for line in lines[1:]] == logits.argmax(axis=1).tolist()
    single = folder.parent / "one.npy"
    assert vitc("run", getattr(built, kind), names[-1], "--out", single).code == 0
    np.testing.assert_allclose(np.load(single)[0], logits[-1], atol=1e-5)


def test_json_of_parts_is_the_document_of_the_whole(vitc, built, folder, sizes) -> None:
    whole = prediction.predict(built.artefact, [folder])
    ran = vitc("run", built.artefact, folder, "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.out == json.dumps(whole.to_dict(5), indent=2) + "\n"
    written = folder.parent / "x.json"
    assert vitc("run", built.artefact, folder, "--topk", 2, "--json", written).code == 0
    assert written.read_text() == json.dumps(whole.to_dict(2), indent=2) + "\n"


def test_an_unreadable_image_ends_the_run_and_leaves_no_array(vitc, built, folder, sizes) -> None:
    last = sorted(folder.rglob("*.png"))[-1]
    last.write_bytes(last.read_bytes()[:100])
    out = folder.parent / "logits.npy"
    ran = vitc("run", built.artefact, folder, "--out", out)
    assert ran.code == 1
    assert f"The image {last} cannot be read" in ran.err
    assert len(sizes) == COUNT // PART
    assert not out.exists()
    assert list(folder.parent.glob(".*")) == []


def test_a_check_looks_at_a_few_images_at_once(vitc, built, folder, sizes, monkeypatch) -> None:
    decoded: list[int] = []
    fetch = data.Dataset.__getitems__

    def note(self, indices):
        decoded.append(len(indices))
        return fetch(self, indices)

    monkeypatch.setattr(data.Dataset, "__getitems__", note)
    ran = vitc(
        *("check", built.onnx, "--reference", built.checkpoint),
        *("--data", folder / "sub", "--images", 2, "--json", "-"),
    )
    assert ran.code == 0, ran.err
    assert ran.json["images"] == len(list((folder / "sub").iterdir()))
    assert max(decoded) <= 16
    assert sum(decoded) == ran.json["images"] + 2
