"""Layouts and views: what is encoded is decoded, wherever padding lies, and manifests are read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vitc.targets.layouts import (
    LAYOUTS,
    Across,
    Codes,
    Columns,
    Floats,
    Lanes,
    Layout,
    Plain,
    Rows,
    Signs,
    layout_from_dict,
)
from vitc.targets.layouts.views import apply_views, simplified, views_from_json
from vitc.targets.packing import Axis

EXAMPLES = [
    Rows(17, Axis(42)),
    Rows(7, Axis(20, 3), groups=4),
    Lanes(17, 33, lanes=32, element_bits=8, groups=3),
    Lanes(65, 64, lanes=16, element_bits=32),
    Columns(Axis(20, 3), 17, lanes=32, element_bits=8),
    Columns(Axis(37), 49, lanes=16, element_bits=32, groups=4),
    Across(70, 17),
    Signs(35, Axis(20, 3)),
    Signs(16, Axis(197)),
    Codes(17, 42),
    Floats(17, 42, 64),
    Plain(5, 64),
]
IDS = [str(layout) for layout in EXAMPLES]


def array_of(layout: Layout) -> np.ndarray:
    rng = np.random.default_rng(3)
    if isinstance(layout, Codes):
        return rng.integers(0, 256, layout.shape).astype(np.uint8)
    if isinstance(layout, Floats | Plain):
        return rng.standard_normal(layout.shape).astype(np.float32)
    return rng.integers(0, 2, layout.shape, dtype=np.uint8)


def test_every_layout_has_an_example():
    assert {type(layout) for layout in EXAMPLES} == set(LAYOUTS.values())


@pytest.mark.parametrize("layout", EXAMPLES, ids=IDS)
def test_decoding_undoes_encoding_and_does_not_read_padding(layout):
    array = array_of(layout)
    data = layout.encode(array)
    assert (data.dtype, data.shape) == (np.uint8, (layout.size,))
    assert np.array_equal(layout.decode(data), array)
    # Where ones and zeros, or two floats, encode alike there is padding.
    other = -array if array.dtype == np.float32 else 1 - array
    same = data == layout.encode(other)
    spoilt = np.where(same & (data == 0), 0xA5, data).astype(np.uint8)
    if array.dtype == np.float32:
        whole = same.reshape(-1, 4).all(1)
        spoilt = np.where(np.repeat(whole, 4), 0xA5, data).astype(np.uint8)
    assert (spoilt != data).any(), "an example without padding says nothing"
    assert np.array_equal(layout.decode(spoilt), array)


@pytest.mark.parametrize("layout", EXAMPLES, ids=IDS)
def test_layouts_pass_through_json(layout):
    assert layout_from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "tiles"}, "'tiles'"),
        ({"kind": 7}, "no layout"),
        ({"rows": 0}, "rows is no size"),
        ({"rows": -1}, "rows is no size"),
        ({"rows": True}, "rows is no size"),
        ({"rows": 1 << 40}, "rows is no size"),
        ({"rows": 1.5}, "rows is no size"),
        ({"axis": 42}, "axis is no axis"),
        ({"axis": {"size": 42}}, "axis is no axis"),
        ({"axis": {"size": "42", "groups": 1}}, "size is no size"),
        ({"swap": True}, "instead of"),
    ],
)
def test_a_layout_that_is_none_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        layout_from_dict(Rows(17, Axis(42)).to_dict() | change)


def test_heads_and_windows_lie_where_kernels_read_them():
    # One bit: window 1, vector 2, head 1, channel 3.
    bits = np.zeros((2, 5, 40), np.uint8)
    bits[1, 2, 20 + 3] = 1
    rows = Rows(5, Axis(20, 2), groups=2).encode(bits)
    assert rows.nonzero()[0].tolist() == [(5 + 2) * 8 + 4]
    columns = Columns(Axis(20, 2), 5, lanes=32, element_bits=8, groups=2)
    data = columns.encode(bits.transpose(0, 2, 1))
    # Group 1 of 64 lanes in 2 blocks of 4 elements; channel 23 is lane 3 of block 1.
    assert data.nonzero()[0].tolist() == [64 * 4 + 32 * 4 + 3]
    assert data[64 * 4 + 32 * 4 + 3] == 1 << 2


def test_views_are_simplified_to_one_reshape_or_none():
    there_and_back = [("transpose", (1, 0, 2)), ("transpose", (1, 0, 2))]
    assert simplified((2, 3, 4), there_and_back) == ()
    assert simplified((2, 3, 4), [*there_and_back, ("reshape", (6, 4))]) == (("reshape", (6, 4)),)
    turned = (("transpose", (2, 0, 1)), ("reshape", (8, 3)))
    assert simplified((2, 3, 4), turned) == turned
    array = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(apply_views(array, turned), array.transpose(2, 0, 1).reshape(8, 3))


@pytest.mark.parametrize(
    "views",
    [{}, [["rotate", [1]]], [["reshape"]], [["reshape", [1.5]]], [["transpose", [-1]]], [3]],
)
def test_a_view_that_is_none_is_refused(views):
    with pytest.raises(ValueError, match="view"):
        views_from_json(views)
