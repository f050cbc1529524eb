"""A model before code generation: kernels in order, their operands, a planned workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tvm import relax

from vitc.targets.kernels.emitter import Kernel
from vitc.targets.layouts import Layout
from vitc.targets.layouts.views import View

__all__ = [
    "ALIGNMENT",
    "Buffer",
    "Constant",
    "Cost",
    "Image",
    "Operand",
    "Plan",
    "Step",
    "Unit",
    "describe",
    "plan_workspace",
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


@dataclass(frozen=True, eq=False)
class Constant:
    """Read-only data: weights in kernel layout, scales, thresholds."""

    data: npt.NDArray[np.generic]


@dataclass(frozen=True)
class Image:
    """The input image, fp32 [channels, height, width]."""


Operand = Buffer | Constant | Image
"""What a kernel reads."""


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
        kernel: The kernel.
        operands: What its pointers are, in order, without the output.
        output: What it writes.
        layer: Layer, such as `blocks.0.attn.query`.
        tap: Name of the value it writes, as in the ONNX file.
        cost: Its multiply-accumulates.
    """

    kernel: Kernel
    operands: tuple[Operand, ...]
    output: Buffer
    layer: str
    tap: str
    cost: Cost


@dataclass
class Plan:
    """Steps in order, and where their buffers lie.

    Attributes:
        steps: Kernel calls.
        logits: Buffer of the result.
        identities: What each kernel with register tiles does, by its symbol; the same words in
            every model.
        offsets: Offset of each buffer in the workspace, bytes.
        workspace: Size of the workspace, bytes.
    """

    steps: list[Step]
    logits: Buffer
    identities: dict[str, str] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    workspace: int = 0

    @property
    def kernels(self) -> list[Kernel]:
        """Distinct kernels, in order of first use."""
        return list({step.kernel.symbol: step.kernel for step in self.steps}.values())


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def relax_module(plan: Plan) -> Any:
    """Return the plan as a Relax module: one destination-passing call a step, no constants."""
    builder = relax.BlockBuilder()
    image = relax.Var("image", relax.TensorType((1,), "uint8"))
    values: dict[str, Any] = {}
    with builder.function("main", [image]):
        for step in plan.steps:
            operands = [
                image if isinstance(operand, Image) else values[operand.name]
                for operand in step.operands
                if not isinstance(operand, Constant)
            ]
            call = relax.call_dps_packed(
                step.kernel.symbol,
                operands,
                relax.TensorType((_aligned(step.output.size),), "uint8"),
            )
            values[step.output.name] = builder.emit(call, name_hint="value")
        builder.emit_func_output(values[plan.logits.name])
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
    outputs = [step.output.name for step in plan.steps]
    plan.offsets = dict(zip(outputs, order, strict=True))
    plan.workspace = end
    return module


def describe(plan: Plan) -> str:
    """Return one line a step: number, kernel, operands, tasks, bytes of its output, and its tap.

    An operand is the number of the step that wrote it, `image`, or `type[size]` of a constant.
    """
    numbers = {step.output.name: str(i) for i, step in enumerate(plan.steps)}

    def shown(operand: Operand) -> str:
        if isinstance(operand, Image):
            return "image"
        if isinstance(operand, Buffer):
            return numbers[operand.name]
        return f"{operand.data.dtype}[{operand.data.size}]"

    lines = [
        f"{i:3d} {step.kernel.symbol:28s} {' '.join(map(shown, step.operands)):60s} "
        f"{step.kernel.tasks:5d} tasks {step.output.size:8d} B  {step.output.layout!s:24s} "
        f"{step.tap}"
        for i, step in enumerate(plan.steps)
    ]
    return "\n".join(lines) + "\n"
