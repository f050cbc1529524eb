"""One small artefact for this machine, made once."""

from __future__ import annotations

import shutil

import pytest

from vitc import api
from vitc.exporter import export
from vitc.models import ModelConfig
from vitc.models.initialise import random_images, random_model
from vitc.runtime import Artefact

CONFIG = ModelConfig(
    image_size=12,
    patch_size=4,
    width=64,
    depth=2,
    heads=2,
    hidden=96,
    classes=5,
    si=True,
    si_hidden=10,
)


def made(folder, seed: int) -> Artefact:
    export(random_model(CONFIG, seed), folder / "m.onnx")
    return api.compile(folder / "m.onnx", folder / "native", api.CompileOptions(batch=2))


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Artefact:
    return made(tmp_path_factory.mktemp("artefact"), 3)


@pytest.fixture(scope="session")
def another(tmp_path_factory) -> Artefact:
    """Of the same sizes, with other weights."""
    return made(tmp_path_factory.mktemp("another"), 4)


@pytest.fixture
def artefact(original, tmp_path) -> Artefact:
    """A copy that a test may damage."""
    shutil.copytree(original.path, tmp_path / "copy")
    return Artefact.open(tmp_path / "copy")


@pytest.fixture(scope="session")
def images():
    return random_images(CONFIG, 3, seed=4).numpy()
