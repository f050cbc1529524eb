from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models import load, preset, random_images, random_model

MODEL = random_model(preset("micro").config.replace(depth=1), 4)
STATE = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def changed(state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {k: v + 1 if k == "head.bias" else v for k, v in state.items()}


def saved(folder: Path, content: Any, name: str = "c.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def compiled_layer() -> dict[str, Tensor]:
    return {name.replace("blocks.0.", "blocks.0._orig_mod."): t for name, t in STATE.items()}


ASSUMED = (
    "no binarization scheme is stated: --scheme bibert is assumed",
    "no bits of weights are stated: --weight-bits 1 is assumed",
    "no labels are stated: classes are numbers, unless --labels names them",
    (
        "no preprocessing is stated: that of ImageNet is assumed, --resize 36 --crop 32 "
        "--interpolation bicubic --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
    ),
)
COUNTERS = {"total_ops": torch.zeros(1), "blocks.0.attn.total_params": torch.zeros(1)}
FIELD = {
    "plain": STATE,
    "torch.compile": prefixed("_orig_mod."),
    "parallel": prefixed("module."),
    "parallel and compiled": prefixed("module._orig_mod."),
    "compiled and parallel": prefixed("_orig_mod.module."),
    "one layer compiled": compiled_layer(),
    "Lightning": {"state_dict": prefixed("model."), "epoch": 3, "optimizer_states": [{"lr": 0.1}]},
    "Lightning, compiled": {"state_dict": prefixed("model._orig_mod."), "callbacks": {}},
    "an unknown attribute": {"state_dict": prefixed("net.student_network.")},
    "tutorial": {"epoch": 3, "model_state_dict": STATE, "optimizer_state_dict": {"state": {}}},
    "net": {"net": STATE, "acc": 0.5},
    "model": {"model": prefixed("module."), "scaler": {}},
    "nested": {"checkpoint": {"weights": {"model": STATE}}},
    "profiled": {**STATE, **COUNTERS},
    "averaged model": {"n_averaged": torch.tensor(5), **prefixed("module.")},
    "parameters": {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in STATE.items()},
    "with a gradient": {k: v * 1 if v.is_floating_point() else v for k, v in STATE.items()},
}


@pytest.mark.parametrize("name", FIELD)
def test_checkpoints_of_the_field_hold_the_same_network(tmp_path: Path, name: str) -> None:
    model = load(saved(tmp_path, FIELD[name]))
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, STATE[key]), key
    images = random_images(model.config, 2)
    assert torch.equal(model(images), MODEL(images))
    model.frozen()  # copies the model, which a tensor with a gradient's history forbids


@pytest.mark.parametrize("suffix", ["pth.tar", "pt", "ckpt", "bin"])
def test_names_that_the_field_gives_to_pickles_are_taken(tmp_path: Path, suffix: str) -> None:
    assert load(saved(tmp_path, {"state_dict": STATE}, f"m.{suffix}")).config == MODEL.config


def test_prefixes_in_safetensors_are_taken_off_and_said(tmp_path: Path) -> None:
    save_file(prefixed("module.backbone."), tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors")
    assert model.config == MODEL.config
    assert model.load_report is not None
    assert model.load_report.notes == ("the prefix backbone. was taken off", *ASSUMED)


def test_what_was_taken_and_what_was_left_is_said(tmp_path: Path) -> None:
    report = load(saved(tmp_path, {"model": {**STATE, **COUNTERS}, "ema": STATE})).load_report
    assert report is not None
    assert report.notes == (
        "model was taken",
        "the file also has ema, which was left",
        "total_ops, total_params were left",
        *ASSUMED,
    )


@pytest.mark.parametrize(
    "content",
    [
        {"model": STATE, "model_ema": changed()},
        {"state_dict": {**prefixed("model."), **prefixed("ema_model.module.", changed())}},
        {"network": {"now": STATE, "ema": {"shadow": changed()}}},
        {**prefixed("net."), **prefixed("ema.", changed())},
    ],
)
def test_averages_are_taken_on_request_only(tmp_path: Path, content: Any) -> None:
    path = saved(tmp_path, content)
    assert torch.equal(load(path).head.bias, STATE["head.bias"])
    assert torch.equal(load(path, ema=True).head.bias, STATE["head.bias"] + 1)


def test_averages_are_taken_where_there_is_nothing_else_and_said(tmp_path: Path) -> None:
    for content in ({"model_ema": STATE, "epoch": 3}, prefixed("ema.module."), {"ema": STATE}):
        model = load(saved(tmp_path, content))
        assert torch.equal(model.head.bias, STATE["head.bias"])
        assert model.load_report is not None
        assert "ema" in model.load_report.notes[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"student": STATE, "teacher": STATE.copy()}, "several networks: student, teacher"),
        (
            {**prefixed("student."), **prefixed("teacher.")},
            r"several networks, with the prefixes student\., teacher\.",
        ),
        (
            {**STATE, **prefixed("teacher.")},
            r"several networks, with the prefixes \(none\), teacher\.",
        ),
        ({**STATE, **prefixed("module.")}, "two tensors that are cls_token"),
        ({**STATE, "criterion.weight": torch.ones(3)}, r"unexpected: criterion\.weight"),
        ({**STATE, "epoch": 3}, "entries that are no tensors: epoch"),
        ([1, 2], "it holds list"),
        ({"optimizer": {}}, "entries that are no tensors: optimizer"),
    ],
)
def test_what_is_not_one_network_is_named(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(VitcError, match=words) as caught:
        load(saved(tmp_path, content))
    assert "c.pth" in caught.value.message


def test_one_container_in_many_places_is_looked_into_once(tmp_path: Path) -> None:
    inner: dict[str, Any] = {str(i): i for i in range(300)}
    for _ in range(3):
        inner = {str(i): inner for i in range(300)}
    with pytest.raises(VitcError, match="entries that are no tensors"):
        load(saved(tmp_path, inner))


def test_programs_are_called_what_they_are(tmp_path: Path) -> None:
    traced = torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3))
    torch.jit.save(traced, tmp_path / "m.pt")
    with pytest.raises(VitcError, match="is a TorchScript archive, which is a program") as caught:
        load(tmp_path / "m.pt")
    assert "state_dict()" in caught.value.hint
    exported = torch.export.export(nn.Linear(3, 2), (torch.ones(1, 3),))
    torch.export.save(exported, tmp_path / "m.pt2")
    (tmp_path / "m.pt2").rename(tmp_path / "e.pt")
    with pytest.raises(VitcError, match=r"is an archive of torch\.export, which is a program"):
        load(tmp_path / "e.pt")
