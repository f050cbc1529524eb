"""Every kind of network of a task is trained, told of and read back; what cannot be is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tasks.networks import exported
from vitc import VitcError, api, inspect
from vitc.models.checkpoint import load
from vitc.models.network import Network
from vitc.onnx_files import run_with_taps
from vitc.training.tasks.options import TaskOptions
from vitc.training.tasks.train import train_task

TASKS = ("detection", "segmentation")

KINDS: dict[str, dict[str, Any]] = {
    "twin": {"preset": "micro-swin", "full_precision": True, "image_size": (32, 64)},
    "control": {"preset": "micro-swin", "blocks": False},
    "light head": {"preset": "micro-swin", "tower": "depthwise"},
    "binary head on PVT": {"preset": "micro-pvt", "tower": "pointwise", "binary_head": True},
    "ReCU": {"scheme": "recu", "tower": "depthwise", "binary_head": True},
    "rectangular PVT": {"preset": "micro-pvt", "image_size": (32, 64)},
    "NesT": {"preset": "micro-nest", "si": False},
    "BiT, elastic": {"scheme": "bit", "elastic": True, "image_size": (40, 32)},
    "LayerNorm, binary merging": {"preset": "micro-swin", "norm": "layer", "merge": "binary"},
    "32-bit weights": {"weight_bits": 32},
}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("_TRAINED", 4), ("_VALIDATED", 2), ("_HELD", 2)):
        monkeypatch.setattr(f"vitc.training.tasks.data.{name}", count)


def trained(folder: Path, task: str, name: str = "m", **options: Any) -> Path:
    asked = {"preset": "micro", "image_size": 32, "epochs": 1, "batch_size": 4} | options
    out = folder / f"{name}.safetensors"
    result = train_task(TaskOptions(task=task, out=out, **asked))
    assert math.isfinite(result.history[0].loss)
    assert all(0 <= value <= 1 for value in result.test.values())
    return out


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_trained_and_what_is_told_of_it_is_what_it_has(
    tmp_path: Path, task: str, kind: str
) -> None:
    out = trained(tmp_path, task, **KINDS[kind])
    model = load(out)
    assert model.config.arch == task
    assert (model.config.blocks == 0) == (kind == "control")
    binary_head = KINDS[kind].get("binary_head", False)
    assert model.config.binarized == (kind not in ("twin", "control"))
    told = {layer.name: layer for layer in inspect(out).account.layers}
    assert sum(each.parameters for each in told.values()) == sum(
        parameter.numel() for parameter in model.parameters()
    )
    heads = [each for name, each in told.items() if name.startswith("head.")]
    assert any(each.binary_weights for each in heads) == binary_head


@pytest.mark.parametrize("task", TASKS)
def test_a_student_begins_with_its_twin_and_learns_from_it(tmp_path: Path, task: str) -> None:
    twin = trained(tmp_path, task, "twin", full_precision=True)
    notes: list[str] = []
    out = tmp_path / "m.safetensors"
    options = TaskOptions(
        task=task, out=out, preset="micro", image_size=32, epochs=1, batch_size=4, start=twin,
        teacher=twin, learning_rate=1e-9, warmup_epochs=0,
    )  # fmt: skip
    result = train_task(options, note=notes.append)
    assert "copied from" in notes[0]
    parts = result.history[0].parts
    assert {"features", "soft"} <= set(parts)
    assert parts["features"] > 0
    name = "neck.8.0.weight" if task == "detection" else "classes.weight"
    both = [dict(load(path).named_parameters()) for path in (twin, out)]
    found = {key for key in both[1] if key.startswith(("neck.", "classes."))}
    assert name.split(".")[0] in {key.split(".")[0] for key in found}
    for key in found:
        assert torch.allclose(both[1][key], both[0][key], atol=1e-6), key


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("detection", KINDS["binary head on PVT"]),
        ("segmentation", KINDS["NesT"]),
    ],
)
def test_maps_of_an_exported_file_are_those_of_the_network(
    tmp_path: Path, task: str, options: dict[str, Any]
) -> None:
    out = trained(tmp_path, task, **options)
    onnx = tmp_path / "m.onnx"
    api.export(out, onnx, api.ExportOptions(check=False))
    assert_same_maps(load(out).eval(), onnx)


def test_a_binary_head_that_serves_several_levels_is_exported(tmp_path: Path) -> None:
    head = {"tower": "pointwise", "binary_head": True, "strides": (8, 16)}
    _, onnx = exported(tmp_path, "detection", size=32, **head)
    assert_same_maps(load(tmp_path / "detection.safetensors").eval(), onnx)


def assert_same_maps(model: Network, onnx: Path) -> None:
    """Of all images but one or two, whose sums may be rounded to the other side of a threshold."""
    images = torch.from_numpy(
        np.random.default_rng(2).standard_normal((8, 3, 32, 32)).astype(np.float32)
    )
    with torch.no_grad():
        wanted = model(images)
    wanted = wanted if isinstance(wanted, dict) else {"logits": wanted}
    found = run_with_taps(onnx, images.numpy(), list(wanted))
    same = np.ones(len(images), bool)
    for name, value in wanted.items():
        close = np.isclose(found[name], value.numpy(), atol=1e-3)
        same &= close.reshape(len(images), -1).all(axis=1)
    assert same.sum() >= len(images) - 2, same


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("detection", {"full_precision": True, "tower": "pointwise", "binary_head": True},
         "twin has no binary head"),
        ("segmentation", {"binary_head": True}, "dense tower has no 1 x 1 layers"),
        ("detection", {"void": 3}, "--void is of masks"),
        ("detection", {"preset": "micro-swin", "image_size": (60, 80)}, "multiple of"),
        ("segmentation", {"tower": "wide"}, "There is no tower 'wide'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(
    tmp_path: Path, task: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(VitcError, match=words):
        trained(tmp_path, task, **options)


def test_a_teacher_of_another_task_or_size_is_one_sentence(tmp_path: Path) -> None:
    boxes = trained(tmp_path, "detection", "boxes", depth=1)
    for task, options, words in (
        ("segmentation", {}, "is no network of segmentation"),
        ("detection", {"image_size": (32, 64)}, "has other maps"),
    ):
        with pytest.raises(VitcError, match=words):
            trained(tmp_path, task, depth=1, teacher=boxes, **options)
