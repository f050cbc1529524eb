"""Backbones of several stages, exported in every format and held to the float64 reference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.models import references
from tests.models.test_backbones import COMPUTES, CONFIGS, TIE
from vitc.exporter import Traced, export, trace
from vitc.models import Network, binary_modules, random_images, random_model, save
from vitc.onnx_files import load_onnx, run_with_taps, session
from vitc.verify import CheckOptions, check

EXPORTED = (
    "nest, layer norms",
    "swin",
    "pvt",
    "nest, merged in bits",
    "pvt of ReCU",
    "pvt, BiT's own masks",
)


@pytest.fixture(scope="module", params=EXPORTED)
def network(request, tmp_path_factory) -> tuple[Network, np.ndarray, np.ndarray, Traced]:
    """A network without near ties, images, their logits by the reference, and its trace."""
    config = CONFIGS[request.param]
    images = random_images(config, 3, 7).numpy()
    for seed in range(40):
        path = tmp_path_factory.mktemp("exported") / "m.safetensors"
        model = random_model(config, seed)
        save(model, path)
        reference = references.Reference(*references.read(path))
        logits = COMPUTES[config.arch](reference, images.astype(np.float64))
        if reference.nearest > TIE:
            return model, images, logits, trace(model)
    raise AssertionError("every seed has a near tie")


@pytest.mark.parametrize("form", ["packed", "int8", "float"])
def test_a_file_is_what_its_checkpoint_and_the_reference_compute(
    network, tmp_path: Path, form: str
) -> None:
    model, images, logits, traced = network
    written = export(traced, tmp_path / "m.onnx", form=form)
    report = check(written.path, traced, CheckOptions(images=2))
    assert report.equal, (report.first_difference, report.faults)
    found = run_with_taps(session(load_onnx(written.path)[0], ["logits"]), images)["logits"]
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)
    assert written.binary_modules == len(binary_modules(model))
    if form == "packed":
        count = Counter(written.operators)
        kinds = ("BinaryLinear", "BinaryLinearThreshold", "BinaryLinearResidual")
        linears = sum(count[kind] for kind in kinds)
        assert linears == sum(module.parts for module in binary_modules(model).values())
        blocks = model.config.blocks
        assert count["BinaryScores"] == count["MaskSignMatMul"] == blocks
        assert count["IntegerThreshold"] + count["SumThreshold"] == blocks
        assert count["ElasticMask"] == (blocks if model.config.elastic else 0)
        assert "Softmax" not in count
