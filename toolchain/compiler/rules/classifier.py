"""Classifier: an affine map of one row of floats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form, floats_of
from vitc.compiler.graph import Op, Use
from vitc.compiler.order import Order
from vitc.compiler.plan import Buffer, Cost
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.head import HEAD_TILE, head_kernel
from vitc.targets.layouts import Floats, Plain
from vitc.targets.packing import round_up

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Classifier"]


class Classifier(Rule):
    """`weight @ x[row] + bias`; inputs are x, weight float64 [classes, C], bias float64."""

    def form(self, op: Op, isa: Isa) -> Form:
        """Plain values, as many as fill whole tiles."""
        del isa
        (classes,) = op.output.shape
        return Form(Order.whole(op.output.shape), Plain(classes, round_up(classes, HEAD_TILE)))

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """All rows, of which it reads one."""
        del form, isa
        return [(op.use(0), floats_of(op.use(0).value))]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One product of a row of floats with tiles of classes."""
        use, weight, bias = op.use(0), op.constant(1).astype(np.float32), op.constant(2)
        classes, width = weight.shape
        padded = np.zeros((round_up(classes, HEAD_TILE), width), np.float32)
        padded[:classes] = weight
        added = np.zeros(len(padded), np.float32)
        added[:classes] = bias
        asked = floats_of(use.value)
        assert isinstance(asked.layout, Floats)  # noqa: S101 - floats_of says so
        row, stride = op.number("row"), asked.layout.stride
        kernel = emission.kernel(
            "head",
            (row, width, stride, classes),
            lambda symbol, _: head_kernel(
                symbol, token=row, width=width, stride=stride, classes=classes
            ),
            tuned=False,
        )
        tiled = padded.reshape(-1, HEAD_TILE, width).transpose(0, 2, 1)
        operands = [
            emission.read(op, use, asked),
            emission.constant(tiled),
            emission.constant(added),
        ]
        return emission.step(op, form, kernel, operands, Cost(fp=classes * width))
