"""Orders against their definition: a table of rows says what any chain of views reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitc.compiler.form import Form
from vitc.compiler.order import Order
from vitc.targets.layouts import Columns, Lanes, Rows
from vitc.targets.layouts.views import View, apply_views
from vitc.targets.packing import Axis


def read_by(order: Order, value: np.ndarray) -> np.ndarray:
    """What an order reads of a value [rows, channels], as its docstring says."""
    windows, n, t = order.rows.shape
    together = value[order.rows].reshape(windows, n, t * value.shape[1])
    split = together.reshape(windows, n, order.heads, -1).transpose(0, 2, 1, 3)
    matrices = split.reshape(windows * order.heads, n, -1)
    return matrices.swapaxes(1, 2) if order.along == "rows" else matrices


def order_of(shape: tuple[int, ...], views: list[View]) -> tuple[Order | None, np.ndarray]:
    elements = np.arange(np.prod(shape)).reshape(shape)
    viewed = apply_views(elements, views)
    return Order.of(viewed, shape[-1]), viewed


def windows(side: int, window: int, channels: int) -> list[View]:
    count = side // window
    return [
        ("reshape", (count, window, count, window, channels)),
        ("transpose", (0, 2, 1, 3, 4)),
        ("reshape", (count * count, window * window, channels)),
    ]


def shifted(side: int, by: int) -> list[View]:
    rolled = tuple(np.roll(np.arange(side), -by).tolist())
    return [("take", (0, *rolled)), ("take", (1, *rolled))]


HEADS: list[View] = [("reshape", (10, 3, 8)), ("transpose", (1, 0, 2))]
ORDERS = {
    "as it lies": ((10, 24), [], (1, 10, 1), 1, "channels"),
    "turned": ((10, 24), [("transpose", (1, 0))], (1, 10, 1), 1, "rows"),
    "heads": ((10, 24), HEADS, (1, 10, 1), 3, "channels"),
    "heads, turned": ((10, 24), [*HEADS, ("transpose", (0, 2, 1))], (1, 10, 1), 3, "rows"),
    "heads joined": ((3, 10, 8), [("transpose", (1, 0, 2)), ("reshape", (10, 24))],
                     (1, 10, 3), 1, "channels"),
    "one row": ((10, 24), [("take", (0, 7)), ("reshape", (24,))], (1, 1, 1), 1, "channels"),
    "rows left out": ((10, 24), [("take", (0, 9, 2, 4))], (1, 3, 1), 1, "channels"),
    "windows": ((12, 12, 5), windows(12, 4, 5), (9, 16, 1), 1, "channels"),
    "shifted windows": ((12, 12, 5), [*shifted(12, 2), *windows(12, 4, 5)], (9, 16, 1), 1,
                        "channels"),
    "windows and heads": ((12, 12, 6), [*windows(12, 4, 6), ("reshape", (9, 16, 2, 3)),
                          ("transpose", (0, 2, 1, 3))], (9, 16, 1), 2, "channels"),
    "2 x 2 merged": ((4, 4, 6), [("reshape", (2, 2, 2, 2, 6)), ("transpose", (0, 2, 1, 3, 4)),
                     ("reshape", (4, 24))], (1, 4, 4), 1, "channels"),
    "one channel": ((10, 1), [("transpose", (1, 0))], (1, 1, 10), 1, "channels"),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "views", "rows", "heads", "along"), ORDERS.values(), ids=ORDERS)
def test_an_order_is_found(shape, views, rows, heads, along):
    order, viewed = order_of(shape, views)
    assert order is not None
    assert (order.rows.shape, order.heads, order.along) == (rows, heads, along)
    value = np.random.default_rng(3).standard_normal((np.prod(shape[:-1]), shape[-1]))
    wanted = value.reshape(-1)[viewed]
    assert np.array_equal(read_by(order, value).reshape(wanted.shape), wanted)


@pytest.mark.parametrize(
    ("shape", "views"),
    [
        ((6, 8), [("reshape", (6, 2, 4)), ("transpose", (0, 2, 1)), ("reshape", (6, 8))]),
        ((6, 8), [("take", (1, 1, 0, 2, 3, 4, 5, 6, 7))]),
        ((6, 8), [("reshape", (12, 4)), ("take", (0, 1, 0, 3, 2)), ("reshape", (2, 8))]),
    ],
    ids=["channels mixed", "channels exchanged", "halves exchanged"],
)
def test_what_moves_channels_is_no_order(shape, views):
    assert order_of(shape, views)[0] is None


@st.composite
def chains(draw) -> tuple[tuple[int, ...], list[View]]:
    """A shape, and views that fit it."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    views: list[View] = []
    now = shape
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["transpose", "join", "split", "take"]))
        axis = draw(st.integers(0, len(now) - 1))
        if kind == "transpose":
            view: View = (kind, tuple(draw(st.permutations(range(len(now))))))
        elif kind == "join":
            if axis + 1 == len(now):
                continue
            view = ("reshape", (*now[:axis], now[axis] * now[axis + 1], *now[axis + 2 :]))
        elif kind == "split":
            parts = draw(st.sampled_from([d for d in (1, 2, 3, 4) if now[axis] % d == 0]))
            view = ("reshape", (*now[:axis], parts, now[axis] // parts, *now[axis + 1 :]))
        else:
            taken = draw(st.lists(st.integers(0, now[axis] - 1), min_size=1, max_size=4))
            view = (kind, (axis, *taken))
        views.append(view)
        now = apply_views(np.empty(now, np.int8), [view]).shape
    return shape, views


@settings(max_examples=300, deadline=None)
@given(chains())
def test_whatever_order_is_found_reads_what_the_views_read(chain):
    shape, views = chain
    order, viewed = order_of(shape, views)
    if order is not None:
        value = np.arange(np.prod(shape)).reshape(-1, shape[-1])
        assert np.array_equal(read_by(order, value).reshape(-1), viewed.reshape(-1))


FORMS = [
    ((10, 24), [], Rows(10, Axis(24))),
    ((10, 24), HEADS, Rows(10, Axis(8, 3))),
    ((10, 24), HEADS, Lanes(10, 8, 16, 8, 3)),
    ((10, 24), [*HEADS, ("transpose", (0, 2, 1))], Columns(Axis(8, 3), 10, 32, 8)),
    ((10, 24), [("transpose", (1, 0))], Columns(Axis(24), 10, 16, 32)),
    ((10, 24), [], Columns(Axis(10), 24, 16, 8)),
    ((3, 10, 8), [("transpose", (1, 0, 2)), ("reshape", (10, 24))], Rows(10, Axis(8, 3))),
]


@pytest.mark.parametrize(("shape", "views", "layout"), FORMS)
def test_a_form_leads_back_to_its_value(shape, views, layout):
    order, _ = order_of(shape, views)
    value = np.random.default_rng(3).integers(0, 2, shape, dtype=np.uint8)
    held = apply_views(value, views)
    if isinstance(layout, Rows) and layout.axis.groups > 1 and held.ndim == 3:
        held = held.transpose(1, 0, 2)
    back = Form(order, layout).back(shape)
    assert back is not None
    assert np.array_equal(apply_views(held.reshape(layout.shape), back), value)


def test_a_form_that_does_not_hold_all_rows_leads_nowhere():
    order, _ = order_of((10, 24), [("take", (0, 9, 2, 4))])
    assert Form(order, Rows(3, Axis(24))).back((10, 24)) is None


def test_equal_orders_are_equal_and_others_are_not():
    first, _ = order_of((10, 24), HEADS)
    again, _ = order_of((10, 24), HEADS)
    other, _ = order_of((10, 24), [("reshape", (10, 6, 4)), ("transpose", (1, 0, 2))])
    assert first == again
    assert hash(first) == hash(again)
    assert first != other
