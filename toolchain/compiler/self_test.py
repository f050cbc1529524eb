"""The check vector that each entry carries: inputs, and the outputs of ONNX Runtime for them.

Beside them stands the digest of every buffer that the artefact makes of them, recorded where all
values were checked.

A value that lies within rounding of a threshold may become another bit in another order of
summation, and a bit moves the logits by more than rounding does. So the image is one whose logits
stand still when it is disturbed by as little as rounding; and where the artefact can be run when it
is made, one on which it agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vitc.onnx_files import run_with_taps, session
from vitc.onnx_files.ports import packed_widths
from vitc.runtime.arrays import probe_inputs
from vitc.runtime.manifest import EntryFacts
from vitc.runtime.port import Port

if TYPE_CHECKING:
    from vitc.onnx_files.confined import ConfinedSession

__all__ = [
    "EXPECTED",
    "SELF_TEST",
    "TAPS",
    "TOLERANCE",
    "agrees",
    "prefix_of",
    "self_test_file",
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

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Run = Callable[[Arrays], Arrays]

_LOGITS_AXES: Final = 2
"""Of logits, with the axis of images."""


def write_self_test(
    folder: Path, model: ir.Model, entry: EntryFacts, prefix: str | None = None
) -> None:
    """Write the inputs that stand still best, and the outputs for them.

    Args:
        folder: Of the artefact.
        model: The ONNX graph that was compiled.
        entry: Its ports.
        prefix: Of the files, see `self_test_file`.
    """
    opened = session(model, [port.name for port in entry.outputs], confined=True)
    best = np.inf
    for given in _candidates(entry, model):
        expected = _run(opened, entry, given)
        moved = max(
            float(np.abs(value - expected[name]).max())
            for disturbed in _disturbed(given)
            for name, value in _run(opened, entry, disturbed).items()
        )
        if moved < best:
            best = moved
            _write(folder, entry, prefix, given, expected)
        if moved < TOLERANCE / 4:
            return


def settle_self_test(
    folder: Path, entry: EntryFacts, run: Run, prefix: str | None = None
) -> Arrays | None:
    """Make sure that an artefact agrees on its inputs, and drop the test if none will do.

    Args:
        folder: Of the artefact.
        entry: Its ports.
        run: Runs it: arrays by the names of its inputs to arrays by the names of its outputs.
        prefix: Of the files, see `self_test_file`.

    Returns:
        The inputs, of one image; None if it has no test.
    """
    given = _read(folder, prefix, SELF_TEST, entry.inputs)
    if agrees(run(given), _read(folder, prefix, EXPECTED, entry.outputs)):
        return given
    from vitc.onnx_files.load_entry import load_entry

    names = [port.name for port in entry.outputs]
    own = folder / f"{entry.name}.onnx"
    model = load_entry(own if own.is_file() else folder / "model.onnx", entry.name)
    opened = session(model, names, confined=True)
    for other in _candidates(entry, model):
        expected = _run(opened, entry, other)
        if agrees(run(other), expected):
            _write(folder, entry, prefix, other, expected)
            return other
    for kind, ports in ((SELF_TEST, entry.inputs), (EXPECTED, entry.outputs)):
        for i in range(len(ports)):
            (folder / self_test_file(_file(kind, i, len(ports)), prefix)).unlink()
    return None


def agrees(found: Arrays, expected: Arrays) -> bool:
    """Whether outputs are what the test accepts: floats close, rows of logits of one class."""
    return all(_agrees(found[name], value) for name, value in expected.items())


def _agrees(found: Array, expected: Array) -> bool:
    if expected.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    apart = float(np.abs(found - expected).max())
    if expected.ndim != _LOGITS_AXES:
        return apart <= TOLERANCE * max(1.0, float(np.abs(expected).max()))
    return apart <= TOLERANCE and bool((found.argmax(axis=1) == expected.argmax(axis=1)).all())


def _run(opened: ConfinedSession, entry: EntryFacts, given: Arrays) -> dict[str, Array]:
    made = run_with_taps(opened, given)
    return {port.name: made[port.name].astype(port.dtype) for port in entry.outputs}


def _candidates(entry: EntryFacts, model: ir.Model) -> Iterator[dict[str, Array]]:
    widths = packed_widths(model)
    for seed in range(_CANDIDATES):
        yield probe_inputs(entry.inputs, 1, seed, widths=widths)


def _disturbed(given: Arrays) -> Iterator[dict[str, Array]]:
    for seed in range(_DISTURBANCES):
        rng = np.random.default_rng(100 + seed)
        yield {
            name: value + np.float32(_DISTURBANCE) * rng.standard_normal(value.shape, np.float32)
            if value.dtype == np.float32
            else value
            for name, value in given.items()
        }


def prefix_of(entry: EntryFacts, entries: Sequence[EntryFacts]) -> str | None:
    """What stands before the files of an entry's test: its name, where there are several."""
    return entry.name if len(entries) > 1 else None


def self_test_file(name: str, prefix: str | None) -> str:
    """Name of a file of the test of an entry.

    Args:
        name: That of an artefact with one entry.
        prefix: See `prefix_of`.
    """
    return name if prefix is None else f"{prefix}.{name}"


def _file(kind: str, number: int, count: int) -> str:
    """Name of the array of a port: with its number, where there are several."""
    return kind if count == 1 else f"{kind.removesuffix('.npy')}.{number}.npy"


def _read(folder: Path, prefix: str | None, kind: str, ports: tuple[Port, ...]) -> dict[str, Array]:
    return {
        port.name: np.load(
            folder / self_test_file(_file(kind, i, len(ports)), prefix), allow_pickle=False
        )
        for i, port in enumerate(ports)
    }


def _write(
    folder: Path, entry: EntryFacts, prefix: str | None, given: Arrays, expected: Arrays
) -> None:
    for kind, ports, arrays in (
        (SELF_TEST, entry.inputs, given),
        (EXPECTED, entry.outputs, expected),
    ):
        for i, port in enumerate(ports):
            name = self_test_file(_file(kind, i, len(ports)), prefix)
            np.save(folder / name, arrays[port.name])
