from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from vitc.dialect import DOMAIN, pack_bits
from vitc.errors import VitcError
from vitc.passes.lower_to_float import LowerToFloat
from vitc.passes.lower_to_int8 import LowerToInt8

N, C, HEADS, D = 7, 12, 3, 4
LOWERINGS = [LowerToInt8, LowerToFloat]


def _packed(graph, value, k):
    return graph.op("PackBits", [value], (*value.shape[:-1], -(-k // 8)), "UINT8", k=k)


def _thresholded(graph, rng, x, outputs, k, groups=1, two_sided=False):
    constants = [
        pack_bits(rng.integers(0, 2, (outputs, k))),
        rng.standard_normal(outputs).astype(np.float32),
        rng.standard_normal(outputs).astype(np.float32),
        rng.standard_normal((N, groups)).astype(np.float32),
        np.full((1, 1), -np.inf, np.float32),
    ]
    if two_sided:
        constants[4] = constants[3] - 2
    inputs = [x, *map(graph.const, constants)]
    return graph.op("BinaryLinearThreshold", inputs, ("batch", N, outputs), "UINT8", k=k)


def _attention(graph, rng):
    """A block's worth of operators: every one of the dialect but SoftmaxMask and BinaryLinear."""
    x = graph.input("x", ("batch", N, C))
    threshold = rng.standard_normal((N, 1)).astype(np.float32)
    flip = rng.integers(0, 2, (N, 1)).astype(bool)
    inputs = [x, graph.const(threshold), graph.const(flip)]
    bits = graph.tap(graph.op("Binarize", inputs, ("batch", N, C), "UINT8"), "a.input")
    packed = _packed(graph, bits, C)
    heads = []
    for _ in range(3):
        one = _thresholded(graph, rng, packed, C, C, groups=HEADS, two_sided=True)
        sizes = graph.const(np.array([0, N, HEADS, D]))
        one = graph.op("Reshape", [one, sizes], ("batch", N, HEADS, D), "UINT8")
        permuted = ("batch", HEADS, N, D)
        heads.append(graph.op("Transpose", [one], permuted, "UINT8", perm=[0, 2, 1, 3]))
    q, k, v = heads
    pair = [_packed(graph, q, D), _packed(graph, k, D)]
    scores = graph.op("BinaryScores", pair, ("batch", HEADS, N, N), "INT32", k=D)
    graph.tap(scores, "a.scores")
    mask = graph.op("RowBestMask", [scores], ("batch", HEADS, N, N), "UINT8", slack=1)
    graph.tap(mask, "a.mask")
    by_token = graph.op("Transpose", [v], ("batch", HEADS, D, N), "UINT8", perm=[0, 1, 3, 2])
    pair = [_packed(graph, mask, N), _packed(graph, by_token, N)]
    context = graph.op("MaskSignMatMul", pair, ("batch", HEADS, N, D), "INT32", k=N)
    limit = graph.const(rng.integers(-2, 3, (1, N, 1)).astype(np.int32))
    context = graph.op("IntegerThreshold", [context, limit], ("batch", HEADS, N, D), "UINT8")
    context = graph.op("Transpose", [context], ("batch", N, HEADS, D), "UINT8", perm=[0, 2, 1, 3])
    sizes = graph.const(np.array([0, N, C]))
    context = graph.op("Reshape", [context, sizes], ("batch", N, C), "UINT8")
    graph.tap(context, "a.context")
    constants = [
        pack_bits(rng.integers(0, 2, (C, C))),
        rng.standard_normal(C).astype(np.float32),
        rng.standard_normal(C).astype(np.float32),
        rng.standard_normal((N, 1)).astype(np.float32),
    ]
    inputs = [_packed(graph, context, C), *map(graph.const, constants), x]
    out = graph.op("BinaryLinearResidual", inputs, ("batch", N, C), k=C, transposed=0)
    graph.tap(out, "a.output")
    return graph.model(out, context, mask, scores, bits)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_standard_operators_compute_the_same_block(graph, rng, run, counts, lowering) -> None:
    model = _attention(graph, rng)
    x = rng.standard_normal((6, N, C)).astype(np.float32)
    out, context, mask, scores, bits = run(model, x=x)
    assert lowering()(model).modified
    assert not any(node.domain == DOMAIN for node in model.graph)
    assert not {"PackBits", "UnpackBits"} & set(counts(model))
    assert not model.functions
    assert DOMAIN not in model.opset_imports
    lowered = run(model, x=x)
    np.testing.assert_array_equal(lowered[0], out)
    np.testing.assert_array_equal(lowered[2], mask)
    np.testing.assert_array_equal(lowered[3], scores)
    for own, other in ((lowered[1], context), (lowered[4], bits)):
        np.testing.assert_array_equal(own > 0, other == 1)
    kinds = {array.dtype for array in (lowered[1], lowered[4])}
    assert kinds == {np.dtype(np.uint8 if lowering is LowerToInt8 else np.float32)}


def test_int8_weights_are_signs_and_meet_unsigned_bits(graph, rng) -> None:
    model = _attention(graph, rng)
    LowerToInt8()(model)
    weights = [
        node.inputs[1].const_value.numpy()
        for node in model.graph
        if node.op_type == "MatMulInteger" and node.inputs[1].is_initializer()
    ]
    assert len(weights) == 4
    for weight in weights:
        assert weight.dtype == np.int8
        assert set(np.unique(weight)) == {-1, 1}


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("lowering", LOWERINGS)
def test_plain_linears_and_both_residuals_are_lowered(
    graph, rng, run, lowering, transposed
) -> None:
    x = graph.input("x", ("batch", N, 17), dtype=ir.DataType.UINT8)
    shape = ("batch", 5, N) if transposed else ("batch", N, 5)
    r = graph.input("r", shape)
    weight = graph.const(pack_bits(rng.integers(0, 2, (5, 17))))
    packed = _packed(graph, x, 17)
    integers = graph.op("BinaryLinear", [packed, weight], ("batch", N, 5), "INT32", k=17)
    constants = [rng.standard_normal(s).astype(np.float32) for s in ((5,), (5,), (1, 1))]
    inputs = [packed, weight, *map(graph.const, constants), r]
    total = graph.op("BinaryLinearResidual", inputs, shape, k=17, transposed=transposed)
    model = graph.model(integers, total)
    bits = rng.integers(0, 2, (2, N, 17), dtype=np.uint8)
    feeds = {"x": bits, "r": rng.standard_normal((2, *shape[1:])).astype(np.float32)}
    before = run(model, **feeds)
    lowering()(model)
    if lowering is LowerToFloat:
        model.graph.inputs[0].dtype = ir.DataType.FLOAT
        feeds["x"] = 2 * bits.astype(np.float32) - 1
    for own, other in zip(run(model, **feeds), before, strict=True):
        np.testing.assert_array_equal(own, other)


def test_softmax_masks_are_lowered(graph, rng, run) -> None:
    p = graph.input("p", ("batch", N, N))
    model = graph.model(graph.op("SoftmaxMask", [p], ("batch", N, N), "UINT8", ratio=0.25))
    values = rng.dirichlet(np.ones(N), (3, N)).astype(np.float32)
    before = run(model, p=values)[0]
    LowerToInt8()(model)
    np.testing.assert_array_equal(run(model, p=values)[0], before)


@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("lowering", LOWERINGS)
def test_masks_of_biased_scores_are_lowered(graph, rng, run, lowering, excluding) -> None:
    windows, m = 4, N + 2
    kind = ir.DataType.INT32 if lowering is LowerToInt8 else ir.DataType.FLOAT
    scores = graph.input("scores", ("batch", windows, HEADS, N, m), dtype=ir.DataType.INT32)
    bias = (rng.integers(-40, 41, (HEADS, N, m)) / 4).astype(np.float32)
    bias[..., rng.random(m) < 0.2] = -np.inf
    excluded = rng.random((windows, 1, N, m)) < (0.5 if excluding else 0)
    inputs = [scores, graph.const(bias), graph.const(excluded)]
    mask = graph.op("BiasedBestMask", inputs, scores.shape, "UINT8", cut=7.75)
    model = graph.model(mask)
    values = rng.integers(-20, 21, (3, windows, HEADS, N, m)).astype(np.int32)
    before = run(model, scores=values)[0]
    lowering()(model)
    assert not any(node.domain for node in model.graph)
    graph.graph.inputs[0].dtype = kind
    np.testing.assert_array_equal(run(model, scores=values.astype(kind.numpy()))[0], before)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_a_packed_graph_input_is_refused(graph, rng, lowering) -> None:
    x = graph.input("x", ("batch", N, 3), dtype=ir.DataType.UINT8)
    weight = graph.const(pack_bits(rng.integers(0, 2, (5, 17))))
    out = graph.op("BinaryLinear", [x, weight], ("batch", N, 5), "INT32", k=17)
    with pytest.raises(VitcError, match="not made by PackBits"):
        lowering()(graph.model(out))
