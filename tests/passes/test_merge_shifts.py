from __future__ import annotations

import numpy as np

from vitc.passes.constants import exact_constant
from vitc.passes.merge_shifts import MergeShifts


def _chain(graph, rng, *shapes):
    x = value = graph.input("x", ("batch", 5, 6))
    for shape in shapes:
        shift = graph.const(rng.standard_normal(shape).astype(np.float32))
        value = graph.op("Add", [value, shift], ("batch", 5, 6))
    return x, value


def test_shifts_whose_shapes_nest_become_one(graph, rng, run, counts) -> None:
    _, value = _chain(graph, rng, (1, 5, 1), (5, 1), ())
    model = graph.model(value)
    x = rng.standard_normal((3, 5, 6)).astype(np.float32)
    before = run(model, x=x)[0]
    assert counts(model) == {"Add": 3}
    assert MergeShifts()(model).modified
    assert counts(model) == {"Add": 1}
    # Each of the three additions of the original rounds once.
    np.testing.assert_allclose(run(model, x=x)[0], before, rtol=0, atol=3 * 2**-22)


def test_the_merged_shift_remembers_the_unrounded_sum(graph, run) -> None:
    x = graph.input("x", ("batch", 2))
    once = graph.op("Add", [x, graph.const(np.float32([1.0, 2.0]))], ("batch", 2))
    tiny = np.float32([2**-40, -(2**-41)])
    model = graph.model(graph.op("Add", [graph.const(tiny), once], ("batch", 2)))
    MergeShifts()(model)
    shift = next(v for v in model.graph.node(0).inputs if v.is_initializer())
    np.testing.assert_array_equal(exact_constant(shift), [1.0 + 2**-40, 2.0 - 2**-41])


def test_a_row_bias_and_a_token_shift_stay_apart(graph, rng, counts) -> None:
    _, value = _chain(graph, rng, (6,), (5, 1))
    model = graph.model(value)
    assert not MergeShifts()(model).modified
    assert counts(model) == {"Add": 2}


def test_a_sum_that_is_tapped_stays(graph, rng, counts) -> None:
    x = graph.input("x", ("batch", 5, 6))
    first = graph.op("Add", [x, graph.const(np.ones((5, 1), np.float32))], ("batch", 5, 6))
    graph.tap(first, "layer.sum")
    value = graph.op("Add", [first, graph.const(np.ones((5, 1), np.float32))], ("batch", 5, 6))
    model = graph.model(value)
    assert not MergeShifts()(model).modified
    assert counts(model) == {"Add": 2}
