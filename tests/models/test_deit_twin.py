from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from vitc.errors import VitcError
from vitc.models import PRESETS
from vitc.models.twins.deit import deit


def parameters(model: onnx.ModelProto) -> int:
    tensors = (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    return sum(math.prod(t.dims) for t in tensors if t.dims)


def test_the_twin_of_deit_tiny_has_the_parameters_of_deit_tiny() -> None:
    # facebookresearch/deit: deit_tiny_patch16_224 has 5,717,416 parameters.
    assert parameters(deit(PRESETS["deit-tiny"].config)) == 5_717_416


def test_the_twin_is_valid_and_runs_on_its_batch() -> None:
    model = deit(PRESETS["micro"].config, batch=3)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())

    (logits,) = session.run(None, {"input": np.ones((3, 3, 32, 32), np.float32)})

    assert logits.shape == (3, 10)
    assert np.isfinite(logits).all()


def test_the_attention_of_the_twin_is_softmax_attention() -> None:
    config = PRESETS["micro"].config.replace(depth=1)
    model = deit(config)
    weights = {
        t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer
    }
    nodes = list(model.graph.node)
    first_norm = next(n for n in nodes if n.op_type == "LayerNormalization")
    products = [n for n in nodes if n.op_type == "MatMul"]
    adds = {n.input[0]: n for n in nodes if n.op_type == "Add"}
    qkv, proj = products[0], products[3]
    flat, out = proj.input[0], adds[proj.output[0]].output[0]
    for name in (first_norm.output[0], flat, out):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
    _, u, context, _ = (torch.from_numpy(v) for v in session.run(None, {"input": image}))

    y = u @ weights[qkv.input[1]] + weights[adds[qkv.output[0]].input[1]]
    q, k, v = y.reshape(1, 17, 3, 2, 32).permute(2, 0, 3, 1, 4)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)

    torch.testing.assert_close(context, expected.transpose(1, 2).flatten(2), atol=1e-5, rtol=1e-4)


def test_an_empty_batch_is_an_error() -> None:
    with pytest.raises(VitcError, match="at least one image"):
        deit(PRESETS["micro"].config, batch=0)
