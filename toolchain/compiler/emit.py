"""Phase 6: one walk over the operators, in which rules build steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vitc.compiler.choose import Choice
from vitc.compiler.codegen import Dump
from vitc.compiler.floats import FloatOp, Item, Lowering
from vitc.compiler.form import Form, codes_of, floats_of
from vitc.compiler.graph import Array, Graph, Kind, Op, Use, Value, refused
from vitc.compiler.plan import (
    Buffer,
    Constant,
    Cost,
    Operand,
    Output,
    Plan,
    Port,
    Step,
    readers_first,
)
from vitc.compiler.rules.joint_threshold import joined
from vitc.dialect.metadata import layer_of_tap
from vitc.errors import VitcError
from vitc.targets.isa import Isa
from vitc.targets.kernels.copy_rows import copy_rows_kernel
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.kernels.signs import signs_kernel
from vitc.targets.layouts import Floats, Layout, Signs
from vitc.targets.layouts.views import simplified
from vitc.targets.packing import ROW_PADDING, Axis
from vitc.targets.tiles import Tile

__all__ = ["Emission", "emit"]

Build = Callable[[str, Isa], Kernel]

_OUTPUT_HINT = "Export a model whose outputs it computes."


def emit(
    graph: Graph,
    choices: Mapping[Op, Choice],
    isa: Isa,
    tiles: Mapping[str, Tile] | None = None,
    dump: Dump | None = None,
) -> Plan:
    """Build the steps of a graph.

    Args:
        graph: Operators.
        choices: Their rules and forms.
        isa: Instruction set.
        tiles: Register tiles for some kernels, by `Plan.identities`; those of the instruction set
            for the others.
        dump: Called with the name and the text of what TVM makes of float operators.

    Returns:
        A plan whose workspace is not laid out yet.
    """
    emission = Emission(graph, isa, tiles or {})
    joints = joined(choices, isa)
    for op, choice in choices.items():
        if op in joints:
            # What the others of it read is there, as it is the same.
            if not emission.holds(op.output):
                joints[op].build(emission)
            continue
        made = choice.rule.build(op, choice.form, emission)
        if isinstance(made, Port):
            continue
        emission.hold(op.output, choice.form, made)
        for form in choice.others:
            again = choice.rule.build(op, form, emission)
            assert isinstance(again, Buffer)  # noqa: S101 - ports are written once
            emission.hold_too(op.output, form, again)
    outputs = tuple(
        emission.given(name, use) for name, use in graph.outputs.items() if not use.value.port
    )
    ports = tuple(emission.port(value) for value in graph.inputs)
    steps = readers_first(emission.steps(outputs, dump))
    return Plan(steps, ports, outputs, emission.identities)


_DTYPES: Mapping[Kind, str] = {
    "bits": "uint8", "int": "int32", "float": "float32", "index": "int32", "packed": "uint8",
    "bytes": "uint8",
}  # fmt: skip


class Emission:
    """What rules build with.

    Attributes:
        isa: Instruction set.
        identities: What each kernel with register tiles does, by its symbol.
    """

    def __init__(self, graph: Graph, isa: Isa, tiles: Mapping[str, Tile]) -> None:
        self.isa = isa
        self.identities: dict[str, str] = {}
        self._items: list[Item] = []
        self._tiles = tiles
        self._ports = {value: _port(value) for value in graph.inputs}
        self._kernels: dict[tuple[str, tuple[Any, ...]], Kernel] = {}
        self._constants: dict[tuple[str, bytes], Constant] = {}
        self._buffers: dict[Value, tuple[Form, Buffer]] = {}
        self._others: dict[tuple[Value, Form], Buffer] = {}
        self._signs: dict[int, Buffer] = {}

    def holds(self, value: Value) -> bool:
        """Whether a buffer holds a value."""
        return value in self._buffers

    def hold(self, value: Value, form: Form, buffer: Buffer) -> None:
        """Say which buffer holds a value."""
        self._buffers[value] = (form, buffer)

    def hold_too(self, value: Value, form: Form, buffer: Buffer) -> None:
        """Say which buffer holds a value in a form that is not its first."""
        self._others[value, form] = buffer

    def buffer(self, value: Value) -> Buffer:
        """The buffer that holds a value."""
        return self._buffers[value][1]

    def port(self, value: Value) -> Port:
        """The port of an input of the graph, for a kernel that reads it as it comes.

        What kernels read in a form is for `read`, which has it copied.
        """
        return self._ports[value]

    def given(self, name: str, use: Use) -> Output:
        """An output of the graph.

        Raises:
            VitcError: If it is an input, or nothing can be read back from how it is held.
        """
        value = use.value
        held = self._buffers.get(value)
        back = held[0].back(value.shape) if held is not None else None
        if held is None or back is None:
            what = "an input" if held is None else f"held as {held[0]}, which cannot be given out"
            raise VitcError(f"The output {name} is {what}.", _OUTPUT_HINT)
        port = Port(name, _DTYPES[value.kind], use.shape)
        return Output(port, held[1], simplified(held[0].layout.shape, (*back, *use.views)))

    def tiled(self, stem: str, key: tuple[Any, ...]) -> Isa:
        """The instruction set with the register tiles of a kernel."""
        tile = self._tiles.get(_identity(stem, key))
        return tile.apply(self.isa) if tile is not None else self.isa

    def kernel(
        self, stem: str, key: tuple[Any, ...], build: Build, *, tuned: bool = True
    ) -> Kernel:
        """Return the kernel of a shape, building it once.

        Args:
            stem: Start of its symbol.
            key: All that it depends on but the instruction set.
            build: Builds it, given a symbol and the instruction set with its register tiles.
            tuned: Whether it has register tiles to choose.
        """
        known = self._kernels.get((stem, key))
        if known is None:
            count = sum(1 for other, _ in self._kernels if other == stem)
            known = build(f"vitc_{stem}_{count}", self.tiled(stem, key) if tuned else self.isa)
            self._kernels[stem, key] = known
            if tuned:
                self.identities[known.symbol] = _identity(stem, key)
        return known

    def constant(self, array: Array) -> Constant:
        """Return read-only data, shared among equal arrays."""
        array = np.ascontiguousarray(array)
        return self._constants.setdefault((str(array.dtype), array.tobytes()), Constant(array))

    def read(self, op: Op, use: Use, form: Form) -> Operand:
        """Return what holds a value in the form that an operator asks for.

        Raises:
            VitcError: If nothing does.
        """
        if use.value in self._ports:
            return self._read_input(op, use.value, form)
        held, buffer = self._buffers[use.value]
        if (use.value, form) in self._others:
            return self._others[use.value, form]
        if held != form:
            raise refused(op, f"{use.value.tap} is held as {held}, and it reads {form}")
        return buffer

    def floats(self, op: Op, use: Use) -> tuple[Operand, Form]:
        """Return what holds floats, and how: an input as it comes, for a kernel of any distance.

        Raises:
            VitcError: If nothing holds them in rows.
        """
        value, form = use.value, floats_of(use.value)
        if value not in self._ports:
            return self.read(op, use, form), form
        layout = Floats(value.rows, value.channels, value.channels)
        return self.port(value), Form(form.order, layout)

    def bytes_of(self, op: Op, use: Use) -> Operand:
        """Return what holds bytes, row behind row: an input as it comes, or codes.

        Raises:
            VitcError: If nothing does.
        """
        value = use.value
        return self.port(value) if value in self._ports else self.read(op, use, codes_of(value))

    def _read_input(self, op: Op, value: Value, form: Form) -> Operand:
        """An input as it comes; in rows at the distance of other floats where that is asked for."""
        if value.kind != "float":
            raise refused(op, f"it reads floats, and the input {value.name} holds integers")
        layout = form.layout
        assert isinstance(layout, Floats)  # noqa: S101 - nothing else reads an input
        rows, columns, stride = layout.rows, layout.columns, layout.stride
        if stride == columns and not rows % ROW_PADDING:
            return self.port(value)
        if value not in self._buffers:
            kernel = self.kernel(
                "copy_rows",
                (rows, columns, stride),
                lambda symbol, _: copy_rows_kernel(
                    symbol, rows=rows, columns=columns, stride=stride
                ),
                tuned=False,
            )
            copy = Buffer(self._name(f"{value.name}.rows"), layout)
            self.hold(value, form, self._append(kernel, [self.port(value)], copy, Cost()))
        return self.buffer(value)

    def signs(self, operand: Operand, rows: int, axis: Axis, name: str) -> Buffer:
        """Return the signs of packed rows, expanding them once."""
        if id(operand) not in self._signs:
            kernel = self.kernel(
                "signs", (rows, axis), lambda symbol, _: signs_kernel(symbol, rows, axis),
                tuned=False,
            )  # fmt: skip
            self._signs[id(operand)] = self._append(
                kernel, [operand], Buffer(self._name(f"{name}.signs"), Signs(rows, axis)), Cost()
            )
        return self._signs[id(operand)]

    def steps(self, outputs: Sequence[Output], dump: Dump | None = None) -> list[Step]:
        """All steps, in order, those of float operators too.

        Raises:
            VitcError: If a float operator cannot be computed.
        """
        deferred = [item for item in self._items if isinstance(item, FloatOp)]
        if not deferred:
            return [item for item in self._items if isinstance(item, Step)]
        given = {output.buffer.name for output in outputs}
        kept = [
            item.output for item in deferred if item.op.output.taps or item.output.name in given
        ]
        held = {b.name: v for v, (_, b) in self._buffers.items() if v.kind == "float"}
        lowering = Lowering(self.isa, self._ports, held, self.constant)
        return lowering.steps(self._items, kept, dump)

    def defer(self, op: Op, form: Form) -> Buffer:
        """Leave a float operator to TVM, and return the buffer of its value."""
        buffer = self._buffer(op, form)
        self._items.append(FloatOp(op, buffer))
        return buffer

    def step(
        self,
        op: Op,
        form: Form,
        kernel: Kernel,
        operands: Sequence[Operand],
        cost: Cost,
        adds_to: Operand | None = None,
    ) -> Buffer:
        """Append the step that writes an operator's value, and return its buffer."""
        return self._append(kernel, operands, self._buffer(op, form), cost, adds_to)

    def step_of_several(
        self,
        written: Sequence[tuple[Op, Form]],
        kernel: Kernel,
        operands: Sequence[Operand],
        cost: Cost,
    ) -> None:
        """Append the step that writes the values of several operators, and hold them."""
        buffers = [self._buffer(op, form) for op, form in written]
        tap = buffers[0].tap
        step = Step(kernel, tuple(operands), tuple(buffers), layer_of_tap(tap), tap, cost)
        self._items.append(step)
        for (op, form), buffer in zip(written, buffers, strict=True):
            self.hold(op.output, form, buffer)

    def step_over(
        self, op: Op, over: Port, kernel: Kernel, operands: Sequence[Operand], cost: Cost
    ) -> Port:
        """Append the step that writes an operator's value to its port, and return that.

        Args:
            op: The operator.
            over: The port whose extent is the number of tasks.
            kernel: What it calls.
            operands: What that reads.
            cost: Of one row of the extent.
        """
        port = op.output.port
        assert port is not None  # noqa: S101 - as `read` makes what is over the extent of a run
        self._items.append(
            Step(kernel, tuple(operands), (port,), op.layer, port.name, cost, over=over)
        )
        return port

    def beside(
        self, kernel: Kernel, operands: Sequence[Operand], layout: Layout, name: str
    ) -> Buffer:
        """Append a step that writes something that is no value of the graph."""
        return self._append(kernel, operands, Buffer(self._name(name), layout), Cost())

    def _buffer(self, op: Op, form: Form) -> Buffer:
        """A buffer for an operator's value."""
        value = op.output
        back = form.back(value.shape)
        if value in self._buffers or (back is None and not value.taps):
            return Buffer(self._name(value.tap), form.layout)
        if back is None:
            raise refused(op, f"no trace can show what is held as {form}")
        shape = form.layout.shape
        shown = ((value.name, ()),) if value.shown is None else value.shown
        taps = tuple(
            (name, simplified(shape, (*back, *views))) for name, views in value.taps or shown
        )
        return Buffer(self._name(value.tap), form.layout, taps)

    def _name(self, tap: str) -> str:
        return f"{len(self._items)}:{tap}"

    def _append(
        self,
        kernel: Kernel,
        operands: Sequence[Operand],
        buffer: Buffer,
        cost: Cost,
        adds_to: Operand | None = None,
    ) -> Buffer:
        layer = layer_of_tap(buffer.tap)
        step = Step(
            kernel, tuple(operands), (buffer,), layer, buffer.tap, cost, adds_to=adds_to
        )
        self._items.append(step)
        return buffer


def _port(value: Value) -> Port:
    return value.port or Port(value.name, _DTYPES[value.kind], value.shape, limit=value.limit)


def _identity(stem: str, key: tuple[Any, ...]) -> str:
    """What a kernel does, in words that are the same for every model with such a kernel."""
    return f"{stem}{key!r}"
