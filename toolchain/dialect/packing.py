"""Bits to bytes and back: uint8 {0, 1} against uint8 with eight bits, first bit lowest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError

__all__ = ["pack_bits", "packed_width", "unpack_bits"]


def packed_width(k: int) -> int:
    """Return P(k) = ceil(k / 8), the bytes that `k` bits take."""
    return -(-k // 8)


def pack_bits(bits: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Pack bits along the last axis, first bit lowest; pad bits are 0.

    Args:
        bits: [..., K], values 0 and 1 of any integer or boolean type.

    Returns:
        uint8 [..., P(K)].

    Raises:
        VitcError: A value is neither 0 nor 1, or there is no axis to pack.
    """
    array = np.asarray(bits)
    if array.ndim == 0:
        raise VitcError(
            "Bits to pack need at least one axis, a scalar was given.",
            "Pass an array [..., K] of zeros and ones.",
        )
    if array.size and not np.isin(array, (0, 1)).all():
        raise VitcError(
            "Bits to pack must be 0 or 1, other values were found.",
            "Binarize first: bit = value >= 0.",
        )
    return np.packbits(array.astype(np.uint8), axis=-1, bitorder="little")


def unpack_bits(packed: npt.ArrayLike, k: int) -> npt.NDArray[np.uint8]:
    """Unpack the first `k` bits of the last axis.

    Args:
        packed: uint8 [..., P(k)].
        k: Number of bits, without the padding.

    Returns:
        uint8 {0, 1} [..., k].

    Raises:
        VitcError: The type is not uint8 or the width is not P(k).
    """
    array = np.asarray(packed)
    if array.dtype != np.uint8 or array.ndim == 0 or array.shape[-1] != packed_width(k):
        raise VitcError(
            f"Packed bits of length {k} are uint8 [..., {packed_width(k)}], "
            f"{array.dtype} {list(array.shape)} was found.",
            "Pass the length that the bits were packed with.",
        )
    return np.unpackbits(array, axis=-1, count=k, bitorder="little")
