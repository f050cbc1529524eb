"""A network of binary layers between floats, from vitc.nn to the runner of a target."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vitc import nn
from vitc.compiler import compile_model
from vitc.exporter import export
from vitc.onnx_files import run_with_taps

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

SIDE, WIDTH, HIDDEN = 12, 20, 37


class Between(torch.nn.Module):
    """Overlapping patches, a norm, a GELU, a pool and a softmax around two binary products."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(3, WIDTH, 3, 2, 1)
        self.depth = torch.nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, groups=WIDTH)
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.sign = nn.Binarize()
        self.wide = nn.BinaryLinear(WIDTH, HIDDEN)
        self.sign2 = nn.Binarize()
        self.out = nn.BinaryLinear(HIDDEN, WIDTH)
        self.pool = torch.nn.MaxPool2d(2)
        self.head = torch.nn.Linear(WIDTH, 5)

    def forward(self, image: Tensor) -> Tensor:
        picture = torch.relu(self.embed(image))
        picture = picture + self.depth(picture)
        x = picture.flatten(2).transpose(1, 2)
        y = torch.nn.functional.gelu(self.wide(self.sign(self.norm(x))))
        x = nn.tap("stream", torch.tanh(x) + self.out(self.sign2(y)))
        side = SIDE // 2
        pooled = self.pool(x.transpose(1, 2).reshape(-1, WIDTH, side, side))
        return self.head(torch.softmax(pooled.mean((2, 3)), -1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    model = Between().eval()
    path = tmp_path_factory.mktemp("between") / "m.onnx"
    export(model, path, example=torch.randn(2, 3, SIDE, SIDE))
    return path


@pytest.mark.parametrize("target", ["native", *shared.EMULATED])
def test_taps_and_logits_are_those_of_onnx_runtime(exported, run, target, tmp_path):
    artefact = compile_model(exported, target, tmp_path / "artefact")
    images = np.random.default_rng(2).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    logits, taps = run(artefact, images)
    names = [name for name in ("sign", "sign2", "stream", "logits") if name in taps]
    assert {"sign", "sign2", "stream"} <= set(names)
    expected = run_with_taps(exported, images, ["sign", "sign2", "stream", "logits"])
    for name in names:
        if taps[name].dtype == np.uint8:
            assert np.array_equal(taps[name], expected[name]), name
        else:
            np.testing.assert_allclose(taps[name], expected[name], rtol=0, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=2e-5)
