"""Words become rows of a table: an input that picks rows, from PyTorch to the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vitc
from tests.randomised import randomised
from vitc import api, nn
from vitc.errors import VitcError
from vitc.exporter import export
from vitc.verify import CheckOptions

WORDS, LENGTH, WIDTH = 37, 7, 40


class Text(torch.nn.Module):
    """Words [B, 7] to [B, 3]; the first two are read again, by another table of fewer rows."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, WIDTH)
        self.opening = torch.nn.Embedding(WORDS - 5, WIDTH)
        self.places = torch.nn.Parameter(torch.randn(1, LENGTH, WIDTH))
        self.norm = nn.AxisNorm(LENGTH)
        self.attend = nn.BinaryAttention(WIDTH, 2, LENGTH)
        self.head = torch.nn.Linear(WIDTH, 3)

    def forward(self, words: Tensor) -> Tensor:
        x = nn.tap("embedded", self.words(words) + self.places)
        x = nn.tap("attended", x + self.attend(self.norm(x)))
        opening = nn.tap("opening", self.opening(words.flip(1)[:, 4:6]))
        return self.head(x.mean(1) + opening.sum(1))


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> tuple[Path, Text]:
    torch.manual_seed(5)
    model = randomised(Text(), 5)
    path = tmp_path_factory.mktemp("text") / "m.onnx"
    export(model, path, example=torch.zeros(2, LENGTH, dtype=torch.int64))
    return path, model


@pytest.mark.parametrize(("target", "device"), [("native", "local"), ("arm", "qemu")])
def test_every_value_is_that_of_the_model(text, tmp_path, target, device):
    artefact = api.compile(text[0], tmp_path / "out", api.CompileOptions(target=target))
    assert artefact.manifest.check["equal"]
    report = vitc.check(artefact.path, text[1], CheckOptions(images=5, device=device))
    assert report.equal, report.first_difference
    assert {"embedded", "attended", "opening"} <= {layer.name for layer in report.layers}


def test_an_index_beyond_the_smallest_table_is_refused_before_a_kernel_reads(text, tmp_path):
    artefact = api.compile(text[0], tmp_path / "out", api.CompileOptions(check=False))
    (port,) = artefact.manifest.entries[0].inputs
    assert (port.name, port.dtype, port.shape, port.limit) == ("input", "int32", (7,), WORDS - 5)
    words = np.arange(WORDS - 5 - 14, WORDS - 5).reshape(2, LENGTH)
    assert artefact.load().run({"input": words})["logits"].shape == (2, 3)
    for wrong in (words + 1, words - 30):
        with pytest.raises(VitcError, match="input holds"):
            artefact.load().run({"input": wrong})


class Clamped(torch.nn.Module):
    """Rows that are picked by what something computes."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, WIDTH)
        self.norm = nn.AxisNorm(LENGTH)
        self.mlp = nn.BinaryMLP(WIDTH, WIDTH, LENGTH)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words.clamp(0, WORDS - 1))
        return x + self.mlp(self.norm(x))


def test_rows_that_something_computed_picks_are_refused(tmp_path):
    export(Clamped(), tmp_path / "m.onnx", example=torch.zeros(2, LENGTH, dtype=torch.int64))
    with pytest.raises(VitcError, match="picked by something else than an input of integers"):
        api.compile(tmp_path / "m.onnx", tmp_path / "out")
