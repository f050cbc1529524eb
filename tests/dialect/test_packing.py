from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitc.dialect import pack_bits, packed_width, unpack_bits
from vitc.errors import VitcError


@given(k=st.integers(1, 70), rows=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_packing_is_first_bit_lowest_with_zero_pads(k: int, rows: int, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2, (2, rows, k))
    packed = pack_bits(bits)
    assert packed.shape == (2, rows, packed_width(k))
    assert packed.dtype == np.uint8
    for index in range(packed_width(k) * 8):
        bit = packed[..., index // 8] >> (index % 8) & 1
        np.testing.assert_array_equal(bit, bits[..., index] if index < k else 0)
    np.testing.assert_array_equal(unpack_bits(packed, k), bits)


@pytest.mark.parametrize("bits", [[0, 2], [-1, 1], [0.5, 1]])
def test_values_that_are_no_bits_are_refused(bits) -> None:
    with pytest.raises(VitcError, match="must be 0 or 1"):
        pack_bits(bits)


def test_a_scalar_has_no_axis_to_pack() -> None:
    with pytest.raises(VitcError, match="at least one axis"):
        pack_bits(1)


@pytest.mark.parametrize(
    ("packed", "k"),
    [(np.zeros((2, 3), np.uint8), 8), (np.zeros((2, 3), np.int8), 24), (np.uint8(1), 8)],
)
def test_packed_arrays_of_another_width_or_type_are_refused(packed, k) -> None:
    with pytest.raises(VitcError, match="Packed bits of length"):
        unpack_bits(packed, k)


def test_booleans_pack_like_integers() -> None:
    np.testing.assert_array_equal(pack_bits([True, False, True]), [5])
