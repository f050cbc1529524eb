"""Where outputs lie: found for every layout and view by its own decoding."""

from __future__ import annotations

import numpy as np
import pytest

from vitc.compiler.places import element_numbers, runs_of
from vitc.targets.layouts import Columns, Floats, Lanes, Plain, Rows
from vitc.targets.layouts.views import apply_views
from vitc.targets.packing import Axis

LAYOUTS = [
    Plain(7, 16),
    Floats(5, 33, 64),
    Rows(5, Axis(33)),
    Rows(3, Axis(20, 3), 2),
    Lanes(9, 40, 16, 32, groups=2),
    Columns(Axis(33), 11, 16, 32),
    Columns(Axis(33), 11, 32, 8),
]


def taken(layout, data: np.ndarray, views) -> np.ndarray:
    """What the driver gives, by the runs it has."""
    runs = runs_of(layout, views)
    starts = runs.starts
    if runs.stride is not None:
        assert np.array_equal(starts, np.arange(len(starts)) * runs.stride)
    places = (starts[:, None] + np.arange(runs.length)).reshape(-1)
    if runs.bits:
        return np.unpackbits(data, bitorder="little")[places]
    return data.view(np.float32)[places]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: str(layout))
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_taken_is_what_the_layout_decodes(layout, turned):
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, layout.size, dtype=np.uint8)
    if layout.decode(data).dtype != np.uint8:
        data = rng.standard_normal(layout.size // 4).astype(np.float32).view(np.uint8)
    axes = range(len(layout.shape))
    views = (("transpose", tuple(reversed(axes))), ("take", (0, 2, 0, 2, 1))) if turned else ()
    wanted = apply_views(layout.decode(data), views)
    assert np.array_equal(taken(layout, data, views), wanted.reshape(-1))


def test_rows_are_runs_and_a_whole_array_is_one():
    runs = runs_of(Floats(5, 33, 64), ())
    assert (runs.length, runs.stride, len(runs.starts)) == (33, 64, 5)
    runs = runs_of(Plain(7, 16), ())
    assert (runs.length, runs.stride, len(runs.starts)) == (7, 0, 1)
    runs = runs_of(Floats(5, 33, 64), (("take", (0, 3)),))
    assert (runs.length, runs.stride, list(runs.starts)) == (33, None, [192])


def test_numbers_beyond_what_fp32_counts_are_exact():
    layout = Plain((1 << 24) + 3, (1 << 24) + 16)
    numbers, bits = element_numbers(layout)
    assert not bits
    assert list(numbers[-2:]) == [(1 << 24) + 1, (1 << 24) + 2]
