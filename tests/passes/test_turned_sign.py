from __future__ import annotations

import numpy as np
import pytest

from vitc.passes.turned_sign import TurnedSign


def _turned(graph, rng, back=(0, 2, 1), limits=(5, 1)):
    x = graph.input("x", ("batch", 4, 5))
    turned = graph.op("Transpose", [x], ("batch", 5, 4), perm=(0, 2, 1))
    threshold = graph.const(rng.standard_normal(limits).astype(np.float32))
    flip = graph.const(rng.random(limits) < 0.5)
    bits = graph.op("Binarize", [turned, threshold, flip], ("batch", 5, 4), "UINT8")
    shape = tuple(("batch", 5, 4)[axis] for axis in back)
    return bits, graph.op("Transpose", [bits], shape, "UINT8", perm=back)


@pytest.mark.parametrize("limits", [(5, 1), (1, 5, 1), (), (5, 4)])
def test_a_sign_of_a_turned_value_that_is_turned_back_stands_alone(
    graph, rng, run, counts, limits
) -> None:
    model = graph.model(_turned(graph, rng, limits=limits)[1])
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    before = run(model, x=x)[0]
    assert counts(model) == {"Transpose": 2, "Binarize": 1}
    assert TurnedSign()(model).modified
    assert counts(model) == {"Binarize": 1}
    np.testing.assert_array_equal(run(model, x=x)[0], before)


def test_another_turn_stays(graph, rng) -> None:
    model = graph.model(_turned(graph, rng, back=(0, 1, 2))[1])
    assert not TurnedSign()(model).modified


def test_a_turned_sign_that_is_tapped_stays(graph, rng) -> None:
    bits, back = _turned(graph, rng)
    graph.tap(bits, "layer.input")
    assert not TurnedSign()(graph.model(back)).modified
