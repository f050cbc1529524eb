"""A model of two blocks, compiled for what a test asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vitc.compiler import compile_model
from vitc.exporter import export
from vitc.models import ModelConfig
from vitc.models.initialise import random_model
from vitc.runtime.artefact import Artefact

CONFIG = ModelConfig(
    image_size=12,
    patch_size=4,
    width=128,
    depth=2,
    heads=2,
    hidden=160,
    classes=5,
    si=True,
    si_hidden=10,
)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artefact]:
    """Artefact of the small model for a target, made once."""
    folder: Path = tmp_path_factory.mktemp("bench")
    export(random_model(CONFIG, 0), folder / "m.onnx")
    made: dict[str, Artefact] = {}

    def make(target: str) -> Artefact:
        if target not in made:
            made[target] = compile_model(folder / "m.onnx", target, folder / target)
        return made[target]

    return make
