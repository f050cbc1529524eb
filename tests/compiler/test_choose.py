"""Phase `choose`: readers ask, writers serve, and what nothing can serve is named."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compiler.graphs import Typed
from vitc.compiler.choose import choose
from vitc.compiler.emit import emit
from vitc.compiler.graph import Op, Use, Value
from vitc.errors import VitcError
from vitc.targets.isa import ISAS
from vitc.targets.layouts import Columns, Floats, Lanes, Rows
from vitc.targets.packing import Axis

ISA = ISAS["avx2-pshufb"]


def viewed(use: Use, elements: np.ndarray) -> Use:
    return Use(use.value, (("reshape", elements.shape),), elements)


def heads(use: Use, count: int, *, along_rows: bool = False) -> Use:
    n, width = use.shape
    elements = np.arange(n * width).reshape(n, count, -1).transpose(1, 0, 2)
    return viewed(use, elements.swapaxes(1, 2) if along_rows else elements)


def turned(use: Use) -> Use:
    return viewed(use, np.arange(np.prod(use.shape)).reshape(use.shape).T)


def attention(t: Typed, name: str, bits: Use, count: int) -> Use:
    n, width = bits.shape
    q, k, v = (t.threshold(f"{name}.{part}", bits, width) for part in "qkv")
    limit = t.rng.integers(-3, 3, (1, 1, n, 1)).astype(np.int32)
    inputs = [heads(q, count), heads(k, count), heads(v, count, along_rows=True), limit]
    output = Value(name, "bits", (count, n, width // count))
    context = t.op("Attention", inputs, output, mask="RowBestMask", slack=3, summands=1)
    elements = np.arange(n * width).reshape(count, n, -1).transpose(1, 0, 2).reshape(n, width)
    return viewed(context, elements)


def test_every_reader_of_attention_and_of_the_spatial_branch_gets_its_layout():
    t = Typed()
    x = t.embedding("x", 12, 4, 40)
    y = t.residual("out", attention(t, "context", t.binarize("in", x), 2), x)
    hidden = t.threshold("hidden", turned(t.binarize("si", y)), 11)
    z = t.residual("z", hidden, y, transposed=True)
    graph = t.graph(z)
    chosen = {op.output.name: choice.form.layout for op, choice in choose(graph, ISA).items()}
    assert chosen == {
        "x": Floats(9, 40, 64),
        "in": Rows(9, Axis(40)),
        "context.q": Rows(9, Axis(20, 2)),
        "context.k": Lanes(9, 20, 32, 8, 2),
        "context.v": Columns(Axis(20, 2), 9, 32, 8),
        "context": Rows(9, Axis(20, 2)),
        "out": Floats(9, 40, 64),
        "si": Columns(Axis(40), 9, 32, 8),
        "hidden": Columns(Axis(40), 11, 32, 8),
        "z": Floats(9, 40, 64),
    }


def test_an_operator_without_a_rule_is_named():
    t = Typed()
    x = t.embedding("x", 8, 4, 32)
    y = t.op("Sharpen", [x], Value("sharp", "float", x.shape))
    with pytest.raises(VitcError, match=r"sharp \(Sharpen of layer sharp\) .* no kernel computes"):
        choose(t.graph(y), ISA)


def test_padding_of_bits_says_what_to_pad_instead():
    t = Typed()
    bits, padded = t.binarize("in", t.embedding("x", 8, 4, 32)), Value("padded", "float", (6, 32))
    t.ops.append(Op("Pad", "", (bits,), padded, {}, "layer padded"))
    y = t.threshold("y", Use(padded), 32)
    with pytest.raises(VitcError, match=r"padded \(Pad .*pad the floats before they are binarized"):
        choose(t.graph(y), ISA)


def disagreeing(t: Typed, x: Use, bits: Use) -> Use:
    """A reader of rows of bits, and one of columns."""
    y = t.residual("y", t.threshold("rows", bits, 8), x)
    return t.residual("z", t.threshold("turned", turned(bits), 9), y, transposed=True)


def test_floats_are_binarized_once_for_each_of_two_readers_that_disagree():
    t = Typed()
    x = t.embedding("x", 12, 4, 40)
    bits = t.binarize("bits", x)
    bits.value.taps.append(("bits", ()))
    zero, no = np.zeros((1, 1), np.float32), np.zeros((1, 1), bool)
    t.ops[-1].inputs = (x, zero, no)
    graph = t.graph(disagreeing(t, x, bits))
    plan = emit(graph, choose(graph, ISA), ISA)
    made = [step.output for step in plan.steps if step.tap == "bits"]
    layouts = [Rows(9, Axis(40)), Columns(Axis(40), 9, 32, 8)]
    assert sorted(map(str, (b.layout for b in made))) == sorted(map(str, layouts))
    assert [len(buffer.taps) for buffer in made] == [1, 0], "a trace shows them once"
    read = {step.tap: {o.layout for o in step.operands if o in made} for step in plan.steps}
    assert (read["rows"], read["turned"]) == ({layouts[0]}, {layouts[1]})


def test_two_readers_of_a_product_that_disagree_are_named():
    t = Typed()
    x = t.embedding("x", 12, 4, 40)
    bits = t.threshold("bits", t.binarize("in", x), 40)
    graph = t.graph(disagreeing(t, x, bits))
    choices = choose(graph, ISA)
    with pytest.raises(VitcError, match=r"rows \(.* bits is held as Columns .* it reads Rows"):
        emit(graph, choices, ISA)


@pytest.mark.parametrize("tapped", [False, True])
def test_a_reader_of_some_tokens_has_only_those_binarized_but_a_tap_has_all(tapped):
    t = Typed()
    x = t.embedding("x", 12, 4, 40)
    bits = t.binarize("bits", x)
    if tapped:
        bits.value.taps.append(("bits", ()))
    some = viewed(bits, np.arange(9 * 40).reshape(9, 40)[[3, 1]])
    y = t.threshold("y", some, 8)
    graph = t.graph(y)
    plan = emit(graph, choose(graph, ISA), ISA)
    rows = [s.output.layout.shape[1] for s in plan.steps if s.tap == "bits"]
    assert rows == [9, 2][not tapped :]


def test_a_binary_product_that_leads_to_no_output_is_named():
    t = Typed()
    x = t.embedding("x", 8, 4, 32)
    bits = t.binarize("bits", x)
    t.threshold("lost", bits, 8)
    y = t.residual("y", t.threshold("kept", bits, 8), x)
    with pytest.raises(VitcError, match=r"1 binary operators .* lost \(BinaryLinearThreshold"):
        choose(t.graph(y), ISA)


def test_floats_that_are_read_in_another_order_are_named():
    t = Typed()
    x = t.embedding("x", 12, 4, 40)
    picked = viewed(x, np.arange(9 * 40).reshape(9, 40)[[3, 1, 0]].T)
    y = t.threshold("y", t.binarize("bits", picked), 8)
    with pytest.raises(VitcError, match=r"bits \(Binarize .* in an order that no kernel reads"):
        choose(t.graph(y), ISA)


def test_queries_may_be_of_another_input_than_keys():
    t = Typed()
    x, y = t.embedding("x", 8, 4, 40), t.embedding("y", 12, 4, 40)
    inner, outer = t.binarize("inner", x), t.binarize("outer", y)
    q = t.threshold("q", inner, 40)
    k, v = (t.threshold(name, outer, 40) for name in "kv")
    inputs = [heads(q, 2), heads(k, 2), heads(v, 2, along_rows=True), np.zeros((1, 1, 1, 1), int)]
    output = Value("context", "bits", (2, 4, 20))
    context = t.op("Attention", inputs, output, mask="RowBestMask", slack=3, summands=1)
    joined = viewed(context, np.arange(160).reshape(2, 4, 20).transpose(1, 0, 2).reshape(4, 40))
    graph = t.graph(t.residual("out", joined, x))
    plan = emit(graph, choose(graph, ISA), ISA)
    layouts = {step.tap: step.output.layout for step in plan.steps}
    assert layouts["q"] == Rows(4, Axis(20, 2))
    assert layouts["k"] == Lanes(9, 20, 32, 8, 2)
    assert layouts["v"] == Columns(Axis(20, 2), 9, 32, 8)
    assert layouts["context"] == Rows(4, Axis(20, 2))
    cost = next(step.cost for step in plan.steps if step.tap == "context")
    assert cost.binary == 2 * 2 * 4 * 9 * 20
