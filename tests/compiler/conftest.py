"""Compiles models of any configuration and runs artefacts, here or in an emulator."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vitc.compiler import compile_model
from vitc.exporter import export
from vitc.models import ModelConfig
from vitc.models.checkpoint import load
from vitc.models.initialise import random_images, random_model
from vitc.runtime import Artefact
from vitc.targets.table import Target

EMULATED = ["arm", "armv7"]


def config(**changes) -> ModelConfig:
    """10 tokens, 2 blocks; small enough for an emulator."""
    sizes = {
        "image_size": 12,
        "patch_size": 4,
        "width": 64,
        "depth": 2,
        "heads": 2,
        "hidden": 96,
        "classes": 5,
        "si": True,
        "si_hidden": 10,
    }
    return ModelConfig(**{**sizes, **changes})


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> Callable[..., tuple[object, Path]]:
    """Make a model with random weights and export it, once a configuration."""
    made: dict[tuple, tuple[object, Path]] = {}

    def make(cfg: ModelConfig, seed: int = 0):
        key = (cfg, seed)
        if key not in made:
            model = random_model(cfg, seed)
            path = tmp_path_factory.mktemp("onnx") / "m.onnx"
            export(model, path)
            made[key] = (model, path)
        return made[key]

    return make


@pytest.fixture(scope="session")
def golden_onnx(golden, tmp_path_factory) -> Callable[[str], Path]:
    """Export a golden checkpoint, once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("golden") / "m.onnx"
            export(load(golden / name), made[name])
        return made[name]

    return make


@pytest.fixture
def run(need_emulator, tmp_path) -> Callable[..., tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Logits and taps of an artefact, through its own runner."""

    def execute(artefact: Artefact, images: np.ndarray, *options: str):
        target: Target = artefact.target
        native = platform.machine() in target.machine
        prefix = [] if native else [need_emulator(target.emulator)]
        np.save(tmp_path / "x.npy", images)
        subprocess.run(
            [
                *prefix,
                artefact.runner,
                tmp_path / "x.npy",
                tmp_path / "y.npy",
                "--trace",
                tmp_path / "trace",
                *options,
            ],
            check=True,
            capture_output=True,
            timeout=300,
        )
        taps = artefact.decode_trace((tmp_path / "trace").read_bytes(), len(images))
        return np.load(tmp_path / "y.npy"), taps

    return execute


@pytest.fixture
def compiled(build, request, tmp_path) -> Callable[..., tuple[object, Path, Artefact]]:
    """Make, export and compile a model."""

    def make(cfg: ModelConfig, target: str, seed: int = 0, **options):
        model, path = build(cfg, seed)
        if target == "x86-amx":
            request.getfixturevalue("amx_artefacts")
        return model, path, compile_model(path, target, tmp_path / target, **options)

    return make


def images_for(cfg: ModelConfig, count: int) -> np.ndarray:
    return random_images(cfg, count, seed=1).numpy()
