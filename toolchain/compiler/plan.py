"""A model before code generation: kernels in order, their operands, a planned workspace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tvm import relax

from vitc.runtime.port import Port
from vitc.targets.kernels.emitter import Kernel
from vitc.targets.layouts import Layout
from vitc.targets.layouts.views import View

__all__ = [
    "ALIGNMENT",
    "Buffer",
    "Constant",
    "Cost",
    "Operand",
    "Output",
    "Plan",
    "Port",
    "Step",
    "Unit",
    "describe",
    "plan_workspace",
    "readers_first",
]

ALIGNMENT = 64
"""Alignment of every buffer and constant, bytes: a cache line, and the widest vector."""


@dataclass(frozen=True)
class Buffer:
    """A value in the workspace.

    Attributes:
        name: Unique name.
        layout: How it holds the value.
        taps: Names of the values that it holds, each with the views to it from what `layout`
            decodes.
    """

    name: str
    layout: Layout
    taps: tuple[tuple[str, tuple[View, ...]], ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.layout.size

    @property
    def tap(self) -> str:
        """Name of the value: that of the buffer, without what makes it unique."""
        return self.name.partition(":")[2] or self.name


@dataclass(frozen=True, eq=False)
class Constant:
    """Read-only data: weights in kernel layout, scales, thresholds."""

    data: npt.NDArray[np.generic]


Operand = Buffer | Constant | Port
"""What a kernel reads; of a port that each image has, the image's own part."""


Unit = Literal["popcount", "int8"]


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of a step for one image, without padding.

    Attributes:
        binary: Of 1-bit operands.
        fp: Of fp32 operands.
        unit: What makes those of 1-bit operands; None if there are none.
    """

    binary: int = 0
    fp: int = 0
    unit: Unit | None = None


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        kernel: The kernel. Its pointers are the operands and then the outputs.
        operands: What it reads, in order.
        outputs: What it writes: buffers, or ports of the extent `n`, which no buffer holds.
        layer: Layer, such as `blocks.0.attn.query`.
        tap: Name of the value it writes, as in the ONNX file; of the first of several.
        cost: Its multiply-accumulates; where `over` is set, for one row of it.
        over: A port whose extent `n` is the number of tasks, in place of the kernel's own.
        adds_to: The operand that its output may lie over: the kernel reads each element of it once,
            in the task that then writes the same element of the output.
    """

    kernel: Kernel
    operands: tuple[Operand, ...]
    outputs: tuple[Buffer | Port, ...]
    layer: str
    tap: str
    cost: Cost
    over: Port | None = None
    adds_to: Operand | None = None

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Those of its outputs that lie in the workspace."""
        return tuple(output for output in self.outputs if isinstance(output, Buffer))

    @property
    def output(self) -> Buffer:
        """The one buffer that it writes."""
        (buffer,) = self.buffers
        return buffer


@dataclass(frozen=True)
class Output:
    """What a run gives of a buffer: the driver copies it out.

    Attributes:
        port: Where it goes.
        buffer: What holds it.
        views: From what the buffer's layout decodes to what the port gets.
    """

    port: Port
    buffer: Buffer
    views: tuple[View, ...] = ()


@dataclass
class Plan:
    """What one entry of a program does: steps in order, and where their buffers lie.

    Attributes:
        steps: Kernel calls.
        inputs: What a run is given.
        outputs: What it gives, beside ports that steps write.
        identities: What each kernel with register tiles does, by its symbol; the same words in
            every model.
        offsets: Offset of each buffer in the workspace, bytes.
        workspace: Size of the workspace, bytes.
    """

    steps: list[Step]
    inputs: tuple[Port, ...]
    outputs: tuple[Output, ...]
    identities: dict[str, str] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    workspace: int = 0

    @property
    def kernels(self) -> list[Kernel]:
        """Distinct kernels, in order of first use."""
        return list({step.kernel.symbol: step.kernel for step in self.steps}.values())

    @property
    def written(self) -> tuple[Port, ...]:
        """Ports that a run gives: those that the driver fills, and those that steps write."""
        stepped = [o for step in self.steps for o in step.outputs if isinstance(o, Port)]
        return tuple(dict.fromkeys([*(output.port for output in self.outputs), *stepped]))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def readers_first(steps: Sequence[Step]) -> list[Step]:
    """Put what reads a buffer before what is added to it, so that the sum may lie over it.

    A branch beside another reads what the other is added to. Its signs, which are smaller, can be
    taken first; a step stays where it is unless all that it reads is there, and all others that
    read the buffer can move with it.
    """
    ordered = list(steps)
    for step in steps:
        below = step.adds_to
        if not isinstance(below, Buffer):
            continue
        at = ordered.index(step)
        there = {buffer.name for each in ordered[:at] for buffer in each.buffers}
        later = [each for each in ordered[at + 1 :] if below in each.operands]
        if all(
            each.buffers == each.outputs
            and sum(buffer.size for buffer in each.buffers) < below.size
            and there.issuperset(o.name for o in each.operands if isinstance(o, Buffer))
            for each in later
        ):
            rest = [each for each in ordered[at:] if each not in later]
            ordered[at:] = [*later, *rest]
    return ordered


def in_place(plan: Plan) -> dict[str, Buffer]:
    """The buffers that a step may write over, since no later one reads them, by what it writes."""
    last: dict[str, int] = {}
    for i, step in enumerate(plan.steps):
        last.update((each.name, i) for each in step.operands if isinstance(each, Buffer))
    last.update((output.buffer.name, len(plan.steps)) for output in plan.outputs)
    found: dict[str, Buffer] = {}
    for i, step in enumerate(plan.steps):
        below = step.adds_to
        if isinstance(below, Buffer) and last[below.name] == i and below.size == step.output.size:
            found[step.output.name] = below
    return found


def relax_module(plan: Plan) -> Any:
    """Return the plan as a Relax module: one destination-passing call a step, no constants.

    Ports are one variable, since nothing of them lies in the workspace. A step that writes ports
    only is a call whose result is not used; so is one that writes over what it reads, but as it
    would be with a result, or the planner would keep for good what else it reads.
    """
    over = in_place(plan)
    builder = relax.BlockBuilder()
    ports = relax.Var("image", relax.TensorType((1,), "uint8"))
    values: dict[str, Any] = {}
    with builder.function("main", [ports]):
        for step in plan.steps:
            operands = [
                ports if isinstance(operand, Port) else values[operand.name]
                for operand in step.operands
                if not isinstance(operand, Constant)
            ]
            sizes = [ALIGNMENT if b.name in over else _aligned(b.size) for b in step.buffers]
            types = [relax.TensorType((size,), "uint8") for size in sizes]
            if not types:
                called = relax.Call(
                    relax.ExternFunc(step.kernel.symbol), operands, ty_args=[relax.ObjectType()]
                )
                builder.emit(called, name_hint="nothing")
                continue
            single = types[0] if len(types) == 1 else types
            call = relax.call_dps_packed(step.kernel.symbol, operands, single)
            made = builder.emit(call, name_hint="value")
            for i, buffer in enumerate(step.buffers):
                whole = len(types) == 1
                result = made if whole else builder.emit(relax.TupleGetItem(made, i))
                below = over.get(buffer.name)
                values[buffer.name] = result if below is None else values[below.name]
        given = [values[output.buffer.name] for output in plan.outputs]
        builder.emit_func_output(given[0] if len(given) == 1 else relax.Tuple(given))
    return builder.get()


def plan_workspace(plan: Plan) -> Any:
    """Give every buffer its place, with Relax's static memory planning.

    Sets `plan.offsets` and `plan.workspace`.

    Returns:
        The planned Relax module, for `--dump-ir`.
    """
    module = relax_module(plan)
    module = relax.transform.CallTIRRewrite()(module)
    module = relax.transform.StaticPlanBlockMemory()(module)
    storages: dict[Any, int] = {}
    order: list[int] = []
    end = 0
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            operator = getattr(getattr(value, "op", None), "name", "")
            if operator == "relax.memory.alloc_storage":
                storages[binding.var] = end
                end += _aligned(int(value.args[0].values[0]))
            elif operator == "relax.memory.alloc_tensor":
                order.append(storages[value.args[0]] + int(value.args[1].value))
            elif operator == "relax.builtin.alloc_tensor":
                order.append(end)
                end += _aligned(int(value.args[0].values[0]))
    buffers = [buffer.name for step in plan.steps for buffer in step.buffers]
    plan.offsets = dict(zip(buffers, order, strict=True))
    for name, below in in_place(plan).items():
        plan.offsets[name] = plan.offsets[below.name]
    plan.workspace = end
    return module


def describe(plan: Plan) -> str:
    """Return one line a step: number, kernel, operands, tasks, bytes and layout of what it writes.

    The tap comes last. An operand is the number of the step that wrote it, `type[size]` of a
    constant, or the name of a port; of the only input, `image`.
    """
    numbers = {buffer.name: str(i) for i, step in enumerate(plan.steps) for buffer in step.buffers}

    def shown(operand: Operand) -> str:
        if isinstance(operand, Port):
            return "image" if plan.inputs == (operand,) else operand.name
        if isinstance(operand, Buffer):
            return numbers[operand.name]
        return f"{operand.data.dtype}[{operand.data.size}]"

    lines = []
    for i, step in enumerate(plan.steps):
        size = sum(buffer.size for buffer in step.buffers)
        tasks = f"{step.kernel.tasks:5d}" if step.over is None else "    n"
        held = [o.name if isinstance(o, Port) else str(o.layout) for o in step.outputs]
        lines.append(
            f"{i:3d} {step.kernel.symbol:28s} {' '.join(map(shown, step.operands)):60s} "
            f"{tasks} tasks {size:8d} B  {', '.join(held):24s} {step.tap}"
        )
    return "\n".join(lines) + "\n"
