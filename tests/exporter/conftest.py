from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from vitc.exporter import ExportResult, export, onnx_export
from vitc.models import ModelConfig, SIBiViT
from vitc.models.initialise import random_model

CONFIG = ModelConfig(
    image_size=16,
    patch_size=8,
    width=24,
    heads=3,
    depth=2,
    hidden=40,
    classes=7,
    si=True,
    si_hidden=5,
)


@pytest.fixture(scope="session")
def golden() -> Path:
    folder = Path(__file__).parents[2].parent / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip("the golden checkpoints are not on this machine")
    return folder


@pytest.fixture(scope="session")
def trace_once() -> Iterator[None]:
    """Trace equal transformers only once in this session; tracing takes seconds."""
    real, traced = onnx_export.capture, {}

    def capture(frozen: torch.nn.Module, example: torch.Tensor) -> ir.Model:
        if not isinstance(frozen, SIBiViT):
            return real(frozen, example)
        state = b"".join(t.numpy().tobytes() for t in frozen.state_dict().values())
        key = (frozen.config, state, tuple(example.shape))
        if key not in traced:
            traced[key] = ir.to_proto(real(frozen, example))
        return ir.from_proto(traced[key])

    onnx_export.capture = capture
    yield
    onnx_export.capture = real


@pytest.fixture(scope="session")
def model() -> SIBiViT:
    labels = [f"class {index}" for index in range(CONFIG.classes)]
    return random_model(CONFIG, seed=3, labels=labels)


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def exported(
    model: SIBiViT, trace_once: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ExportResult]:
    folder = tmp_path_factory.mktemp("exported")
    return {
        scheme: export(model, folder / f"{scheme}.onnx", scheme=scheme)
        for scheme in ("packed", "int8", "float")
    }
