from __future__ import annotations

import pytest
import torch

from tests.exporter.exports import exported_to, traced
from vitc.exporter import ExportResult, Traced
from vitc.models import SIBiViT


@pytest.fixture(scope="module")
def source() -> Traced:
    return traced()


@pytest.fixture(scope="module")
def model(source: Traced) -> SIBiViT:
    return source.model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportResult]:
    folder = tmp_path_factory.mktemp("exported")
    return {form: exported_to(folder, form) for form in ("packed", "int8", "float")}
