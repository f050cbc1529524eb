from __future__ import annotations

import numpy as np
import pytest

from vitc.errors import VitcError
from vitc.verify.inputs import probe_images, probe_inputs


def test_the_same_seed_gives_the_same_images() -> None:
    np.testing.assert_array_equal(probe_images(4, 16, seed=5), probe_images(4, 16, seed=5))
    assert (probe_images(4, 16, seed=5) != probe_images(4, 16, seed=6)).any()


def test_every_fourth_image_is_structured_and_the_others_are_not() -> None:
    images = probe_images(9, 16)

    values = [len(np.unique(image)) for image in images]
    assert images.dtype == np.float32
    assert [count <= 16 for count in values] == [i % 4 == 1 for i in range(9)]


@pytest.mark.parametrize("shape", [(3, 4, 6), (5, 7), (6,)])
def test_inputs_of_any_shape_are_random_or_structured(shape: tuple[int, ...]) -> None:
    inputs = probe_inputs(17, shape, seed=2)

    distinct = [len(np.unique(each)) for each in inputs]
    assert inputs.shape == (17, *shape)
    assert [count <= max(shape) for count in distinct[1::4]] == [True] * 4
    assert all(count == np.prod(shape) for count in distinct[::4])


def test_no_images_is_an_error() -> None:
    with pytest.raises(VitcError, match="at least one image"):
        probe_images(0, 16)
