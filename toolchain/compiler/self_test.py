"""The check vector that an artefact carries: one image and the logits of ONNX Runtime for it.

Beside them stands the digest of every buffer that the artefact makes of the image, recorded where
all values were checked.

A value that lies within rounding of a threshold may become another bit in another order of
summation, and a bit moves the logits by more than rounding does. So the image is one whose logits
stand still when it is disturbed by as little as rounding; and where the artefact can be run when it
is made, one on which it agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vitc.onnx_files import run_with_taps, session

__all__ = [
    "EXPECTED",
    "SELF_TEST",
    "TAPS",
    "TOLERANCE",
    "agrees",
    "settle_self_test",
    "write_self_test",
]

SELF_TEST: Final = "self_test.npy"
EXPECTED: Final = "self_test.expected.npy"
TAPS: Final = "self_test.taps"
"""Lines of a SHA-256, two spaces and a tap, as `vitc-run --digests` writes them."""

TOLERANCE: Final = 1e-4
"""Largest difference of a logit that `vitc-run --self-test` accepts."""

_CANDIDATES: Final = 8
_DISTURBANCES: Final = 2
_DISTURBANCE: Final = 1e-6

Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def write_self_test(folder: Path, model: ir.Model) -> None:
    """Write the image that stands still best, and its logits.

    Args:
        folder: Of the artefact.
        model: The ONNX graph that was compiled, with inputs of a known image size.
    """
    opened = session(model, ["logits"], confined=True)
    shape = [int(str(size)) for size in opened.get_inputs()[0].shape[1:]]

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return run_with_taps(opened, images)["logits"].astype(np.float32)

    best = np.inf
    for image in _candidates(shape):
        expected = logits(image)
        moved = max(
            float(np.abs(logits(disturbed) - expected).max()) for disturbed in _disturbed(image)
        )
        if moved < best:
            best = moved
            _write(folder, image, expected)
        if moved < TOLERANCE / 4:
            return


def settle_self_test(folder: Path, run: Logits) -> NDArray[np.float32] | None:
    """Make sure that an artefact agrees on its image, and drop the test if no image will do.

    Args:
        folder: Of the artefact.
        run: Runs it.

    Returns:
        The image, float32 [1, 3, H, W], or None if it has no test.
    """
    image, expected = (np.load(folder / name, allow_pickle=False) for name in (SELF_TEST, EXPECTED))
    if agrees(run(image), expected):
        return np.asarray(image, np.float32)
    from vitc.onnx_files import load_onnx

    opened = session(load_onnx(folder / "model.onnx")[0], ["logits"], confined=True)
    for other in _candidates(list(image.shape[1:])):
        expected = run_with_taps(opened, other)["logits"].astype(np.float32)
        if agrees(run(other), expected):
            _write(folder, other, expected)
            return other
    for name in (SELF_TEST, EXPECTED):
        (folder / name).unlink()
    return None


def agrees(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Whether logits are what the test accepts."""
    near = bool(np.abs(found - expected).max() <= TOLERANCE)
    return near and bool((found.argmax(axis=1) == expected.argmax(axis=1)).all())


def _candidates(shape: list[int]) -> Iterator[NDArray[np.float32]]:
    for seed in range(_CANDIDATES):
        yield np.random.default_rng(seed).standard_normal((1, *shape), dtype=np.float32)


def _disturbed(image: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for seed in range(_DISTURBANCES):
        noise = np.random.default_rng(100 + seed).standard_normal(image.shape, dtype=np.float32)
        yield image + np.float32(_DISTURBANCE) * noise


def _write(folder: Path, image: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.save(folder / SELF_TEST, image)
    np.save(folder / EXPECTED, expected)
