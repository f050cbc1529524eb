"""Phase `emit`: steps in order, one kernel a shape, one constant an array."""

from __future__ import annotations

import pytest

from tests.compiler.graphs import Typed
from vitc.compiler.choose import choose
from vitc.compiler.emit import emit
from vitc.compiler.plan import Buffer, Constant, Cost, Plan, Port
from vitc.targets.isa import ISAS, Isa
from vitc.targets.layouts import Signs
from vitc.targets.tiles import Tile

ISA = ISAS["avx2-pshufb"]


def planned(t: Typed, output, isa: Isa = ISA, **options) -> Plan:
    graph = t.graph(output)
    return emit(graph, choose(graph, isa), isa, **options)


def branch(t: Typed, name: str, x, hidden: int):
    bits = t.binarize(f"{name}.input", x)
    return t.residual(f"{name}.output", t.threshold(f"{name}.hidden", bits, hidden), x)


def test_steps_keep_the_order_of_operators_and_read_what_was_written():
    t = Typed()
    plan = planned(t, branch(t, "b", branch(t, "a", t.embedding("x", 12, 4, 40), 24), 24))
    taps = ["a.input", "a.hidden", "a.output", "b.input", "b.hidden", "b.output"]
    assert [step.tap for step in plan.steps] == ["x", *taps]
    assert [output.buffer for output in plan.outputs] == [plan.steps[-1].output]
    written: list[Buffer] = []
    for step in plan.steps:
        read = [operand for operand in step.operands if isinstance(operand, Buffer)]
        assert all(any(buffer is other for other in written) for buffer in read)
        written.append(step.output)
    assert plan.steps[0].operands[0] == Port("x.image", "float32", (3, 12, 12))


def test_kernels_are_shared_by_equal_shapes_only():
    t = Typed()
    first = branch(t, "b", branch(t, "a", t.embedding("x", 12, 4, 40), 24), 24)
    plan = planned(t, first)
    assert plan.steps[1].kernel is plan.steps[4].kernel
    assert plan.steps[3].kernel is plan.steps[6].kernel
    # Another number of tokens and another width, in one plan.
    t = Typed()
    x, y = t.embedding("x", 12, 4, 40), t.embedding("y", 8, 4, 96)
    ends = branch(t, "a", x, 24), branch(t, "b", y, 24)
    graph = t.graph(*ends)
    plan = emit(graph, choose(graph, ISA), ISA)
    by_tap = {step.tap: step.kernel for step in plan.steps}
    for part in ("input", "hidden", "output"):
        assert by_tap[f"a.{part}"].symbol != by_tap[f"b.{part}"].symbol
    assert by_tap["a.input"].tasks == 9
    assert by_tap["b.input"].tasks == 4


def test_equal_constants_are_one():
    t = Typed()
    x = t.embedding("x", 12, 4, 40)
    bits = t.binarize("bits", x)
    first = t.threshold("one", bits, 24)
    t.ops[-1].inputs = (bits, *t.ops[-1].inputs[1:])
    second = t.threshold("two", bits, 24)
    t.ops[-1].inputs = (bits, *t.ops[-2].inputs[1:])
    plan = planned(t, t.residual("y", second, t.residual("z", first, x)))
    one, two = (next(s for s in plan.steps if s.tap == name) for name in ("one", "two"))
    constants = [[o for o in s.operands if isinstance(o, Constant)] for s in (one, two)]
    assert len(constants[0]) == 4
    assert all(a is b for a, b in zip(*constants, strict=True))


def test_signs_are_made_once_for_all_readers_before_the_first():
    t = Typed()
    x = t.embedding("x", 12, 4, 136)
    bits = t.binarize("bits", x)
    first, second = (t.threshold(name, bits, 128) for name in ("one", "two"))
    end = t.residual("y", second, t.residual("z", first, x))
    plan = planned(t, end, ISAS["avx512-amx"])
    taps = [step.tap for step in plan.steps]
    assert taps[:5] == ["x", "bits", "bits.signs", "one", "two"]
    signs = plan.steps[2].output
    assert isinstance(signs.layout, Signs)
    assert signs.taps == ()
    assert plan.steps[3].operands[0] is plan.steps[4].operands[0] is signs


@pytest.mark.parametrize(("isa", "unit"), [("avx2-pshufb", "popcount"), ("avx512-amx", "int8")])
def test_steps_know_what_they_cost(isa, unit):
    t = Typed()
    plan = planned(t, branch(t, "a", t.embedding("x", 12, 4, 136), 160), ISAS[isa])
    costs = {step.tap: step.cost for step in plan.steps if step.cost != Cost()}
    assert costs == {
        "x": Cost(fp=9 * 136 * 3 * 4 * 4),
        "a.hidden": Cost(binary=9 * 136 * 160, unit=unit),
        "a.output": Cost(binary=9 * 160 * 136, unit=unit),
    }


@pytest.mark.parametrize(("width", "hidden"), [(96, 384), (384, 96)])
def test_short_rows_and_few_lanes_are_counted_on_a_machine_with_tiles(width, hidden):
    t = Typed()
    end = branch(t, "a", t.embedding("x", 12, 4, width), hidden)
    plan = planned(t, end, ISAS["avx512-amx"])
    units = {step.cost.unit for step in plan.steps} - {None}
    assert units == {"popcount"}
    assert not any(isinstance(step.output.layout, Signs) for step in plan.steps)


def test_register_tiles_go_to_the_kernel_that_they_are_for():
    t = Typed()
    end = branch(t, "a", t.embedding("x", 12, 4, 40), 24)
    plain = planned(t, end)
    symbol = next(s.kernel.symbol for s in plain.steps if s.tap == "a.output")
    tile = Tile(1, 1, 4, 3)
    tuned = planned(t, end, tiles={plain.identities[symbol]: tile})
    changed = [
        a.tap
        for a, b in zip(plain.steps, tuned.steps, strict=True)
        if a.kernel.function.script() != b.kernel.function.script()
    ]
    assert changed == ["a.output"]
    assert not any("binarize" in name for name in plain.identities)
