"""The dialect in numpy, computed on the packed bytes: what every other implementation must equal.

Nothing here shares a formula with the function bodies: contractions are XOR, AND and popcount.
Arrays are named and shaped as in `vitc.dialect.OPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vitc.dialect.ops import OPS
from vitc.dialect.packing import pack_bits, unpack_bits
from vitc.errors import VitcError

__all__ = ["evaluate"]

Array = npt.NDArray[Any]


def _popcount(packed: Array) -> Array:
    counts: Array = np.bitwise_count(packed).sum(axis=-1, dtype=np.int32)
    return counts


def _packed(bits: Array, *, k: int) -> Array:
    if bits.shape[-1] != k:
        raise VitcError(
            f"PackBits with k={k} takes bits [..,{k}], {list(bits.shape)} was found.",
            "Set k to the length of the packed axis.",
        )
    return pack_bits(bits)


def _unpacked(packed: Array, *, k: int) -> Array:
    return unpack_bits(packed, k)


def _binarize(x: Array, threshold: Array, flip: Array) -> Array:
    return ((x >= threshold) ^ flip).astype(np.uint8)


def _sign_product(left: Array, right: Array, *, k: int) -> Array:
    rows, columns = left[..., :, None, :], right[..., None, :, :]
    return (np.int32(k) - 2 * _popcount(rows ^ columns)).astype(np.int32)


def _byte_linear(x: Array, weight: Array) -> Array:
    whole = np.zeros(weight.shape[1:], np.int64)
    for digits in weight:
        whole = 128 * whole + digits
    return np.asarray((x.astype(np.int64) @ whole.T).astype(np.int32))


def _max_sim(query: Array, documents: Array, *, k: int) -> Array:
    total = np.zeros((len(documents), *query.shape[:-2]), np.int32)
    for place in np.ndindex(query.shape[:-1]):
        nearest = _popcount(documents ^ query[place]).min(axis=-1)
        total[:, *place[:-1]] += np.int32(k) - 2 * nearest
    return total


def _of_rows(groups: Array, width: int) -> Array:
    return np.repeat(groups, width // groups.shape[1], axis=1)


def _linear_threshold(
    x: Array, weight: Array, scale: Array, offset: Array, upper: Array, lower: Array, *, k: int
) -> Array:
    scaled = _sign_product(x, weight, k=k).astype(np.float32) * scale
    above = scaled >= offset + _of_rows(upper, len(offset))
    below = scaled <= offset + _of_rows(lower, len(offset))
    return (above | below).astype(np.uint8)


def _linear_residual(
    x: Array,
    weight: Array,
    scale: Array,
    bias: Array,
    gain: Array,
    residual: Array,
    *,
    k: int,
    transposed: int,
) -> Array:
    product = gain * (scale * _sign_product(x, weight, k=k).astype(np.float32) + bias)
    return np.asarray(residual + (np.swapaxes(product, -1, -2) if transposed else product))


def _softmax_mask(p: Array, *, ratio: float) -> Array:
    mask: Array = p >= p.dtype.type(ratio) * p.max(axis=-1, keepdims=True)
    return mask.astype(np.uint8)


def _row_best_mask(scores: Array, *, slack: int) -> Array:
    mask: Array = scores >= scores.max(axis=-1, keepdims=True) - 2 * slack
    return mask.astype(np.uint8)


def _biased_best_mask(scores: Array, bias: Array, excluded: Array, *, cut: float) -> Array:
    biased = np.where(excluded, np.float32(-np.inf), scores.astype(np.float32) + bias)
    least = biased.max(axis=-1, keepdims=True) - np.float32(cut)
    return np.asarray(biased >= least).astype(np.uint8)


def _elastic_mask(scores: Array, terms: Array, least: Array) -> Array:
    h = (scores.max(axis=-1, keepdims=True) - scores) // 2
    return np.asarray(least[h] > terms[h].sum(axis=-1, keepdims=True)).astype(np.uint8)


def _mask_product(mask: Array, value: Array, *, k: int) -> Array:
    mask = pack_bits(unpack_bits(mask, k))
    both = _popcount(mask[..., :, None, :] & value[..., None, :, :])
    return (2 * both - _popcount(mask)[..., None]).astype(np.int32)


def _integer_threshold(x: Array, threshold: Array) -> Array:
    return (x >= threshold).astype(np.uint8)


def _sum_threshold(x: Array, first: Array, second: Array) -> Array:
    return np.asarray(x.astype(np.float32) >= first + second).astype(np.uint8)


_IMPLEMENTATIONS: dict[str, Callable[..., Array]] = {
    "PackBits": _packed,
    "UnpackBits": _unpacked,
    "Binarize": _binarize,
    "BinaryLinear": _sign_product,
    "ByteLinear": _byte_linear,
    "BinaryLinearThreshold": _linear_threshold,
    "BinaryLinearResidual": _linear_residual,
    "BinaryScores": _sign_product,
    "MaxSimHamming": _max_sim,
    "SoftmaxMask": _softmax_mask,
    "RowBestMask": _row_best_mask,
    "BiasedBestMask": _biased_best_mask,
    "ElasticMask": _elastic_mask,
    "MaskSignMatMul": _mask_product,
    "IntegerThreshold": _integer_threshold,
    "SumThreshold": _sum_threshold,
}


def evaluate(name: str, inputs: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    """Compute one operator of the dialect.

    Args:
        name: Operator, a key of `vitc.dialect.OPS`.
        inputs: Arrays in the operator's order, with its types and shapes.
        attributes: Attribute values by name; all that the operator declares.

    Returns:
        The operator's one output.

    Raises:
        VitcError: The operator is unknown.
    """
    if name not in OPS:
        raise VitcError(f"Unknown operator {name}.", f"Operators are {', '.join(OPS)}.")
    return _IMPLEMENTATIONS[name](*inputs, **attributes)
