from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from vitc.exporter import export, trace
from vitc.models.checkpoint import load
from vitc.onnx_files import run_with_taps

CHECKPOINTS = (
    "si_micro.safetensors",
    "released_tiny.pth.tar",
    "ratio4_tiny.safetensors",
    "si_tiny.safetensors",
)


@pytest.fixture(scope="module")
def loaded(golden):
    models = {}

    def once(checkpoint: str):
        if checkpoint not in models:
            models[checkpoint] = trace(load(golden / checkpoint))
        return models[checkpoint]

    return once


@pytest.mark.parametrize("form", ["packed", "int8", "float"])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_logits_and_stream_equal_the_official_float64_code(
    golden, loaded, tmp_path, checkpoint, form
) -> None:
    expected = load_file(golden / f"{checkpoint.partition('.')[0]}.expected.safetensors")
    result = export(loaded(checkpoint), tmp_path / "model.onnx", form=form)
    depth = sum(name.endswith(".output") for name in expected)
    last = "si" if checkpoint.startswith("si_") else "mlp"
    stream = [f"blocks.{index}.{last}.output" for index in range(depth)]
    values = run_with_taps(result.path, expected["input"], [*stream, "logits"])
    # The official code's values before a sign keep 3e-7 away from zero, so all bits are equal and
    # what remains is fp32 rounding of sums of a few hundred terms of order one.
    np.testing.assert_allclose(values["logits"], expected["logits"], rtol=0, atol=1e-4)
    for index, name in enumerate(stream):
        wanted = expected[f"block{index}.output"]
        np.testing.assert_allclose(values[name], wanted, rtol=0, atol=1e-4, err_msg=name)
