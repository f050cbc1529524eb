from __future__ import annotations

import numpy as np
import pytest

from vitc.passes.merge_shifts import MergeShifts
from vitc.passes.shift_threshold import ShiftThreshold


def _shifted(graph, *shifts):
    x = value = graph.input("x", ("batch", 6, 7))
    for shift in shifts:
        value = graph.op("Add", [value, graph.const(np.asarray(shift, np.float32))], x.shape)
    return graph.sign(value)


@pytest.mark.parametrize("shape", [(6, 1), (1, 6, 1), (1,), ()])
def test_a_shift_of_rows_is_a_threshold(graph, rng, run, counts, shape) -> None:
    shift = rng.standard_normal(shape).astype(np.float32)
    model = graph.model(_shifted(graph, shift))
    x = rng.standard_normal((3, 6, 7)).astype(np.float32)
    x[0] = -np.broadcast_to(shift, (1, 6, 7))[0]  # ties
    x[1] = np.nextafter(x[0], np.float32(-np.inf))
    before = run(model, x=x)[0]
    assert before[0].all()
    assert not before[1].any()
    assert ShiftThreshold()(model).modified
    assert counts(model) == {"Binarize": 1}
    np.testing.assert_array_equal(run(model, x=x)[0], before)


def test_a_shift_that_was_merged_decides_as_the_exact_sum(graph, run) -> None:
    one, tiny = np.float32(1), np.float32(2**-30)
    model = graph.model(_shifted(graph, [[-one]] * 6, [[-tiny]] * 6))
    MergeShifts()(model)
    ShiftThreshold()(model)
    x = np.full((1, 6, 7), one)
    assert not run(model, x=x)[0].any()
    assert run(model, x=np.nextafter(x, np.float32(2)))[0].all()


@pytest.mark.parametrize("shift", [np.ones(7), np.ones((6, 7)), np.full((6, 1), np.inf)])
def test_a_shift_that_no_kernel_takes_as_a_threshold_stays(graph, shift) -> None:
    assert not ShiftThreshold()(graph.model(_shifted(graph, shift))).modified
