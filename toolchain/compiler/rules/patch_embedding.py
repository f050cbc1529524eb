"""Patch embedding: a product of patches of the image, and rows in front of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitc.compiler.form import Form
from vitc.compiler.graph import Op, Use, refused
from vitc.compiler.plan import Buffer, Cost, Operand
from vitc.compiler.rules.rule import Rule
from vitc.targets.isa import Isa
from vitc.targets.kernels.patch_embedding import PatchShape, float_tile, patch_embedding_kernel
from vitc.targets.layouts import Floats

if TYPE_CHECKING:
    from vitc.compiler.emit import Emission

__all__ = ["PatchEmbedding"]

_STEM = "patch_embedding"


class PatchEmbedding(Rule):
    """Inputs are the image, weight [C, colours, side, side], and the result on zeros [rows, C]."""

    def asks(self, op: Op, form: Form, isa: Isa) -> list[tuple[Use, Form]]:
        """Nothing: the image is as it comes."""
        del op, form, isa
        return []

    def build(self, op: Op, form: Form, emission: Emission) -> Buffer:
        """One product; the patches are the last rows."""
        image, weight, start = op.use(0), op.constant(1).astype(np.float32), op.constant(2)
        colours, height, width = image.value.shape
        side = op.number("patch")
        if height % side or width % side:
            raise refused(op, f"patches of {side} pixels do not fill {height} x {width}")
        layout = form.layout
        assert isinstance(layout, Floats)  # noqa: S101 - it offers no other
        rows, channels, stride = layout.rows, layout.columns, layout.stride
        patches = height // side * (width // side)
        shape = PatchShape((height, width), side, colours, stride, rows - patches)
        tile = float_tile(emission.tiled(_STEM, (shape,)), stride)
        padded = np.zeros((stride, weight[0].size), np.float32)
        padded[:channels] = weight.reshape(channels, -1)
        beginning = np.zeros((rows, stride), np.float32)
        beginning[:, :channels] = start
        kernel = emission.kernel(
            _STEM, (shape,), lambda symbol, isa: patch_embedding_kernel(symbol, isa, shape)
        )
        tiled = padded.reshape(stride // tile, tile, -1).transpose(0, 2, 1)
        operands: list[Operand] = [
            emission.port(image.value),
            emission.constant(tiled),
            emission.constant(beginning),
        ]
        return emission.step(op, form, kernel, operands, Cost(fp=patches * weight.size))
