"""Binary layers with thresholds that read the same bits: one product where that is faster.

Queries, keys and values are three products of one input. Each alone leaves a quarter of the vectors
of bit slices empty, or is counted; side by side they fill them, by
vitc.targets.kernels.joint_threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.choose import Choice
from vitc.compiler.form import Form
from vitc.compiler.graph import Op, Value
from vitc.compiler.plan import Cost, Operand
from vitc.compiler.rules.linear import Product
from vitc.compiler.rules.linear_threshold import Threshold
from vitc.targets.isa import Isa
from vitc.targets.kernels.binary_linear import LinearShape
from vitc.targets.kernels.joint_threshold import JointPart, joint_threshold_kernel
from vitc.targets.kernels.slices import joint_lanes

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Joint", "joined"]


@dataclass(frozen=True)
class Joint:
    """Products of the same bits.

    Attributes:
        thresholds: The products, in order.
        sliced: Lanes that go by bit slices.
    """

    thresholds: tuple[Threshold, ...]
    sliced: int

    def build(self, emission: Emission) -> None:
        """Append one step, and say which buffers hold the values."""
        first, isa = self.thresholds[0], emission.isa
        # Slices are of the target's own vectors, whatever blocks the parts are written in.
        product = Product(first.op, first.read, first.outputs, isa)
        parts = tuple(map(_part, self.thresholds))
        lanes = sum(part.outputs.padded for part in parts)
        alone = product.shape
        shape = LinearShape(alone.rows, lanes, alone.k, alone.elements, product.depth)
        windows, period = first.form.order.windows, product.period
        kernel = emission.kernel(
            "joint_threshold",
            (shape, parts, self.sliced, windows, period),
            lambda symbol, isa: joint_threshold_kernel(
                symbol, isa, shape, parts, self.sliced, windows=windows, period=period
            ),
            tuned=False,
        )
        bits = emission.read(first.op, first.op.use(0), first.read)
        weights = np.concatenate([each.product.weights for each in self.thresholds])
        operands: list[Operand] = [bits, product.slices(weights[: self.sliced], emission)]
        if self.sliced < lanes:
            counted = self.thresholds[-1].product.counted(weights[self.sliced :], emission)
            operands += [bits, counted]
        for each in self.thresholds:
            operands += each.constants(emission)
        binary = sum(each.product.cost.binary for each in self.thresholds)
        emission.step_of_several(
            [(each.op, each.form) for each in self.thresholds],
            kernel,
            operands,
            Cost(binary=binary, unit="popcount"),
        )


def _part(threshold: Threshold) -> JointPart:
    return JointPart(
        threshold.outputs,
        threshold.output,
        threshold.product.isa.lanes,
        threshold.two_sided,
        threshold.groups > 1,
    )


def joined(choices: Mapping[Op, Choice], isa: Isa) -> dict[Op, Joint]:
    """The products that are one, by each of their operators."""
    groups: dict[tuple[Value, Form, int], list[Threshold]] = {}
    for op, choice in choices.items():
        if op.is_a("BinaryLinearThreshold"):
            threshold = Threshold(op, choice.form, isa)
            product = threshold.product
            if not product.transposed and not product.on_tiles:
                same = (op.use(0).value, threshold.read, choice.form.order.windows)
                groups.setdefault(same, []).append(threshold)
    found: dict[Op, Joint] = {}
    for thresholds in groups.values():
        product = thresholds[0].product
        sizes = [(each.outputs.padded, each.product.by_rows) for each in thresholds]
        sliced = joint_lanes(isa, product.positions, sizes, product.axis.length)
        if sliced:
            joint = Joint(tuple(thresholds), sliced)
            found.update((each.op, joint) for each in thresholds)
    return found
