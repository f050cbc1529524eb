"""Embedding: rows of a constant table, picked by an input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form
from vitc.compiler.graph import Op, Use, refused
from vitc.compiler.plan import Buffer, Cost, Operand
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.pick_rows import pick_rows_kernel
from vitc.targets.layouts import Floats

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["Embedding"]


class Embedding(Rule):
    """Inputs are the table [V, C], and an input of the network that is an index below V."""

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Nothing: the index is as it comes."""
        del op, form, isa
        return []

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One copy a row."""
        table, index = op.constant(0).astype(np.float32), op.use(1)
        if index.value.kind != "index":
            raise refused(op, f"{index.value.name}, which picks its rows, is no index")
        layout = form.layout
        assert isinstance(layout, Floats)  # noqa: S101 - it offers no other
        rows, columns, ordered = layout.rows, layout.columns, index.elements is not None
        padded = np.zeros((len(table), layout.stride), np.float32)
        padded[:, :columns] = table
        operands: list[Operand] = [emission.constant(padded), emission.port(index.value)]
        if index.elements is not None:
            operands.append(emission.constant(index.elements.reshape(-1).astype(np.int32)))
        kernel = emission.kernel(
            "pick_rows",
            (rows, layout.stride, ordered),
            lambda symbol, _: pick_rows_kernel(
                symbol, rows=rows, stride=layout.stride, ordered=ordered
            ),
            tuned=False,
        )
        return emission.step(op, form, kernel, operands, Cost())
