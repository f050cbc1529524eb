"""Full-precision twins are exported, compiled, and held to the bounds of their roundings."""

from __future__ import annotations

from pathlib import Path

import pytest

import vitc
from tests.models.twin_checkpoints import CONFIGS, DEIT, random_twin
from vitc.errors import VitcError
from vitc.exporter import build


@pytest.mark.parametrize("arch", CONFIGS)
def test_a_twin_is_exported_compiled_and_checked(arch: str, tmp_path: Path) -> None:
    twin = random_twin(CONFIGS[arch])
    vitc.export(twin, tmp_path / "m.onnx", vitc.ExportOptions(check=False))
    artefact = vitc.compile(tmp_path / "m.onnx", tmp_path / "out", vitc.CompileOptions())
    assert not any(step.binary for step in artefact.manifest.steps)
    assert artefact.manifest.config == CONFIGS[arch].to_dict() | {
        key: list(value)
        for key, value in CONFIGS[arch].to_dict().items()
        if isinstance(value, tuple)
    }
    report = vitc.check(tmp_path / "out", twin, vitc.CheckOptions(images=2, rebuild=False))
    assert report.equal, report.first_difference
    assert {layer.kind for layer in report.layers} == {"float"}
    assert "logits" in {layer.name for layer in report.layers}


def test_a_twin_has_nothing_that_int8_is_of() -> None:
    with pytest.raises(VitcError, match="no binary layer"):
        build(random_twin(DEIT), form="int8")
