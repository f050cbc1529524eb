"""Winograd's convolution of every shape = numpy in float64, on this machine's targets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.processors import HOST
from tests.properties import conftest as shared
from tests.properties import numbers
from vitc.targets.isa import ISAS
from vitc.targets.kernels.winograd import (
    WinogradShape,
    WinogradTiles,
    winograd_kernel,
    winograd_weights_kernel,
)
from vitc.targets.packing import round_up
from vitc.targets.table import TARGETS

targets = st.sampled_from(HOST).map(TARGETS.__getitem__)

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
FEWEST_CHANNELS = 16
"""What vectors of every instruction set divide."""


def convolved(picture: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Outputs [lines, pixels, outputs] of a picture with its padding, in float64."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, (3, 3), axis=(0, 1))
    return np.einsum("yxcij,ocij->yxo", windows.astype(np.float64), weight.astype(np.float64))


@shared.examples(8)
@given(
    numbers.rngs(),
    targets,
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 14),
    st.integers(1, 150),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
)
def test_winograd(call, rng, target, lines, pixels, sixteens, outputs, pad, relu):
    isa, channels = ISAS[target.isa], FEWEST_CHANNELS * sixteens
    height, width = lines + 2 - 2 * pad, pixels + 2 - 2 * pad
    if height < 1 or width < 1:
        pad, height, width = 0, lines + 2, pixels + 2
    stride = round_up(outputs, 32)
    shape = WinogradShape(lines, pixels, channels, outputs, stride, relu)
    tiles = WinogradTiles(isa, shape)
    # Pixels lie anywhere, and the padding nowhere.
    order = rng.permutation(height * width)
    x = rng.standard_normal((height * width, channels)).astype(np.float32)
    weight = rng.standard_normal((outputs, channels, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    numbered = np.full((lines + 4, pixels + 4), -1)
    numbered[pad : pad + height, pad : pad + width] = order.reshape(height, width)
    down, across = shape.tiles
    table = np.stack(
        [
            numbered[2 * y : 2 * y + 4, 2 * x_ : 2 * x_ + 4]
            for y in range(down)
            for x_ in range(across)
        ]
    )
    places = np.where(table < 0, -1, table * channels).astype(np.int32)

    padded = np.zeros((tiles.columns * tiles.width, channels, 9), np.float32)
    padded[:outputs] = weight.reshape(outputs, channels, 9)
    cut = padded.reshape(tiles.columns, tiles.width, channels, 9).transpose(0, 2, 3, 1)
    made = call(target, winograd_weights_kernel("w", tiles), [cut], tiles.size * 4)
    slabs = made.view(np.float32).reshape(-1, tiles.slab)[:, : tiles.part * tiles.width]
    transformed = slabs.reshape(
        tiles.columns, channels // tiles.part, 4, 4, tiles.part, tiles.width
    )
    exact = np.einsum("ia,ocab,jb->ocij", G, weight.astype(np.float64), G)
    own = transformed.transpose(0, 5, 1, 4, 2, 3).reshape(-1, channels, 4, 4)[:outputs]
    assert np.allclose(own, exact, rtol=0, atol=4 * 2.0**-24 * np.abs(weight).max())

    added = np.zeros(len(padded), np.float32)
    added[:outputs] = bias
    operands = [x, places, np.zeros(channels, np.float32), made.view(np.float32), added]
    size = lines * pixels * stride * 4
    out = call(target, winograd_kernel("k", tiles), operands, size).view(np.float32)
    out = out.reshape(lines, pixels, stride)
    picture = np.zeros((height + 2 * pad, width + 2 * pad, channels), np.float32)
    picture[pad : pad + height, pad : pad + width] = x[order].reshape(height, width, channels)
    wanted = convolved(picture, weight) + bias
    wanted = np.maximum(wanted, 0) if relu else wanted
    assert not out[..., outputs:].any()
    # 16 sums of products of numbers that are sums of 4 pixels, and of at most 9/4 of a weight.
    scale = convolved(np.abs(picture), np.abs(weight)).max() + np.abs(bias).max()
    assert np.abs(out[..., :outputs] - wanted).max() <= 6 * np.sqrt(channels + 8) * 2.0**-24 * scale
