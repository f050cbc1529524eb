"""Training full-precision twins, and learning from them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.twin_checkpoints import random_twin, theirs
from vitc import load_twin, names
from vitc.bench import inspect
from vitc.errors import VitcError
from vitc.models import PRESETS, build_network, load, random_images, random_model
from vitc.models.architectures import TWINS, twin_preset
from vitc.models.twins.sources import SOURCES
from vitc.training import TrainOptions, train
from vitc.training.teacher import Teacher

MICROS = ("micro", "micro-swin", "micro-pvt", "micro-nest")


def quick(out: Path, data: Path, **changes: Any) -> TrainOptions:
    base = TrainOptions(
        out=out, data=str(data), epochs=1, batch_size=8, seed=3, full_precision=True
    )
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("name", MICROS)
def test_the_twin_of_a_preset_is_trained_and_its_checkpoint_says_what_it_is(
    name: str, class_folders: Path, tmp_path: Path
) -> None:
    result = train(quick(tmp_path / "m.safetensors", class_folders, preset=name))
    model = load_twin(result.checkpoint)
    assert model.config == twin_preset(name).config.replace(classes=3)
    assert model.config.arch in TWINS
    assert model.labels == ("dark", "grey", "light")
    assert model.history["options"]["full_precision"] is True
    assert result.curve.is_file()
    assert result.history_file.is_file()
    found = inspect(result.checkpoint)
    assert found.config == model.config
    assert found.account.parameters == sum(p.numel() for p in model.parameters())
    assert not found.account.binary_macs


def test_a_twin_learns(class_folders: Path, tmp_path: Path) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, epochs=12, depth=1, augment=False)
    result = train(options)
    assert result.history[-1].loss < 0.8 * result.history[0].loss


def test_a_resumed_twin_equals_an_uninterrupted_one(class_folders: Path, tmp_path: Path) -> None:
    whole = quick(tmp_path / "whole.safetensors", class_folders, epochs=3, depth=1)
    train(whole)
    cut = dataclasses.replace(whole, out=tmp_path / "cut.safetensors")

    def stop(report: Any) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, stop)
    train(dataclasses.replace(cut, resume=True))
    own, other = load_file(whole.out), load_file(cut.out)
    assert own.keys() == other.keys()
    assert all(torch.equal(own[key], other[key]) for key in own)


def hub_folder(folder: Path, classes: int) -> Path:
    """The twin of micro, as Hugging Face would write it."""
    folder.mkdir()
    config = twin_preset("micro").config.replace(classes=classes, depth=2)
    source = SOURCES["Hugging Face ViT"]
    save_file(theirs(random_twin(config), source), folder / "model.safetensors")
    stated = {"num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    (folder / "config.json").write_text(json.dumps(stated))
    return folder


def test_a_checkpoint_of_another_program_teaches(class_folders: Path, tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "hub", 3)
    shown = {"image_mean": [0.2, 0.3, 0.4], "image_std": [0.1, 0.2, 0.3], "size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    preset = PRESETS["micro"]
    student = random_model(preset.config.replace(classes=3), 1, preset.preprocessing)
    images = random_images(preset.config, 2)
    twin = load_twin(folder)
    mean, std = (torch.tensor(values)[:, None, None] for values in shown_values(shown))
    with torch.no_grad():
        expected = twin((0.5 * images + 0.5 - mean) / std)
        torch.testing.assert_close(Teacher(folder, student)(images), expected)
    plain = quick(tmp_path / "a.safetensors", class_folders, full_precision=False, depth=1)
    taught = dataclasses.replace(plain, out=tmp_path / "b.safetensors", teacher=folder)
    assert train(plain).history[0].loss != train(taught).history[0].loss
    assert load(taught.out).history["options"]["teacher"] == twin.source_sha256


def shown_values(shown: dict[str, Any]) -> tuple[list[float], list[float]]:
    return shown["image_mean"], shown["image_std"]


def test_a_trained_twin_teaches(class_folders: Path, tmp_path: Path) -> None:
    twin = train(quick(tmp_path / "twin.safetensors", class_folders, depth=1)).checkpoint
    options = quick(
        tmp_path / "m.safetensors", class_folders, full_precision=False, depth=1, teacher=twin
    )
    assert train(options).history[0].loss > 0


def test_a_twin_starts_from_a_checkpoint_of_another_program_with_other_classes(
    class_folders: Path, tmp_path: Path
) -> None:
    folder = hub_folder(tmp_path / "hub", 7)
    options = quick(
        tmp_path / "m.safetensors", class_folders, depth=2, start=folder, learning_rate=1e-9
    )
    model = load_twin(train(options).checkpoint)
    before = load_twin(folder)
    torch.testing.assert_close(model.blocks[1].mlp.fc1.weight, before.blocks[1].mlp.fc1.weight)
    assert model.head.weight.shape == (3, 64)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"si": True}, "no si"),
        ({"weight_bits": 32}, "no weight_bits"),
        ({"scheme": "recu"}, "no scheme"),
        ({"scheme": "bit", "elastic": True}, "no scheme"),
    ],
)
def test_what_is_said_of_bits_is_refused_of_a_twin(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(VitcError, match=message):
        quick(tmp_path / "m.safetensors", tmp_path, **changed)


def test_another_depth_of_several_stages_is_refused(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(VitcError, match="no depth 3"):
        train(quick(tmp_path / "m.safetensors", class_folders, preset="micro-swin", depth=3))


def test_every_name_of_a_twin_is_a_preset() -> None:
    for name in names.PRESETS.known:
        assert twin_preset(name).config.arch in TWINS
    with pytest.raises(VitcError, match="micro-swin"):
        twin_preset("micro-swing")


PUBLISHED = {
    "deit-tiny": "timm_deit_tiny_patch16_224",
    "deit-small": "timm_deit_small_patch16_224",
    "swin-tiny": "timm_swin_tiny_patch4_window7_224",
    "pvt-tiny": "whai362_pvt_tiny",
    "nest-tiny": "timm_nest_tiny_jx",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_golden_twins_of_presets_have_the_published_parameters(golden: Path, name: str) -> None:
    listed = json.loads((golden / "twins" / "keys" / f"{PUBLISHED[name]}.json").read_text())
    with torch.device("meta"):
        network = build_network(twin_preset(name).config)
    published = sum(torch.Size(shape).numel() for _, shape in listed["keys"])
    assert sum(p.numel() for p in network.parameters()) == published
