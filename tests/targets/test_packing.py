from __future__ import annotations

import numpy as np
import pytest

from vitc.targets.packing import Axis, from_lanes, from_rows, to_lanes, to_rows


@pytest.mark.parametrize("axis", [Axis(197), Axis(64, 3), Axis(20, 2), Axis(48, 4), Axis(1)])
@pytest.mark.parametrize(("lanes", "element_bits"), [(16, 32), (32, 8), (16, 8)])
def test_packing_and_unpacking_are_inverse(axis, lanes, element_bits):
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2, (17, axis.length), dtype=np.uint8)
    assert np.array_equal(from_rows(to_rows(bits, axis).reshape(-1), 17, axis), bits)
    packed = to_lanes(bits, axis, lanes, element_bits)
    assert np.array_equal(from_lanes(packed, 17, axis, lanes, element_bits), bits)


def test_rows_are_least_significant_bit_first_and_padded_with_zeros():
    bits = np.array([[1, 0, 0, 0, 0, 0, 0, 0, 0, 1]], np.uint8)
    assert to_rows(bits, Axis(10)).tolist() == [[1, 2, 0, 0]]


def test_every_group_is_padded_by_itself():
    bits = np.ones((1, 40), np.uint8)
    assert to_rows(bits, Axis(20, 2)).tolist() == [[255, 255, 15, 0, 255, 255, 15, 0]]


def test_lanes_put_the_same_element_of_neighbouring_rows_side_by_side():
    bits = np.zeros((16, 64), np.uint8)
    bits[3, 32] = 1
    words = to_lanes(bits, Axis(64), 16, 32).view(np.uint32)
    assert words.nonzero()[0].tolist() == [16 + 3]
    assert words[19] == 1
