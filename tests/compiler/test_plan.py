"""Plans: where buffers lie, steps of several outputs, steps that write ports, and the text."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vitc.compiler.plan import (
    ALIGNMENT,
    Buffer,
    Constant,
    Cost,
    Output,
    Plan,
    Port,
    Step,
    describe,
    plan_workspace,
    readers_first,
)
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.layouts import Plain

IMAGE = Port("x", "float32", (3, 4, 4))


def buffer(name: str, count: int = 100) -> Buffer:
    return Buffer(name, Plain(count, count), ((name, ()),))


def step(reads, writes, over: Port | None = None, adds_to: Buffer | None = None) -> Step:
    kernel = Kernel(f"kernel_{len(reads)}_{len(writes)}", None, 4)
    name = writes[0].name
    return Step(kernel, tuple(reads), tuple(writes), "layer", name, Cost(), over, adds_to)


def plan(steps: list[Step], *given: Buffer) -> Plan:
    outputs = tuple(Output(Port(b.name, "float32", b.layout.shape), b) for b in given)
    return Plan(steps, (IMAGE,), outputs)


def live(made: Plan) -> dict[str, tuple[int, int]]:
    """First and last step of each buffer; outputs live on."""
    lives: dict[str, tuple[int, int]] = {}
    for i, each in enumerate(made.steps):
        for operand in (*each.buffers, *each.operands):
            if isinstance(operand, Buffer):
                lives[operand.name] = (lives.get(operand.name, (i, i))[0], i)
    for output in made.outputs:
        lives[output.buffer.name] = (lives[output.buffer.name][0], len(made.steps))
    return lives


def need_no_overlap(made: Plan) -> None:
    sizes = {b.name: b.size for s in made.steps for b in s.buffers}
    lives = live(made)
    assert set(made.offsets) == set(sizes)
    for one, (start, end) in lives.items():
        assert made.offsets[one] % ALIGNMENT == 0
        assert made.offsets[one] + sizes[one] <= made.workspace
        for other, (begin, stop) in lives.items():
            if one == other or end < begin or stop < start:
                continue
            first, second = sorted([one, other], key=made.offsets.__getitem__)
            assert made.offsets[first] + sizes[first] <= made.offsets[second], (one, other)


def test_outputs_of_one_step_lie_apart_and_memory_is_used_again():
    a, b, c = buffer("a", 100), buffer("b", 1000), buffer("c", 10)
    d, e = buffer("d", 300), buffer("e", 300)
    steps = [step([IMAGE], [a, b, c]), step([a], [d]), step([b, d], [e])]
    made = plan([*steps, step([e], [f := buffer("f", 900)])], f, c)
    plan_workspace(made)
    need_no_overlap(made)
    assert made.workspace < sum(b.size for s in made.steps for b in s.buffers)


def test_an_output_that_is_written_first_is_whole_at_the_end():
    chain = [buffer(f"b{i}", 64 + i) for i in range(8)]
    steps = [step([IMAGE], chain[:1])]
    steps += [step([one], [other]) for one, other in pairwise(chain)]
    made = plan(steps, chain[0], chain[-1])
    plan_workspace(made)
    need_no_overlap(made)


def stream(*more: Step, given: bool = False) -> tuple[Plan, Buffer, Buffer]:
    """A sum that is added to a stream, and the steps behind it; the stream is given out or not."""
    x, branch, total = buffer("x"), buffer("branch"), buffer("total")
    steps = [step([IMAGE], [x]), step([x], [branch])]
    steps += [step([branch, x], [total], adds_to=x), step([total], [last := buffer("last")])]
    steps += [step([last], [end := buffer("end")])]
    made = plan([*steps, *more], *([end, x] if given else [end]))
    plan_workspace(made)
    return made, x, total


def test_a_sum_lies_over_what_it_is_added_to():
    made, x, total = stream()
    assert made.offsets[total.name] == made.offsets[x.name]
    # What is free then is used again.
    assert made.offsets["last"] == made.offsets["branch"]


@pytest.mark.parametrize("later", ["step", "output"])
def test_a_sum_lies_elsewhere_if_what_it_is_added_to_is_read_later(later):
    x = buffer("x")
    more = [step([x], [buffer("late")])] if later == "step" else []
    made, x, total = stream(*more, given=later == "output")
    assert made.offsets[total.name] != made.offsets[x.name]
    need_no_overlap(made)


def test_a_sum_lies_elsewhere_if_it_is_larger_or_added_to_an_input():
    x, total, other = buffer("x", 100), buffer("total", 200), buffer("other", 200)
    steps = [step([IMAGE], [x]), step([x], [total], adds_to=x), step([total, IMAGE], [other])]
    made = plan([*steps, step([IMAGE], [last := buffer("last")], adds_to=IMAGE)], last, other)
    plan_workspace(made)
    need_no_overlap(made)


def beside(bits: Buffer) -> tuple[list[Step], Step]:
    """A branch beside another: what reads the stream after something was added to it."""
    x, first, total = buffer("x"), buffer("first"), buffer("total")
    adds = step([first, x], [total], adds_to=x)
    steps = [step([IMAGE], [x]), step([x], [first]), adds]
    return [*steps, step([x], [bits]), step([bits, total], [buffer("y")])], adds


def test_signs_of_a_stream_are_taken_before_it_is_added_to():
    steps, adds = beside(buffer("bits", 20))
    ordered = readers_first(steps)
    assert [each.tap for each in ordered] == ["x", "first", "bits", "total", "y"]
    made = plan(ordered, ordered[-1].output)
    plan_workspace(made)
    assert made.offsets["total"] == made.offsets["x"]
    assert adds in ordered


def test_what_is_as_large_as_the_stream_or_needs_what_comes_later_stays():
    assert readers_first(steps := beside(buffer("bits", 100))[0]) == steps
    steps, adds = beside(bits := buffer("bits", 20))
    late = step([*adds.buffers], [gate := buffer("gate")])
    steps[3:4] = [late, step([*steps[0].buffers, gate], [bits])]
    assert readers_first(steps) == steps


def test_what_a_step_over_n_reads_stays_until_then_and_nothing_of_n_lies_in_the_workspace():
    scores = Port("scores", "float32", (None,))
    query, other, last = buffer("query"), buffer("other"), buffer("last")
    codes = Port("codes", "uint8", (None, 8), per_image=False)
    steps = [
        step([IMAGE], [query]),
        step([IMAGE], [other]),
        step([query, codes], [scores], codes),
        step([other], [last]),
    ]
    made = plan(steps, last)
    plan_workspace(made)
    need_no_overlap(made)
    assert made.written == (Port("last", "float32", (100,)), scores)
    assert made.workspace <= 3 * 448
    assert "    n tasks" in describe(made).splitlines()[2]


def test_a_plan_reads_as_numbers_of_steps_names_of_ports_and_types_of_constants():
    mask = Port("mask", "uint8", (4,))
    a, b = buffer("a"), buffer("b")
    constant = Constant(np.zeros(7, np.uint16))
    made = plan([step([IMAGE, constant], [a]), step([a, mask], [b])], b)
    first, second = describe(made).splitlines()
    assert first.split()[1:4] == ["kernel_2_1", "image", "uint16[7]"]
    made.inputs = (IMAGE, mask)
    first, second = describe(made).splitlines()
    assert first.split()[2] == "x"
    assert second.split()[2:4] == ["0", "mask"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "no name"),
        ({"name": "a b"}, "no name"),
        ({"dtype": "float64"}, "float64"),
        ({"shape": (None, None)}, "extent n"),
        ({"shape": (1,) * 9}, "9 axes"),
        ({"shape": (0,)}, "shape"),
        ({"shape": (True,)}, "shape"),
        ({"shape": (1 << 20, 1 << 20)}, "too many"),
        ({"limit": 5}, "limit"),
        ({"dtype": "int32", "limit": 0}, "limit"),
    ],
)
def test_a_port_that_cannot_be_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Port(**{"name": "x", "dtype": "float32", "shape": (2,), **changes})


def test_a_port_is_written_and_read_back():
    for port in (IMAGE, Port("i", "int32", (None, 3), per_image=False, limit=9)):
        assert Port.from_dict(port.to_dict()) == port
        with pytest.raises(ValueError, match="port"):
            Port.from_dict({**port.to_dict(), "more": 1})
