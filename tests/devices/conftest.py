"""One small artefact for this machine, made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vitc.compiler import compile_model
from vitc.exporter import export
from vitc.models import ModelConfig
from vitc.models.initialise import random_images, random_model
from vitc.runtime import Artefact

CONFIG = ModelConfig(
    image_size=12,
    patch_size=4,
    width=64,
    depth=1,
    heads=2,
    hidden=96,
    classes=5,
    si=True,
    si_hidden=10,
)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("compiled")
    export(random_model(CONFIG, 3), folder / "m.onnx")
    return compile_model(folder / "m.onnx", "native", folder / "native", batch=2)


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    pixels: NDArray[np.float32] = random_images(CONFIG, 3, seed=4).numpy()
    return pixels


@pytest.fixture
def failing(compiled: Artefact, tmp_path: Path) -> Artefact:
    """An artefact whose runner fails."""
    folder = shutil.copytree(compiled.path, tmp_path / "failing")
    (folder / "vitc-run").write_text("#!/bin/sh\necho 'vitc-run: no more paper' >&2\nexit 1\n")
    return Artefact(folder, compiled.manifest)
