"""Winograd's convolution is within the bound of its layer, and a fault is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitc.verify import bounds
from vitc.verify.bounds import RoundingErrors

B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
SIDE, OUTPUTS = 9, 24


def turned(matrix: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Both sides of tiles [4 or 3, 4 or 3, ..] by a matrix, each addition rounded to fp32."""
    for _ in range(2):
        rows = []
        for factors in matrix:
            total = np.zeros_like(tiles[0])
            for factor, row in zip(factors, tiles, strict=True):
                total = (total + np.float32(factor) * row).astype(np.float32)
            rows.append(total)
        tiles = np.stack(rows).swapaxes(0, 1)
    return tiles


def filtered(x: np.ndarray, weight: np.ndarray, pad: int) -> np.ndarray:
    """F(2 x 2, 3 x 3) of a picture [channels, height, width], channel by channel in fp32."""
    lines, pixels = (n + 2 * pad - 2 for n in x.shape[1:])
    around = [(0, 0), (pad, pad + lines % 2), (pad, pad + pixels % 2)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, around), (4, 4), axis=(1, 2))
    v = turned(B, windows[:, ::2, ::2].transpose(3, 4, 0, 1, 2))
    u = turned(G, weight.transpose(2, 3, 1, 0))
    sums = np.zeros((4, 4, *v.shape[3:], len(weight)), np.float32)
    for channel in range(len(x)):
        sums = sums + v[:, :, channel, :, :, None] * u[:, :, channel, None, None]
    tiles = turned(A, sums)
    whole = tiles.transpose(4, 2, 0, 3, 1).reshape(len(weight), tiles.shape[2] * 2, -1)
    return whole[:, :lines, :pixels]


def given(kind: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((channels, SIDE, SIDE - 1)).astype(np.float32)
    weight = rng.standard_normal((OUTPUTS, channels, 3, 3)).astype(np.float32)
    if kind == "one sign":
        x, weight = np.abs(x), np.abs(weight)
    elif kind == "large range":
        x *= np.exp(rng.standard_normal(x.shape) * 6).astype(np.float32)
        weight *= np.exp(rng.standard_normal(weight.shape) * 3).astype(np.float32)
    elif kind == "zero taps":
        # A large pixel that has no weight meets the weights of its neighbours.
        x[:, SIDE // 2] *= 1e6
        weight[:, :, 1] = 0
    return x, weight


def bound_of(x: np.ndarray, weight: np.ndarray, pad: int) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad(), RoundingErrors() as errors:
        exact = F.conv2d(
            torch.from_numpy(x)[None].double(), torch.from_numpy(weight).double(), padding=pad
        )
        bound = errors.bound(exact)
    assert bound is not None
    return exact[0].numpy(), bound[0].numpy()


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("channels", [16, 96, 320])
@pytest.mark.parametrize("kind", ["random", "one sign", "large range", "zero taps"])
def test_winograd_stays_within_the_bound_and_not_far_below(kind, channels, pad):
    x, weight = given(kind, channels)
    exact, bound = bound_of(x, weight, pad)
    ratio = np.abs(filtered(x, weight, pad) - exact) / bound
    assert ratio.max() < 0.8
    assert ratio.max() > 0.002


@pytest.mark.parametrize("kind", ["random", "one sign"])
def test_of_ordinary_numbers_the_bound_is_about_that_of_the_sum(kind, monkeypatch):
    x, weight = given(kind, 96)
    _, wide = bound_of(x, weight, 1)
    monkeypatch.setattr(bounds, "may_be_filtered", lambda *_: False)
    _, plain = bound_of(x, weight, 1)
    assert (wide >= plain).all()
    assert np.median(wide / plain) < 1.1


def test_the_bound_of_the_sum_alone_is_too_narrow_for_a_tap_without_weight(monkeypatch):
    x, weight = given("zero taps", 96)
    monkeypatch.setattr(bounds, "may_be_filtered", lambda *_: False)
    exact, bound = bound_of(x, weight, 1)
    assert (np.abs(filtered(x, weight, 1) - exact) > bound).any()


@pytest.mark.parametrize("change", [
    {"stride": 2}, {"dilation": 2}, {"groups": 2}, {"channels": 8}, {"window": 5},
])  # fmt: skip
def test_what_is_never_filtered_has_the_bound_of_a_sum(change, monkeypatch):
    options = {"channels": 32, "window": 3, **change}
    channels, window = options.pop("channels"), options.pop("window")

    def found() -> np.ndarray:
        rng = np.random.default_rng(3)
        x = torch.from_numpy(rng.standard_normal((1, channels, 9, 9)))
        weight = rng.standard_normal((32, channels // options.get("groups", 1), window, window))
        with torch.no_grad(), RoundingErrors() as errors:
            bound = errors.bound(F.conv2d(x, torch.from_numpy(weight), padding=1, **options))
        assert bound is not None
        return bound.numpy()

    wanted = found()
    monkeypatch.setattr(bounds, "may_be_filtered", lambda *_: False)
    assert np.array_equal(found(), wanted)
