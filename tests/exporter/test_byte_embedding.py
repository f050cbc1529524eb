"""An integer embedding in every format of an exported file: the bits of PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

import vitc
from vitc.api import ExportOptions
from vitc.errors import VitcError
from vitc.exporter import trace
from vitc.models import taps
from vitc.onnx_files import load_onnx, run_with_taps


@pytest.mark.parametrize(
    ("form", "inline"), [("packed", False), ("packed", True), ("int8", False), ("float", False)]
)
def test_every_format_has_the_bits_of_pytorch(tmp_path, form, inline):
    model = vitc.new("micro", depth=1, seed=6)
    path = tmp_path / "m.onnx"
    options = ExportOptions(form=form, inline=inline, embedding="int15")
    vitc.export(model, path, options)  # checks bits and integers
    graph = onnx.load(path).graph
    kinds = {node.op_type for node in graph.node}
    assert ("ByteLinear" in kinds) is (form == "packed" and not inline)
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert load_onnx(path)[1].config["embedding"] == "int15"

    images = np.random.default_rng(3).integers(0, 256, (3, 3, 32, 32)).astype(np.uint8)
    seen: dict[str, np.ndarray] = {}

    def keep(event: taps.TapEvent) -> None:
        seen[event.name] = event.value.numpy()

    with torch.no_grad(), taps.observe(keep):
        vitc.with_embedding(model, "int15").frozen()(torch.from_numpy(images))
    found = np.asarray(run_with_taps(path, images, ["embedding"])["embedding"])
    assert np.array_equal(found.view(np.int32), seen["embedding"].view(np.int32))


def test_a_traced_model_keeps_its_embedding(tmp_path):
    with pytest.raises(VitcError, match="is traced already"):
        vitc.export(
            trace(vitc.new("micro", depth=1)), tmp_path / "m.onnx", ExportOptions(embedding="int8")
        )
