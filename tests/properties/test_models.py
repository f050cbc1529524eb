"""Whole networks of generated sizes: PyTorch = ONNX Runtime = this machine = 64-bit ARM."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from vitc.compiler import compile_model
from vitc.devices import LocalDevice, QemuDevice
from vitc.errors import VitcError
from vitc.exporter import export
from vitc.models import ModelConfig
from vitc.models.initialise import random_model
from vitc.models.sibivit import SIBiViT
from vitc.verify import CheckOptions, check
from vitc.verify.portable import check_against_onnx

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)


@st.composite
def configurations(draw) -> ModelConfig:
    heads, patch = draw(st.integers(1, 4)), draw(st.sampled_from([2, 3, 4]))
    si = draw(st.booleans())
    return ModelConfig(
        image_size=patch * draw(st.integers(1, 5)),
        patch_size=patch,
        width=heads * draw(st.integers(3, 40)),
        depth=1,
        heads=heads,
        hidden=draw(st.integers(1, 140)),
        classes=draw(st.integers(1, 40)),
        si=si,
        si_hidden=draw(st.integers(1, 40)) if si else 0,
    )


@torch.no_grad()
def degenerate(model: SIBiViT, seed: int) -> None:
    """Gains of zero and of both signs, slopes of zero, shifts of +0 and -0 and denormals."""
    generator = torch.Generator().manual_seed(seed)
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0])
    for name, parameter in model.named_parameters():
        if name.startswith("blocks") and (".norm" in name or ".move" in name or "prelu" in name):
            chosen = torch.rand(parameter.shape, generator=generator) < 0.2
            places = torch.randint(len(special), parameter.shape, generator=generator)
            parameter.copy_(torch.where(chosen, special[places], parameter))


@shared.examples(4)
@given(configurations(), st.integers(0, 1000), st.integers(1, 3), st.booleans())
def test_every_bit_and_integer_agrees(
    tmp_path_factory, need_emulator, cfg, seed, batch, with_degenerate
):
    need_emulator("aarch64")
    folder = tmp_path_factory.mktemp("model")
    model = random_model(cfg, seed)
    if with_degenerate:
        degenerate(model, seed)
    export(model, folder / "m.onnx")
    native = compile_model(folder / "m.onnx", "native", folder / "native", batch=batch)
    report = check(native.path, model, CheckOptions(images=2, rebuild=False))
    assert report.equal, report.first_difference
    arm = compile_model(folder / "m.onnx", "arm", folder / "arm", batch=batch)
    for artefact, device in ((native, LocalDevice()), (arm, QemuDevice())):
        strict = check_against_onnx(artefact, device, images=3)
        assert strict.equal, (device.name, strict.first_difference)
        assert sum(layer.kind == "bits" for layer in strict.layers) >= 7


def test_a_scale_whose_products_are_beyond_fp32_is_refused(tmp_path):
    config = ModelConfig(image_size=4, patch_size=4, width=8, depth=1, heads=1, hidden=8, classes=2)
    export(random_model(config, 1), tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    scale = next(t for t in proto.graph.initializer if t.name == "blocks.0.mlp.hidden.scale")
    scale.CopyFrom(numpy_helper.from_array(np.full(8, 1e38, np.float32), scale.name))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(VitcError, match="beyond fp32"):
        compile_model(tmp_path / "m.onnx", "native", tmp_path / "out")
