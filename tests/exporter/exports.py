"""What the tests of this folder export, made once a process: tracing takes seconds.

Values only: a test that changes one of them works on a copy.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from vitc.exporter import ExportResult, Traced, export, trace
from vitc.models import ModelConfig
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


@cache
def traced(weight_bits: int = 1) -> Traced:
    """The network of these tests, traced; with 32 bits, another one of the first training step."""
    if weight_bits != 1:
        return trace(random_model(CONFIG.replace(weight_bits=weight_bits), seed=4))
    labels = [f"class {index}" for index in range(CONFIG.classes)]
    return trace(random_model(CONFIG, seed=3, labels=labels))


@cache
def _exported(form: str) -> tuple[bytes, ExportResult]:
    with TemporaryDirectory() as folder:
        result = export(traced(), Path(folder) / "m.onnx", form=form)
        return result.path.read_bytes(), result


def exported_to(folder: Path, form: str) -> ExportResult:
    """Write the network's file into a folder."""
    data, result = _exported(form)
    path = folder / f"{form}.onnx"
    path.write_bytes(data)
    return replace(result, path=path)
