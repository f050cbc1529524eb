from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from vitc.passes.constants import constant
from vitc.passes.residual import Residual

N, ROWS, K = 5, 6, 17


def _branch(graph, rng, *, bias=True):
    x = graph.input("x", ("batch", N, 3), dtype=ir.DataType.UINT8)
    weight = np.packbits(rng.integers(0, 2, (ROWS, K)), axis=-1, bitorder="little")
    shape = ("batch", N, ROWS)
    value = graph.op("BinaryLinear", [x, graph.const(weight)], shape, "INT32", k=K)
    value = graph.op("Cast", [value], shape, to=1)
    value = graph.op("Mul", [value, graph.const(rng.random(ROWS).astype(np.float32))], shape)
    if bias:
        shift = rng.standard_normal(ROWS).astype(np.float32)
        value = graph.op("Add", [value, graph.const(shift)], shape)
    return value


def _feeds(rng, shape):
    x = np.packbits(rng.integers(0, 2, (8, N, K)), axis=-1, bitorder="little")
    return {"x": x, "r": rng.standard_normal((8, *shape)).astype(np.float32)}


def _scaled(graph, value, gain, shape):
    return graph.op("Mul", [graph.const(np.asarray(gain, np.float32)), value], shape)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_a_projection_is_fused_whichever_operand_it_is(
    graph, rng, run, counts, bias, order
) -> None:
    branch, r = _branch(graph, rng, bias=bias), graph.input("r", ("batch", N, ROWS))
    model = graph.model(graph.op("Add", [r, branch][::order], ("batch", N, ROWS)))
    feeds = _feeds(rng, (N, ROWS))
    before = run(model, **feeds)[0]
    assert Residual()(model).modified
    assert counts(model) == {"BinaryLinearResidual": 1}
    np.testing.assert_array_equal(run(model, **feeds)[0], before)
    assert constant(model.graph.node(0).inputs[4]).shape == (1, 1)


@pytest.mark.parametrize("side", ["before", "after"])
def test_the_transposed_branch_keeps_its_gain_per_channel(graph, rng, run, counts, side) -> None:
    branch, r = _branch(graph, rng), graph.input("r", ("batch", ROWS, N))
    gain = rng.standard_normal((1, N, 1))
    if side == "before":
        branch = _scaled(graph, branch, gain, ("batch", N, ROWS))
    branch = graph.op("Transpose", [branch], ("batch", ROWS, N), perm=[0, 2, 1])
    if side == "after":
        branch = _scaled(graph, branch, gain.reshape(1, 1, N), ("batch", ROWS, N))
    model = graph.model(graph.op("Add", [r, branch], ("batch", ROWS, N)))
    feeds = _feeds(rng, (ROWS, N))
    before = run(model, **feeds)[0]
    assert Residual()(model).modified
    assert counts(model) == {"BinaryLinearResidual": 1}
    assert model.graph.node(0).attributes["transposed"].as_int() == 1
    assert constant(model.graph.node(0).inputs[4]).shape == (N, 1)
    np.testing.assert_array_equal(run(model, **feeds)[0], before)


def test_a_gain_per_row_of_the_weight_is_left_alone(graph, rng, counts) -> None:
    branch, r = _branch(graph, rng), graph.input("r", ("batch", N, ROWS))
    branch = _scaled(graph, branch, rng.standard_normal(ROWS), ("batch", N, ROWS))
    model = graph.model(graph.op("Add", [r, branch], ("batch", N, ROWS)))
    assert not Residual()(model).modified
    assert counts(model)["BinaryLinear"] == 1


def test_a_residual_that_is_broadcast_is_left_alone(graph, rng) -> None:
    branch, r = _branch(graph, rng), graph.input("r", (1, N, ROWS))
    model = graph.model(graph.op("Add", [r, branch], ("batch", N, ROWS)))
    assert not Residual()(model).modified


def test_a_bias_is_not_mistaken_for_a_residual(graph, rng, counts) -> None:
    model = graph.model(_branch(graph, rng))
    assert not Residual()(model).modified
    assert counts(model)["Add"] == 1
