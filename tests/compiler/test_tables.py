"""Tables: one C file for all entries, in which each constant lies once."""

from __future__ import annotations

import numpy as np
import pytest

from vitc.compiler.plan import ALIGNMENT, Buffer, Constant, Cost, Output, Plan, Port, Step
from vitc.compiler.tables import collect_weights, write_tables
from vitc.errors import VitcError
from vitc.targets import find
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.layouts import Plain

TARGET = find("x86-64-v2")


def plan(constants, inputs=None, name: str = "y", count: int = 5) -> Plan:
    """One step that writes one buffer, which is given."""
    inputs = (Port("x", "float32", (3, 8, 4)),) if inputs is None else inputs
    buffer = Buffer("0:y", Plain(count, 16), (("y", ()),))
    step = Step(Kernel("vitc_k", None, 4), (*inputs, *constants), (buffer,), "layer", "y", Cost())
    made = Plan([step], inputs, (Output(Port(name, "float32", (count,)), buffer),))
    made.offsets, made.workspace = {"0:y": 128}, 256
    return made


def tables(batch: int = 3, **entries: Plan) -> str:
    return write_tables(entries, collect_weights(entries), batch, TARGET)


def test_a_constant_of_several_steps_and_entries_lies_once_and_begins_a_cache_line():
    shared, own = Constant(np.arange(5, dtype=np.uint8)), Constant(np.ones(33, np.float32))
    # Equal, but not the same: whether equal arrays are one is for the emitter to say.
    other = Constant(np.ones(33, np.float32))
    entries = {"a": plan([shared, own]), "b": plan([other, shared])}
    weights = collect_weights(entries)
    assert list(weights.offsets.values()) == [0, 64, 256]
    assert len(weights.data) == 64 + 2 * 192
    assert weights.data[:64] == bytes(range(5)) + bytes(59)
    for constant in (shared, own, other):
        start = weights.offsets[id(constant)]
        assert start % ALIGNMENT == 0
        assert weights.data[start:].startswith(constant.data.tobytes())
    text = write_tables(entries, weights, 1, TARGET)
    assert text.count("extern void vitc_k(") == 1
    assert text.count("vitc_weights + 0") == 2


@pytest.mark.parametrize(
    ("first", "facts"),
    [
        (plan([]), "3, 1, 3, 8, 4, 5,"),
        (plan([], (Port("x", "float32", (8, 4)),)), "3, 1, 0, 0, 0, 0,"),
        (plan([], (Port("x", "int32", (3, 8, 4)),)), "3, 1, 0, 0, 0, 0,"),
        (plan([], (Port("x", "float32", (3, 8, 4), per_image=False),)), "3, 1, 0, 0, 0, 0,"),
        (plan([], (Port("x", "float32", (3, None, 4)),)), "3, 1, 0, 0, 0, 0,"),
        (plan([], [Port(n, "float32", (3, 8, 4)) for n in "xz"]), "3, 1, 0, 0, 0, 0,"),
    ],
)
def test_the_simple_call_is_for_one_image_in_and_logits_out(first, facts):
    assert f"VITC_ABI_VERSION, {facts}" in tables(run=first)


def test_the_workspace_has_room_for_the_largest_entry():
    small, large = plan([]), plan([])
    large.workspace = 4096
    assert '1, 4096, "x86-64-v2"' in tables(a=small, b=large)
    assert "2, 3, 8, 4, 5," in tables(a=small, b=large)


def test_ports_are_numbered_inputs_first():
    inputs = (Port("x", "float32", (4,)), Port("i", "int32", (None, 2), limit=7))
    text = tables(run=plan([], inputs, name="z"))
    assert '{"x", 0, 1, 0, 1, {4}}' in text
    assert '{"i", 1, 1, 7, 2, {VITC_EXTENT, 2}}' in text
    assert '{"z", 0, 1, 0, 1, {5}}' in text
    assert "frame->port[0],\n      frame->port[1],\n      frame->workspace + 128" in text
    assert "{2, 0, 128, 1, 5, 0, 0}" in text


def test_more_ports_than_the_driver_binds_are_refused():
    ports = [Port(f"x{i}", "float32", (2,)) for i in range(63)]
    tables(run=plan([], ports))
    with pytest.raises(VitcError, match="65 ports, wanted at most 64"):
        tables(run=plan([], [*ports, Port("y", "float32", (2,))]))
