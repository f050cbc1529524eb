"""Faults put into an exported file: `vitc check` names the layer of each.

`numbers` says whether the images tried show the fault too, and not only the comparison of
parameters with a fresh export.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from vitc.compiler import compile_model
from vitc.errors import VitcError

pytestmark = pytest.mark.usefixtures("export_once")

BLOCK = "blocks.1"


@dataclass(frozen=True)
class Fault:
    """A fault of a file.

    Attributes:
        name: What is wrong.
        inject: Does it.
        place: Start of the name of the layer that check gives as the first difference.
        numbers: Whether the images show it.
    """

    name: str
    inject: Callable[[onnx.ModelProto], None]
    place: str
    numbers: bool = True


def tensor(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(t for t in proto.graph.initializer if t.name == f"{BLOCK}.{name}")


def node(proto: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(n for n in proto.graph.node if n.output[0] == f"{BLOCK}.{output}")


def values(name: str, change: Callable[[np.ndarray], None]) -> Callable[[onnx.ModelProto], None]:
    """Change an initializer in place."""

    def inject(proto: onnx.ModelProto) -> None:
        target = tensor(proto, name)
        array = numpy_helper.to_array(target).copy()
        before = array.copy()
        change(array)
        assert array.tobytes() != before.tobytes()
        target.CopyFrom(numpy_helper.from_array(array, target.name))

    return inject


def attribute(output: str, name: str, change: Callable[[int], int]):
    """Change an integer attribute of the node that writes a value."""

    def inject(proto: onnx.ModelProto) -> None:
        target = next(a for a in node(proto, output).attribute if a.name == name)
        target.i = change(target.i)

    return inject


def permutation(output: str, *axes: int):
    def inject(proto: onnx.ModelProto) -> None:
        target = next(a for a in node(proto, output).attribute if a.name == "perm")
        assert list(target.ints) != list(axes)
        target.ints[:] = axes

    return inject


def inputs(output: str, *order: int):
    """Connect a node's inputs in another order."""

    def inject(proto: onnx.ModelProto) -> None:
        target = node(proto, output)
        target.input[:] = [target.input[i] for i in order]

    return inject


def stale(name: str, source: str):
    """Leave a constant of another place where one of the same shape belongs."""

    def inject(proto: onnx.ModelProto) -> None:
        found = next(t for t in proto.graph.initializer if t.name == source)
        target = tensor(proto, name)
        assert target.dims == found.dims
        target.raw_data = numpy_helper.to_array(found).tobytes()

    return inject


def reader_reads(kind: str, source: str, target: str):
    """Let the `kind` that reads `source` read `target` instead."""

    def inject(proto: onnx.ModelProto) -> None:
        for n in proto.graph.node:
            if n.op_type == kind:
                for i, name in enumerate(n.input):
                    if name == f"{BLOCK}.{source}":
                        n.input[i] = f"{BLOCK}.{target}"

    return inject


def body(operator: str, old: str, new: str):
    """Change an operator inside the body of a dialect operator."""

    def inject(proto: onnx.ModelProto) -> None:
        function = next(f for f in proto.functions if f.name == operator)
        changed = [n for n in function.node if n.op_type == old]
        assert changed
        changed[0].op_type = new

    return inject


def flip_bit(array: np.ndarray) -> None:
    array[3, 1] ^= 4


def set_pad_bit(array: np.ndarray) -> None:
    array[3, -1] |= 128


def negate(array: np.ndarray) -> None:
    array *= -1


def negate_first(array: np.ndarray) -> None:
    array.reshape(-1)[0] *= -1


def zero(array: np.ndarray) -> None:
    array[...] = 0


def invert(array: np.ndarray) -> None:
    array[...] = ~array


def reverse_bits(array: np.ndarray) -> None:
    array[...] = np.packbits(np.unpackbits(array, axis=-1), axis=-1, bitorder="little")


def next_up(array: np.ndarray) -> None:
    array[...] = np.nextafter(array, np.float32(np.inf))


def never(array: np.ndarray) -> None:
    array[...] = -np.inf


FAULTS = [
    Fault("flipped weight bit", values("attn.key.weight", flip_bit), f"{BLOCK}.attn.key"),
    Fault(
        "flipped weight bit, SI", values("si.output.weight", flip_bit), f"{BLOCK}.si.output"
    ),
    Fault("pad bit set", values("attn.key.weight", set_pad_bit), f"{BLOCK}.attn.key", False),
    Fault("weights packed from the highest bit", values("mlp.hidden.weight", reverse_bits),
          f"{BLOCK}.mlp.hidden"),
    Fault("negated threshold", values("attn.query.upper", negate), f"{BLOCK}.attn.query"),
    Fault("one ulp on thresholds", values("attn.query.upper", next_up), f"{BLOCK}.attn.query",
          False),
    Fault("dropped shift", values("attn.value.upper", zero), f"{BLOCK}.attn.value"),
    Fault("dropped bias", values("mlp.hidden.offset", zero), f"{BLOCK}.mlp.hidden"),
    Fault("dropped lower threshold", values("mlp.hidden.lower", never), f"{BLOCK}.mlp.hidden"),
    Fault("negated scale", values("attn.output.scale", negate), f"{BLOCK}.attn.output"),
    Fault("one negated scale", values("mlp.hidden.scale", negate_first), f"{BLOCK}.mlp.hidden"),
    Fault("dropped gain", values("si.output.gain", zero), f"{BLOCK}.si.output"),
    Fault("negated norm threshold", values("mlp.input.threshold", negate), f"{BLOCK}.mlp.input"),
    Fault("inverted flip", values("si.input.flip", invert), f"{BLOCK}.si.input"),
    Fault("integer threshold off by two", values("attn.context.threshold",
          lambda a: np.add(a, 2, out=a)), f"{BLOCK}.attn.context"),
    Fault("slack one too large", attribute("attn.mask", "slack", lambda s: s + 1),
          f"{BLOCK}.attn.mask"),
    Fault("slack one too small", attribute("attn.mask", "slack", lambda s: s - 1),
          f"{BLOCK}.attn.mask"),
    Fault("heads and tokens swapped", permutation("attn.query", 0, 1, 2, 3),
          f"{BLOCK}.attn.query"),
    Fault("product not transposed", attribute("si.output", "transposed", lambda t: 1 - t),
          f"{BLOCK}.si.output"),
    Fault("K one too small", attribute("mlp.hidden", "k", lambda k: k - 1),
          f"{BLOCK}.mlp.hidden"),
    Fault("K of scores one too small", attribute("attn.scores", "k", lambda k: k - 1),
          f"{BLOCK}.attn.scores"),
    Fault("upper and lower swapped", inputs("mlp.hidden", 0, 1, 2, 3, 5, 4),
          f"{BLOCK}.mlp.hidden"),
    Fault("scale and bias swapped", inputs("mlp.output", 0, 1, 3, 2, 4, 5),
          f"{BLOCK}.mlp.output"),
    Fault("queries and keys swapped", inputs("attn.scores", 1, 0), f"{BLOCK}.attn.scores"),
    Fault("weight of another layer", stale("attn.key.weight", f"{BLOCK}.attn.value.weight"),
          f"{BLOCK}.attn.key"),
    Fault("thresholds of another block",
          stale("mlp.input.threshold", "blocks.0.mlp.input.threshold"),
          f"{BLOCK}.mlp.input"),
    Fault("residual skips the attention", reader_reads(
          "BinaryLinearResidual", "mlp.output", "attn.output"), f"{BLOCK}.si.output"),
    Fault("> instead of >= in a body", body("RowBestMask", "GreaterOrEqual", "Greater"),
          "blocks.0.attn.mask"),
    Fault("OR of the two sides became AND", body("BinaryLinearThreshold", "Or", "And"),
          "blocks.0.attn.query"),
]  # fmt: skip


def test_the_file_itself_is_equal(world):
    report = world.judge(world.file)
    assert report.equal
    assert not report.near_ties


def damaged(world, fault: Fault, folder):
    proto = world.proto()
    fault.inject(proto)
    path = folder / "damaged.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_in_the_file_is_named(world, tmp_path, fault):
    path = damaged(world, fault, tmp_path)
    report, refused = world.verdict(path)
    if report is None:
        # A graph that no runtime takes is refused; it never counts as equal.
        assert BLOCK in refused
        return
    assert not report.equal
    assert report.first_difference is not None
    assert report.first_difference.startswith(fault.place), report.first_difference
    seen = any(not layer.equal for layer in report.layers)
    assert seen == fault.numbers, [layer.name for layer in report.layers if not layer.equal]


def test_every_constant_of_another_model_is_named(world, other, tmp_path):
    theirs = {t.name: t for t in other.proto().graph.initializer}
    wrong = []
    for name in [t.name for t in world.proto().graph.initializer]:
        proto = world.proto()
        own = next(t for t in proto.graph.initializer if t.name == name)
        if own.raw_data == theirs[name].raw_data:
            continue
        own.CopyFrom(theirs[name])
        wrong.append((name, proto))
    assert len(wrong) > 40
    for name, proto in wrong[:: len(wrong) // 8]:
        path = tmp_path / "stale.onnx"
        path.write_bytes(proto.SerializeToString())
        report = world.judge(path)
        assert not report.equal, name
        assert [p.name for p in report.parameters] == [name]


COMPILED = [
    "negated scale",
    "heads and tokens swapped",
    "product not transposed",
    "K one too small",
    "K of scores one too small",
    "weight of another layer",
    "residual skips the attention",
]


@pytest.mark.parametrize("name", COMPILED)
def test_a_library_of_a_faulty_file_is_refused_or_named(world, tmp_path, name):
    fault = next(fault for fault in FAULTS if fault.name == name)
    path = damaged(world, fault, tmp_path)
    try:
        compile_model(path, "x86-64-v2", tmp_path / "out")
    except VitcError as error:
        refused = error.message
    else:
        report, refused = world.verdict(tmp_path / "out")
        if report is not None:
            assert not report.equal
            assert str(report.first_difference).startswith(fault.place)
            assert any(not layer.equal for layer in report.layers), "the library is not wrong"
            return
    assert BLOCK in refused


def test_a_binary_product_that_leads_nowhere_is_named(world, tmp_path):
    proto = world.proto()
    lost = onnx.NodeProto()
    lost.CopyFrom(node(proto, "mlp.hidden"))
    lost.name, lost.output[0] = "lost", "lost"
    proto.graph.node.append(lost)
    path = tmp_path / "lost.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(VitcError, match=r"have no kernel, since .*: lost .*blocks\.1\.mlp"):
        compile_model(path, "x86-64-v2", tmp_path / "out")
    assert not (tmp_path / "out").exists()
