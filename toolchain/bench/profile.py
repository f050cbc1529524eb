"""Where the time of an artefact goes: by step, beside the peak of the unit that it uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vitc.bench.macs import StepMacs, step_macs
from vitc.bench.peaks import PeakLoops, Peaks
from vitc.devices import Device, RpcDevice, RunRequest
from vitc.devices.rpc import no_profile
from vitc.errors import VitcError
from vitc.runtime.arrays import TIMED_EXTENT, probe_inputs

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["LayerTime", "Profile", "profile", "supports_profile"]

_ROUNDS: Final = 10
_RUNS: Final = 6
_REMOTE_ROUNDS: Final = 2
_REMOTE_RUNS: Final = 30  # each round copies everything there again


@dataclass(frozen=True)
class LayerTime:
    """Time of one step, or of all steps of one kind together.

    Attributes:
        name: Tap of the step; of a kind, with `*` for the number of the block.
        steps: How many steps.
        milliseconds: For one image.
        macs: For one image.
        tiles: Those of its binary MACs that AMX tiles do.
        peak: Fraction of the peak of its units, by all threads; None for a step without MACs, and
            on another machine.
    """

    name: str
    steps: int
    milliseconds: float
    macs: StepMacs
    tiles: int
    peak: float | None

    @property
    def unit(self) -> str | None:
        """The units that it keeps busy: `popcount`, `int8`, both with a plus, `fma`, or None."""
        if self.tiles:
            return "int8" if self.tiles == self.macs.binary else "int8+popcount"
        if self.macs.binary:
            return "popcount"
        return "fma" if self.macs.fp else None


@dataclass(frozen=True)
class Profile:
    """Time by step.

    Attributes:
        threads: Threads of the library.
        runs: Runs of a batch.
        peaks: Of one core; None on another machine.
        steps: Every step, in order.
    """

    threads: int
    runs: int
    peaks: Peaks | None
    steps: tuple[LayerTime, ...]

    @property
    def milliseconds(self) -> float:
        """Sum over the steps."""
        return sum(step.milliseconds for step in self.steps)

    def layers(self) -> list[LayerTime]:
        """The steps of all blocks together, by kind, in order."""
        kinds: dict[str, list[LayerTime]] = {}
        for step in self.steps:
            kinds.setdefault(_kind(step.name), []).append(step)
        return [self._together(name, steps) for name, steps in kinds.items()]

    def binary(self) -> LayerTime:
        """All binary products together."""
        return self._together("binary", [step for step in self.steps if step.macs.binary])

    def _together(self, name: str, steps: Sequence[LayerTime]) -> LayerTime:
        macs = StepMacs(sum(s.macs.binary for s in steps), sum(s.macs.fp for s in steps))
        time, tiles = sum(step.milliseconds for step in steps), sum(step.tiles for step in steps)
        peak = _fraction(macs, tiles, time, self.peaks, self.threads)
        return LayerTime(name, len(steps), time, macs, tiles, peak)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "threads": self.threads,
            "runs": self.runs,
            "steps": [self._row(step) for step in self.steps],
            "layers": [self._row(layer) for layer in self.layers()],
        }

    def _row(self, time: LayerTime) -> dict[str, Any]:
        return {
            "name": time.name,
            "steps": time.steps,
            "ms": time.milliseconds,
            "share": time.milliseconds / self.milliseconds,
            "binary_macs": time.macs.binary,
            "fp_macs": time.macs.fp,
            "unit": time.unit,
            "fraction_of_peak": time.peak,
        }


def profile(
    artefact: Artefact,
    device: Device,
    threads: int,
    say: Callable[[str], None] = lambda _: None,
    *,
    pin: bool = False,
) -> Profile:
    """Time each step of an artefact.

    On this machine, steps and peaks are measured in turns. Other work on the machine only ever adds
    time, so of the rounds a step counts with its fastest (the mean over the runs of the round), as
    a peak does.

    Args:
        artefact: The artefact.
        device: Where it runs.
        threads: Threads of the library.
        say: Told what is being done.
        pin: Whether each thread is bound to a processor of its own.

    Raises:
        VitcError: If the device is emulated, or the artefact does not run.
    """
    supports_profile(device)
    device.supports(artefact)
    loops, peaks, rounds, runs = None, None, _REMOTE_ROUNDS, _REMOTE_RUNS
    if not device.remote:
        say("measuring the peaks")
        loops, rounds, runs = PeakLoops(artefact.target), _ROUNDS, _RUNS
        peaks = loops.measure()
    inputs = probe_inputs(artefact.entry.inputs, artefact.batch, 0, n=TIMED_EXTENT)
    titles = [step.title for step in artefact.entry.steps]
    macs = step_macs(artefact.entry.steps, TIMED_EXTENT)
    fastest = np.full(len(titles), np.inf)
    for number in range(rounds):
        say(f"profile: round {number + 1} of {rounds}")
        request = RunRequest(threads=threads, repeat=runs, warmup=1, profile=True, pin=pin)
        times = device.run(artefact, inputs, request).step_ns or ()
        if len(times) != len(titles):
            raise VitcError(
                f"The runner of {artefact.path} timed {len(times)} steps of {len(titles)}.",
                "Compile the artefact again.",
            )
        fastest = np.minimum(fastest, np.asarray(times) / (1e6 * runs * artefact.batch))
        if peaks is not None and loops is not None:
            peaks = peaks.faster(loops.measure())
    steps = []
    for title, time, each in zip(titles, fastest.tolist(), macs, strict=True):
        tiles = each.binary if each.unit == "int8" else 0
        peak = _fraction(each, tiles, time, peaks, threads)
        steps.append(LayerTime(title, 1, time, each, tiles, peak))
    return Profile(threads, rounds * runs, peaks, tuple(steps))


def supports_profile(device: Device) -> None:
    """Raise if the times of steps on a device mean nothing."""
    if device.emulated:
        raise VitcError(
            f"The times of {device.name} are emulated, so a profile of them says nothing.",
            "Run `vitc bench --profile` on the machine itself, or `vitc bench --estimate` here.",
        )
    if isinstance(device, RpcDevice):
        raise no_profile()


def _kind(tap: str) -> str:
    parts = tap.split(".")
    return ".".join([parts[0], "*", *parts[2:]]) if parts[0] == "blocks" else tap


def _fraction(
    macs: StepMacs, tiles: int, milliseconds: float, peaks: Peaks | None, threads: int
) -> float | None:
    """Fraction of the time that the peaks of its units would take on as many cores."""
    if peaks is None or not (macs.binary or macs.fp) or milliseconds <= 0:
        return None
    at_peak = (macs.binary - tiles) / peaks.popcount_gmacs + macs.fp / peaks.fma_gmacs
    if tiles:
        at_peak += tiles / peaks.int8_gmacs
    return at_peak / threads / 1e6 / milliseconds
