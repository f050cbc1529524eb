"""Batch norm, shift and sign are a threshold on the input.

    [ g (x - mean) / sqrt(var + eps) + b + m >= 0 ]  ->  Binarize(x, threshold, flip)

per index of axis 1 (tokens of [B, N, C], channels of the transposed stream). The left side is
monotone in x, so for g > 0 the bit is x >= T and for g < 0 it is NOT (x >= T), where T is the
smallest fp32 value on the far side of the sign change. T is found by bisection over the ordered
fp32 values, evaluating the left side in float64: the bit is the float64 reference's for every fp32
x. For g = 0 the bit is constant: T = -inf, flipped if the constant is negative. A T that is a
denormal is then moved to where no x but a denormal can tell (`vitc.passes.normal_range`).

A norm whose floats are read as well stays for those, if they are neither tapped nor an output.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vitc.dialect import DOMAIN
from vitc.passes.constants import add_constant, constant, exact_constant
from vitc.passes.normal_range import normal_threshold
from vitc.passes.rewrite import NoMatch, Rewrite, dimensions, producer, replace, with_constant
from vitc.passes.sign import plain_sign

__all__ = ["BatchNormThreshold", "sign_change"]

Float64 = npt.NDArray[np.float64]

_LARGEST = 0x7F7F_FFFF


def _ordered_float(rank: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Map 0, 1, 2.. to zero and the positive floats in order, -1, -2.. to the negative ones."""
    magnitude = np.where(rank >= 0, rank, -rank).astype(np.uint32)
    sign = np.where(rank >= 0, 0, 0x8000_0000).astype(np.uint32)
    return (magnitude | sign).view(np.float32)


def sign_change(
    gain: Float64, mean: Float64, deviation: Float64, shift: Float64
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Find the threshold of `gain (x - mean) / deviation + shift >= 0`.

    Args:
        gain: [N].
        mean: [N].
        deviation: [N], positive.
        shift: [N].

    Returns:
        threshold fp32 [N] and flip [N]: the sign bit of every finite fp32 x is
        (x >= threshold) XOR flip.
    """
    flip = np.where(gain == 0, shift < 0, gain < 0)

    def reached(x: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        value: Float64 = (x.astype(np.float64) - mean) / deviation * gain + shift
        return np.not_equal(value >= 0, flip)

    low = np.full(gain.shape, -_LARGEST - 1, dtype=np.int64)
    high = np.full(gain.shape, _LARGEST + 1, dtype=np.int64)
    while (high - low > 1).any():
        # Where the search has ended, the middle is `low`, which may stand for -inf.
        middle = np.maximum((low + high) // 2, -_LARGEST)
        far = reached(_ordered_float(middle))
        low, high = np.where(far, low, middle), np.where(far, middle, high)
    threshold = _ordered_float(high)
    threshold[gain == 0] = -np.inf
    return threshold, flip


class BatchNormThreshold(Rewrite):
    """BatchNormalization, Add, Binarize at 0 -> Binarize(threshold, flip) per index of axis 1."""

    name = "batch_norm_threshold"
    after = ("merge_shifts",)
    anchors = frozenset({(DOMAIN, "Binarize")})

    def rewrite(self, node: ir.Node, graph: ir.Graph) -> None:
        """Replace the sign of a normalised value by a threshold on the value before the norm."""
        value = plain_sign(node)
        moved = value.producer()
        shift = np.zeros(1)
        sources = [node]
        if moved is not None and moved.op_type == "Add":
            producer(value, "Add")
            value, added = with_constant(moved)
            shift = np.asarray(exact_constant(added))
            sources = [moved, node]
        norm = producer(value, "BatchNormalization", uses=max(1, len(value.uses())))
        x = norm.inputs[0]
        if x is None or norm.attributes.get_int("training_mode"):
            raise NoMatch("the batch norm is in training mode")
        rank = len(dimensions(value))
        gain, bias, mean, variance = (_parameter(v) for v in norm.inputs[1:])
        shift = _along_axis_1(shift, rank, gain.size)
        # The attribute is fp32; the constant meant is its shortest decimal.
        eps = float(str(np.float32(norm.attributes.get_float("epsilon", 1e-5))))
        if not ((variance + eps) > 0).all():
            raise NoMatch("variance + eps is not positive")
        threshold, flip = sign_change(gain, mean, np.sqrt(variance + eps), bias + shift)
        shape = (-1, *(1,) * (rank - 2))
        constants = (
            add_constant(graph, normal_threshold(threshold).reshape(shape), "threshold"),
            add_constant(graph, flip.reshape(shape), "flip"),
        )
        binarize = ir.node("Binarize", [x, *constants], domain=DOMAIN)
        replace(node.outputs[0], [binarize], [norm, *sources])


def _parameter(value: ir.Value | None) -> Float64:
    array = constant(value)
    if array is None or not np.isfinite(array).all():
        raise NoMatch("a parameter of the batch norm is not a finite constant")
    return array.astype(np.float64)


def _along_axis_1(shift: Float64, rank: int, size: int) -> Float64:
    if not np.isfinite(shift).all():
        raise NoMatch("the shift is not finite")
    if shift.size == 1:
        return np.full(size, shift.reshape(()))
    padded = (1,) * (rank - shift.ndim) + shift.shape
    if len(padded) != rank or padded != (1, size, *(1,) * (rank - 2)):
        raise NoMatch(f"a shift of shape {shift.shape} is not along axis 1")
    return shift.reshape(size)
