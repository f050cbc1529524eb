from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from vitc.passes.rewrite import NoMatch
from vitc.passes.softmax_to_row_best import SoftmaxToRowBest, slack_of


def _masked(graph, d, *, scale=None, axis=-1, divide=False, integers=False):
    n = 11
    p = -(-d // 8)
    q, k = (graph.input(name, ("batch", n, p), dtype=ir.DataType.UINT8) for name in ("q", "k"))
    scores = graph.op("BinaryScores", [q, k], ("batch", n, n), "INT32", k=d)
    if integers:
        scores = graph.op("Abs", [scores], ("batch", n, n), "INT32")
    shape = ("batch", n, n)
    value = graph.op("Cast", [scores], shape, to=1)
    by = np.float32(d**-0.5 if scale is None else scale)
    if divide:
        value = graph.op("Div", [value, graph.const(np.float32(1 / by))], shape)
    else:
        value = graph.op("Mul", [value, graph.const(by)], shape)
    value = graph.op("Softmax", [value], shape, axis=axis)
    return graph.model(graph.op("SoftmaxMask", [value], shape, "UINT8", ratio=0.25))


@pytest.mark.parametrize(("d", "slack"), [(32, 3), (48, 4), (64, 5), (80, 6), (96, 6), (128, 7)])
def test_slack_is_that_of_the_specification(d, slack) -> None:
    assert slack_of(d**-0.5, 0.25) == slack
    assert slack_of(float(np.float32(d**-0.5)), 0.25) == slack


@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("d", [17, 32, 64])
def test_masks_of_random_scores_do_not_change(graph, rng, run, counts, d, divide) -> None:
    model = _masked(graph, d, divide=divide)
    bits = rng.integers(0, 2, (2, 30, 11, d))
    q, k = np.packbits(bits, axis=-1, bitorder="little")
    before = run(model, q=q, k=k)[0]
    assert SoftmaxToRowBest()(model).modified
    assert counts(model) == {"BinaryScores": 1, "RowBestMask": 1}
    np.testing.assert_array_equal(run(model, q=q, k=k)[0], before)
    assert 0 < before.mean() < 1


def test_the_slack_follows_the_scale_in_the_graph(graph) -> None:
    model = _masked(graph, 32, scale=0.1)
    SoftmaxToRowBest()(model)
    node = model.graph.node(1)
    assert node.attributes["slack"].as_int() == math.floor(math.log(4) / 0.2)


def test_scores_of_unknown_parity_are_left_alone(graph, counts) -> None:
    model = _masked(graph, 32, integers=True)
    assert not SoftmaxToRowBest()(model).modified
    assert counts(model)["SoftmaxMask"] == 1


def test_a_softmax_over_queries_is_left_alone(graph) -> None:
    assert not SoftmaxToRowBest()(_masked(graph, 32, axis=1)).modified


@pytest.mark.parametrize("scale", [math.log(4) / 6, math.log(4) / 6 * (1 + 1e-9), 0.0, -0.2])
def test_a_scale_that_rounding_would_decide_is_refused(graph, scale) -> None:
    with pytest.raises(NoMatch):
        slack_of(scale, 0.25)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5, -0.25])
def test_a_ratio_that_is_no_share_is_refused(ratio) -> None:
    with pytest.raises(NoMatch):
        slack_of(0.125, ratio)
