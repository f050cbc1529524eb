"""The typed graph: what the phases between an ONNX file and a plan hand on.

The axis of images is left out everywhere, and no operator is about memory: a layout comes with the
phase that chooses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vitc.compiler.order import Order
from vitc.dialect.ops import DOMAIN
from vitc.errors import VitcError
from vitc.runtime.port import Port
from vitc.targets.layouts.views import View

__all__ = [
    "EPSILON",
    "VIEW",
    "WRITTEN",
    "Array",
    "Graph",
    "Input",
    "Kind",
    "Op",
    "Use",
    "Value",
    "affine_of_norm",
    "refused",
]

Array = npt.NDArray[Any]

Kind = Literal["bits", "int", "float", "index", "packed", "bytes"]
"""Bits are {0, 1}; a bit stands for a sign, or for itself in a mask. An index picks rows. Packed
bits are the bytes of a port of the whole run; bytes are pixels of an image, or codes of floats."""


EPSILON = 1e-5
"""Of a normalization that does not say."""

VIEW = "View"
"""Kind of an operator that only moves elements, by its attribute `views`."""

WRITTEN = "written"
"""Attribute of a sum: the order of the residual's rows in which a product is added to them."""


@dataclass(eq=False)
class Value:
    """What an operator writes, or an input of the graph.

    Attributes:
        name: As in the ONNX file.
        kind: Type of its elements.
        shape: Of one image. As a matrix, its rows are all axes but the last, the channels.
        taps: Names under which a trace shows it, with the views to each from `shape`.
        limit: Of an input that is an index: how many rows there are to pick from.
        shown: What in the file it is where it has no tap, with the views to that; None for what
            has its name, and empty for nothing.
        port: Of what belongs to the whole run, not to an image: `shape` is then that of the port,
            without the extent of the run, which comes first.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    taps: list[tuple[str, tuple[View, ...]]] = field(default_factory=list)
    limit: int | None = None
    shown: tuple[tuple[str, tuple[View, ...]], ...] | None = None
    port: Port | None = None

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return int(np.prod(self.shape[:-1]))

    @property
    def channels(self) -> int:
        """Channels of a row."""
        return self.shape[-1]

    @property
    def tap(self) -> str:
        """The first of its taps, or else its name."""
        return self.taps[0][0] if self.taps else self.name


@dataclass(frozen=True, eq=False)
class Use:
    """A value as an operator reads it.

    Attributes:
        value: What is read.
        views: Reshapes, transposes and picks from the value to what is read.
        elements: Number of the value's element that each element of what is read is; None if all
            are read as they lie.
    """

    value: Value
    views: tuple[View, ...] = ()
    elements: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is read."""
        return self.value.shape if self.elements is None else self.elements.shape

    @cached_property
    def order(self) -> Order | None:
        """The rows that are read, if it is rows that are read."""
        if self.elements is None:
            return Order.whole(self.value.shape)
        return Order.of(self.elements, self.value.channels)

    @property
    def whole(self) -> bool:
        """Whether all elements are read as they lie, but for the names of axes."""
        return self.elements is None or np.array_equal(
            self.elements.reshape(-1), np.arange(np.prod(self.value.shape))
        )


Input = Use | Array | None
"""What an operator reads: a value, a constant, or nothing where an input is optional."""


@dataclass(eq=False)
class Op:
    """An operator.

    Attributes:
        kind: Its type in the ONNX file, or what a phase made of several.
        domain: Of its type; empty for the standard one.
        inputs: What it reads.
        output: What it writes.
        attributes: By name.
        layer: Layer that it works for.
    """

    kind: str
    domain: str
    inputs: tuple[Input, ...]
    output: Value
    attributes: Mapping[str, Any]
    layer: str

    @property
    def uses(self) -> Iterator[Use]:
        """The values that it reads."""
        return (read for read in self.inputs if isinstance(read, Use))

    def use(self, index: int) -> Use:
        """Return an input that has to be a value.

        Raises:
            VitcError: If it is not.
        """
        found = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(found, Use):
            raise refused(self, f"its input {index} does not depend on the image")
        return found

    def constant(self, index: int) -> Array:
        """Return an input that has to be a constant.

        Raises:
            VitcError: If it is not.
        """
        found = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(found, np.ndarray):
            raise refused(self, f"its input {index} is not a constant")
        return found

    def number(self, name: str) -> int:
        """Return an attribute that has to be there.

        Raises:
            VitcError: If it is not.
        """
        if name not in self.attributes:
            raise refused(self, f"it lacks the attribute {name}")
        return int(self.attributes[name])

    def is_a(self, kind: str, domain: str = DOMAIN) -> bool:
        """Whether it is of a type."""
        return (self.kind, self.domain) == (kind, domain)

    def __str__(self) -> str:
        """What an error or a dump calls it."""
        return f"{self.output.name} ({self.kind} of {self.layer})"


@dataclass
class Graph:
    """Operators in the order of the ONNX file, each after what it reads.

    Attributes:
        inputs: What a run is given.
        outputs: What it gives, by the names of the file.
        ops: The operators.
    """

    inputs: list[Value]
    outputs: dict[str, Use]
    ops: list[Op]

    def readers(self) -> dict[Value, list[Op]]:
        """The operators that read each value; a graph's output is not counted."""
        found: dict[Value, list[Op]] = {}
        for op in self.ops:
            for use in op.uses:
                found.setdefault(use.value, []).append(op)
        return found

    def describe(self) -> str:
        """Return one line an operator, for `--dump-ir`."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        for value in self.inputs:
            kind = "" if value.kind == "float" else f" {value.kind}"
            yield f"input {value.name}{kind} {_sizes(value.shape)}"
        for op in self.ops:
            reads = " ".join(_shown(read) for read in op.inputs)
            taps = "".join(f" ={name}" for name, _ in op.output.taps if name != op.output.name)
            written = f"{op.output.name}{taps} {op.output.kind} {_sizes(op.output.shape)}"
            order = f" @({op.attributes[WRITTEN]})" if WRITTEN in op.attributes else ""
            yield f"{op.kind:22s} {reads} -> {written}{order}"
        for name, use in self.outputs.items():
            shown = _shown(use)
            yield f"output {shown}" if shown == name else f"output {name} = {shown}"


def affine_of_norm(op: Op, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Gain and shift of a BatchNormalization in evaluation, fp32 [C, 1..]."""
    gain, shift, mean, variance = (op.constant(i).astype(np.float64) for i in range(1, 5))
    factor = gain / np.sqrt(variance + float(op.attributes.get("epsilon", EPSILON)))
    sizes = (-1, *(1,) * (len(shape) - 1))
    arrays = factor, shift - mean * factor
    first, second = (array.reshape(sizes).astype(np.float32) for array in arrays)
    return first, second


def _shown(read: Input) -> str:
    if read is None:
        return "-"
    if not isinstance(read, Use):
        return f"{read.dtype}[{_sizes(read.shape)}]"
    if read.elements is None:
        return read.value.name
    order = read.order
    return f"{read.value.name}@({order if order is not None else _sizes(read.shape)})"


def _sizes(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "1"


def refused(op: Op, why: str) -> VitcError:
    """An operator that cannot be compiled, and why."""
    return VitcError(
        f"{op} is not compiled: {why}.",
        "Export the model again with `vitc export --format packed`.",
    )
