from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def fill(folder: Path, count: int, brightness: int, seed: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        shape = (int(random.integers(30, 60)), int(random.integers(30, 60)), 3)
        pixels = random.integers(0, 80, shape) + brightness
        suffix = ("png", "jpg", "bmp")[i % 3]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.{suffix}")


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Three classes of 10, 5 and 7 images that differ in brightness."""
    root = tmp_path / "images"
    for seed, (name, count) in enumerate((("dark", 10), ("grey", 5), ("light", 7))):
        fill(root / name, count, 85 * seed, seed)
    (root / "dark" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    return root


@pytest.fixture
def three_parts(tmp_path: Path) -> Path:
    root = tmp_path / "three"
    for seed, (part, count) in enumerate((("train", 6), ("val", 3), ("test", 4))):
        fill(root / part / "dark", count, 0, seed)
        fill(root / part / "light", count - 1, 170, seed + 10)
    return root


@pytest.fixture
def presplit_folders(tmp_path: Path) -> Path:
    root = tmp_path / "presplit"
    for seed, part in enumerate(("train", "val")):
        fill(root / part / "dark", 6 - seed, 0, seed)
        fill(root / part / "light", 4 - seed, 170, seed + 10)
    return root
