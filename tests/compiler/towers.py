"""Two small towers of one file, and their scan."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from tests.randomised import randomised
from vitc import nn
from vitc.dialect.entries import Entries, Scan
from vitc.exporter import export
from vitc.models import ops

__all__ = ["IMAGE_VECTORS", "TEXT_VECTORS", "WIDTH", "Image", "Text", "Towers", "exported"]

WIDTH, IMAGE_VECTORS, TEXT_VECTORS = 40, 5, 7
_WORDS = 30


class Image(torch.nn.Module):
    """A stream [B, 5, 40] to signs of five vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.AxisNorm(IMAGE_VECTORS)
        self.mlp = nn.BinaryMLP(40, 18, IMAGE_VECTORS)
        self.head = torch.nn.Linear(40, WIDTH)

    def forward(self, stream: Tensor) -> Tensor:
        x = stream + self.mlp(self.norm(stream))
        return ops.binarize(nn.tap("image.rows", self.head(x)))


class Text(torch.nn.Module):
    """Ids [B, 7] to signs of seven vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(_WORDS, 24)
        self.norm = torch.nn.LayerNorm(24)
        self.head = torch.nn.Linear(24, WIDTH)

    def forward(self, words: Tensor) -> Tensor:
        return ops.binarize(nn.tap("text.rows", self.head(self.norm(self.words(words)))))


class Towers(torch.nn.Module):
    """Both, in one file of three entries."""

    entries: ClassVar[Entries] = {
        "image": ["image"],
        "text": ["text"],
        "score": Scan("text", "image"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = Image(), Text()

    def forward(self, stream: Tensor, words: Tensor) -> dict[str, Tensor]:
        return {"image": self.image(stream), "text": self.text(words)}


STREAM, WORDS = torch.zeros(2, IMAGE_VECTORS, 40), torch.zeros(2, TEXT_VECTORS, dtype=torch.int64)


def exported(folder: Path, seed: int = 3) -> tuple[Towers, dict[str, Path]]:
    """The towers, and files of both together and of each."""
    torch.manual_seed(seed)
    towers = randomised(Towers(), seed)
    files = {name: folder / f"{name}.onnx" for name in ("both", "image", "text")}
    export(towers, files["both"], example={"stream": STREAM, "words": WORDS})
    export(towers.image, files["image"], example=STREAM)
    export(towers.text, files["text"], example=WORDS)
    return towers, files
