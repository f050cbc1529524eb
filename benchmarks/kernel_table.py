"""Table: fp32 kernels beside the same operator in ONNX Runtime, in turns."""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from contenders import Contender, noise, pinned, race
from markdown import table
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from vitc.bench.baselines import BaselineSession
from vitc.compiler.codegen import emit_object, lower
from vitc.compiler.link import run_zig
from vitc.compiler.pipeline import make_plan
from vitc.compiler.plan import Buffer, Constant, Plan
from vitc.dialect.ops import IR_VERSION, OPSET
from vitc.targets.table import Target, find

__all__ = ["kernel_table"]

Say = Callable[[str], None]

_BYTES = 64
"""To which everything that kernels read and write is aligned."""


@dataclass(frozen=True)
class Case:
    """An operator on floats.

    Attributes:
        name: For the table.
        shape: Of the input, the axis of images first.
        kind: ONNX operator.
        constants: Shapes of its other inputs.
        attributes: Of the operator.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    constants: tuple[tuple[int, ...], ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()

    def model(self) -> onnx.ModelProto:
        """The operator alone; a MatMul with a bias."""
        rng = np.random.default_rng(0)
        names = [f"c{i}" for i in range(len(self.constants))]
        arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in self.constants]
        attributes = dict(self.attributes)
        if self.kind == "MatMul":
            nodes = [
                helper.make_node("MatMul", ["x", names[0]], ["p"]),
                helper.make_node("Add", ["p", names[1]], ["y"]),
            ]
        else:
            nodes = [helper.make_node(self.kind, ["x", *names], ["y"], **attributes)]
        kind = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "operator",
            [helper.make_tensor_value_info("x", kind, self.shape)],
            [helper.make_tensor_value_info("y", kind, None)],
            [numpy_helper.from_array(a, name) for name, a in zip(names, arrays, strict=True)],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def _linear(name: str, rows: int, length: int, outputs: int) -> Case:
    text = f"{name}, {rows} x {length} -> {outputs}"
    return Case(text, (1, rows, length), "MatMul", ((length, outputs), (outputs,)))


def _convolution(
    name: str, side: int, colours: int, outputs: int, window: int, stride: int, pad: int
) -> Case:
    text = f"{name}, {side} x {side} x {colours} -> {outputs}, {window} x {window} / {stride}"
    attributes = (("strides", (stride,) * 2), ("pads", (pad,) * 4))
    weights = ((outputs, colours, window, window), (outputs,))
    return Case(text, (1, colours, side, side), "Conv", weights, attributes)


def _norm(rows: int, length: int) -> Case:
    return Case(f"LayerNorm, {rows} x {length}", (1, rows, length), "LayerNormalization",
                ((length,), (length,)), (("axis", -1),))  # fmt: skip


def _softmax(rows: int, length: int) -> Case:
    return Case(f"softmax, {rows} x {length}", (1, rows, length), "Softmax", (), (("axis", -1),))


CASES: tuple[Case, ...] = (
    _convolution("patches", 224, 3, 384, 16, 16, 0),
    _convolution("patches", 224, 3, 96, 4, 4, 0),
    _convolution("stem", 224, 3, 64, 7, 4, 3),
    _convolution("reduction", 56, 64, 64, 8, 8, 0),
    _convolution("reduction", 28, 128, 128, 4, 4, 0),
    _convolution("convolution", 28, 192, 384, 3, 1, 1),
    _linear("classifier", 1, 384, 1000),
    _linear("merging", 784, 384, 192),
    _linear("merging", 49, 1536, 768),
    _linear("linear", 197, 384, 1536),
    _norm(3136, 96),
    _norm(197, 384),
    _norm(49, 1536),
    Case("GELU, 197 x 1536", (1, 197, 1536), "Gelu"),
    _softmax(788, 192),
    _softmax(788, 197),
)


class _Kernels:
    """A plan, step by step, on memory of its own.

    Args:
        plan: The plan.
        target: What it is for.
        image: What its input is.
    """

    def __init__(self, plan: Plan, target: Target, image: NDArray[np.float32]) -> None:
        with tempfile.TemporaryDirectory(prefix="vitc-kernels-") as name:
            folder = Path(name)
            emit_object(lower(plan.kernels, target), target, folder / "k.o")
            run_zig(["-target", target.link, "-shared", "-o", "k.so", "k.o"], folder)
            library = ctypes.CDLL(str(folder / "k.so"))
        given = _memory(image.nbytes, image)
        held: dict[str, NDArray[np.uint8]] = {}
        self._kept: list[NDArray[np.uint8]] = [given]
        self._calls: list[tuple[Any, Sequence[ctypes.c_void_p], int]] = []
        for step in plan.steps:
            read = []
            for operand in step.operands:
                if isinstance(operand, Constant):
                    read.append(_memory(operand.data.nbytes, operand.data))
                else:
                    read.append(held[operand.name] if isinstance(operand, Buffer) else given)
            written = held[step.output.name] = _memory(step.output.size)
            arrays = [*read, written]
            self._kept += arrays
            pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
            self._calls.append((getattr(library, step.kernel.symbol), pointers, step.kernel.tasks))

    def times(self, runs: int) -> list[int]:
        """See `contenders.Contender.times`."""
        taken = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            for function, pointers, tasks in self._calls:
                function(*pointers, 0, tasks)
            taken.append(time.perf_counter_ns() - start)
        return taken


def _memory(size: int, content: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """Aligned memory, a vector longer than asked for."""
    memory = np.zeros(size + 2 * _BYTES, np.uint8)
    start = -memory.ctypes.data % _BYTES
    aligned = memory[start : start + size + _BYTES]
    if content is not None:
        aligned[:size] = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
    return aligned


def kernel_table(runs: int, say: Say) -> str:
    """Every case on one thread."""
    rows, target = [], find("native")
    with pinned(1):
        for case in CASES:
            say(f"timing {case.name}")
            model, image = case.model(), noise(case.shape)
            plan = make_plan(ir.from_proto(model), target, [])
            contenders: dict[str, Contender] = {
                "vitc": _Kernels(plan, target, image[0]),
                "ort": BaselineSession(model.SerializeToString(), [image], 1),
            }
            found = race(contenders, runs)
            own, other = found["vitc"], found["ort"]
            macs = sum(step.cost.fp for step in plan.steps)
            rows.append(
                (
                    case.name,
                    f"{own.median:.3f} ms ({own.min:.3f})",
                    f"{other.median:.3f} ms ({other.min:.3f})",
                    f"**{other.median / own.median:.2f}x** ({other.min / own.min:.2f}x)",
                    f"{macs / own.min / 1e6:.1f}" if macs else "",
                )
            )
    columns = ("operator", ">vitc", ">ONNX Runtime", ">ratio", ">G MAC/s")
    return (
        f"{table(columns, rows)}\n\nTarget {target.name}, one pinned thread, {runs} runs of each "
        "in turns. Medians; in brackets minima, of which are the multiply-adds a second. A "
        "convolution has what copies its picture into lines where it needs that."
    )
