"""LayerNormalization over channels, whose rows are read where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form, floats_of
from vitc.compiler.graph import EPSILON, Op, Use, refused
from vitc.compiler.plan import Buffer, Cost
from vitc.compiler.rules.rule import Rule
from vitc.compiler.runs import Runs, places_of
from vitc.targets.isa import Isa
from vitc.targets.kernels.layer_norm import LayerNormShape, layer_norm_kernel
from vitc.targets.layouts import Floats

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["LayerNorm"]

_SHORTEST = 4
"""Floats of a run, below which it is cheaper to copy them into their order first."""


class LayerNorm(Rule):
    """`(x - mean) / sqrt(variance + epsilon) * gain + bias`, over the last axis.

    Inputs are x, gain and, if there is one, bias.
    """

    def unread(self, op: Op) -> list[int]:
        """Floats that lie too far apart."""
        use = op.use(0)
        if use.elements is None or use.whole:
            return []
        return [] if _runs(use, floats_of(use.value)).length >= _SHORTEST else [0]

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Floats, in any order: it is read through."""
        del form, isa
        use = op.use(0)
        if use.value.kind != "float":
            raise refused(op, f"it reads {use.value.kind}, and is computed on floats only")
        if op.attributes.get("axis", -1) not in (-1, len(use.shape)):
            raise refused(op, "it normalises over more than the last axis")
        return [(use, floats_of(use.value))]

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One step."""
        x, read = emission.floats(op, op.use(0))
        runs = _runs(op.use(0), read)
        assert isinstance(form.layout, Floats)  # noqa: S101 - it offers no other
        channels, stride = form.layout.columns, form.layout.stride
        distance, epsilon = runs.distance, float(op.attributes.get("epsilon", EPSILON))
        rows, count = runs.places.shape
        shape = LayerNormShape(rows, count, runs.length, distance, stride, epsilon)
        kernel = emission.kernel(
            "layer_norm",
            (shape,),
            lambda symbol, isa: layer_norm_kernel(symbol, isa, shape),
            tuned=False,
        )
        given = len(op.inputs) > 2 and op.inputs[2] is not None
        vectors = [op.constant(1), op.constant(2) if given else np.zeros(1, np.float32)]
        tables = [] if distance is not None else [runs.places.astype(np.int32)]
        tables += [
            np.broadcast_to(vector.reshape(-1), (channels,)).astype(np.float32)
            for vector in vectors
        ]
        operands = [x, *(emission.constant(table) for table in tables)]
        return emission.step(op, form, kernel, operands, Cost())


def _runs(use: Use, read: Form) -> Runs:
    layout = read.layout
    assert isinstance(layout, Floats)  # noqa: S101 - no other form is asked for
    return Runs.of(places_of(use, layout.stride).reshape(-1, use.shape[-1]))
