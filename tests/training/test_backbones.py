"""Backbones of several stages are trained, with norms, merging and image size as asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vitc.errors import VitcError
from vitc.models import PRESETS, load, random_images
from vitc.training import TrainOptions, train

RUNS: dict[str, dict[str, Any]] = {
    "micro-swin": {"image_size": (16, 32), "norm": "layer", "scheme": "recu", "merge": "binary"},
    "micro-pvt": {"image_size": (16, 24), "scheme": "bit", "merge": "binary"},
    "micro-nest": {"image_size": (24, 16), "merge": "binary", "mlp_ratio": 3},
    "micro": {"image_size": (16, 24), "norm": "layer", "mlp_ratio": 1},
}


@pytest.mark.parametrize("preset", RUNS)
def test_a_backbone_is_trained_as_it_is_asked_to_be(
    preset: str, class_folders: Path, tmp_path: Path
) -> None:
    asked = RUNS[preset]
    options = TrainOptions(
        out=tmp_path / "m.safetensors",
        data=str(class_folders),
        preset=preset,
        epochs=2,
        batch_size=8,
        depth=1,
        threads=1,
        **asked,
    )
    result = train(options)
    model = load(result.checkpoint)
    named = {name: value for name, value in asked.items() if name != "scheme"}
    wanted = PRESETS[preset].config.replace(classes=3, depth=1, **named)
    assert {**wanted.to_dict(), "scheme": asked.get("scheme", "bibert")} == model.config.to_dict()
    assert model.preprocessing.crop == asked["image_size"]
    assert all(epoch.loss < 3 for epoch in result.history)
    moved = {
        name: (tensor - model.state_dict()[name]).abs().max()
        for name, tensor in _fresh(options).items()
        if tensor.is_floating_point() and tensor.numel() > 1
    }
    still = [name for name, by in moved.items() if by == 0]
    assert still == [], "nothing learnt them"
    with torch.no_grad():
        assert model(random_images(model.config, 2, 1)).isfinite().all()


def _fresh(options: TrainOptions) -> dict[str, torch.Tensor]:
    """What a run begins with."""
    from vitc.training.objectives.classification import Classification

    torch.manual_seed(options.seed)
    return {name: t.clone() for name, t in Classification(options, str).model.state_dict().items()}


def test_a_twin_may_have_the_mlp_of_its_student(class_folders: Path, tmp_path: Path) -> None:
    options = TrainOptions(
        out=tmp_path / "m.safetensors",
        data=str(class_folders),
        full_precision=True,
        mlp_ratio=2,
        depth=1,
    )
    hidden = {key: len(value) for key, value in _fresh(options).items() if key.endswith("1.bias")}
    width = PRESETS["micro"].config.width
    assert hidden["blocks.0.mlp.fc1.bias"] == 2 * width


@pytest.mark.parametrize("option", ["norm", "merge"])
def test_a_full_precision_run_refuses_what_only_binarized_networks_choose(
    option: str, tmp_path: Path
) -> None:
    value = {"norm": "layer", "merge": "binary"}[option]
    with pytest.raises(VitcError, match=f"has no {option}"):
        TrainOptions(out=tmp_path / "m.safetensors", full_precision=True, **{option: value})
