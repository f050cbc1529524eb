"""Detectors and segmenters with int8 ends; what takes more than pictures is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.retrieval.towers import towers
from tests.tasks.networks import compiled, network
from vitc import api
from vitc.errors import VitcError
from vitc.models.checkpoint import save
from vitc.verify import CheckOptions, check


@pytest.mark.parametrize(
    ("task", "more"),
    [
        ("detection", {"preset": "micro-pvt", "tower": "dense"}),
        ("segmentation", {"size": (32, 64)}),
    ],
)
def test_a_network_of_a_task_has_ends(tmp_path: Path, task: str, more: dict[str, Any]) -> None:
    checkpoint, onnx = tmp_path / "m.safetensors", tmp_path / "m.onnx"
    save(network(task, **more), checkpoint)
    api.export(checkpoint, onnx, api.ExportOptions(check=False, ends="int8"))
    artefact = compiled(onnx)
    kernels = [step.kernel.rpartition("_")[0] for step in artefact.entry.steps]
    assert kernels.count("vitc_quantize") == len(artefact.manifest.config["ends"]) > 0
    report = check(artefact.path, checkpoint, CheckOptions(images=2, rebuild=False))
    assert report.equal, report.verdict
    assert report.rounded is not None
    assert report.rounded.bits < 0.5
    assert report.rounded.accuracy is None


def test_towers_of_retrieval_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VitcError, match="takes more than pictures"):
        api.export(towers("base"), tmp_path / "m.onnx", api.ExportOptions(ends="int8"))
