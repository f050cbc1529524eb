"""`vitc tune`: try every register tile on a device, and build the artefact of the fastest.

A plain search: the artefact is compiled once for each tile of `vitc.targets.tiles`, all of them are
profiled in turns, and every kernel takes the tile that was fastest for it. What was found is kept
by processor (`vitc.bench.tile_cache`), so that the next model with the same layers need not try
again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vitc import api
from vitc.bench.measure import Latency
from vitc.bench.tile_cache import TileCache
from vitc.compiler import compile_model
from vitc.compiler.compile import kernel_identities
from vitc.devices import Device, RunRequest, parse_device
from vitc.errors import VitcError
from vitc.outputs import FolderOutput, claim_folder
from vitc.places import scratch_folder
from vitc.runtime.arrays import probe_inputs
from vitc.runtime.artefact import MANIFEST, Artefact, own_files
from vitc.targets.isa import ISAS
from vitc.targets.tiles import Tile, other_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KernelChoice", "TuneOptions", "TuneReport", "tune"]

_WARMUP: Final = 1
_LEAST_GAIN: Final = 0.01
"""Shares of time below this are noise, and the table's tile stays."""


@dataclass(frozen=True)
class TuneOptions:
    """How to search.

    Attributes:
        device: Where to time, not an emulator.
        rounds: Turns that every tile gets; a kernel counts with its fastest.
        runs: Timed runs of a turn.
        fresh: Try again what the cache knows.
    """

    device: str = "local"
    rounds: int = 10
    runs: int = 5
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.runs < 1:
            raise VitcError(f"Rounds and runs must be positive, found {self.rounds}, {self.runs}.")


@dataclass(frozen=True)
class KernelChoice:
    """What was chosen for one kernel.

    Attributes:
        kernel: Symbol.
        calls: Steps that call it.
        usual: The table's tile.
        chosen: The fastest, or the table's if none gains 1 %.
        usual_ms: Time for one image with the table's tile, all calls; None if it was not timed now.
        chosen_ms: The same with the chosen one.
    """

    kernel: str
    calls: int
    usual: Tile
    chosen: Tile
    usual_ms: float | None
    chosen_ms: float | None


@dataclass(frozen=True)
class TuneReport:
    """What came out.

    Attributes:
        artefact: The folder.
        cpu: Where it was timed.
        kernels: Choices, in order of first use.
        before: Latency of the artefact as it was.
        after: Latency with the choices, in turns with `before`; None if no choice is new.
        replaced: Whether the folder holds the new library: only a faster one replaces it.
    """

    artefact: Path
    cpu: str
    kernels: tuple[KernelChoice, ...]
    before: Latency | None
    after: Latency | None
    replaced: bool

    def __repr__(self) -> str:
        done = "replaced" if self.replaced else "kept as it was"
        return f"TuneReport({self.artefact} on {self.cpu}: {len(self.kernels)} kernels, {done})"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""

        def latency(value: Latency | None) -> dict[str, float] | None:
            return None if value is None else vars(value)

        return {
            "artefact": str(self.artefact),
            "cpu": self.cpu,
            "kernels": [
                {
                    "kernel": choice.kernel,
                    "calls": choice.calls,
                    "usual": choice.usual.to_dict(),
                    "chosen": choice.chosen.to_dict(),
                    "usual_ms": choice.usual_ms,
                    "chosen_ms": choice.chosen_ms,
                }
                for choice in self.kernels
            ],
            "before_ms": latency(self.before),
            "after_ms": latency(self.after),
            "replaced": self.replaced,
        }


def tune(
    artefact: str | os.PathLike[str],
    options: TuneOptions | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> TuneReport:
    """Find the fastest register tiles for an artefact, and compile it anew with them.

    The new library is checked like any other, and timed in turns with the old one; it takes the old
    one's place only if it is faster.

    Args:
        artefact: An artefact folder.
        options: How to search.
        say: Told what is being done.

    Raises:
        VitcError: If the artefact does not open or run there, or the device is emulated.
    """
    chosen = options or TuneOptions()
    opened = Artefact.open(Path(artefact))
    device = parse_device(chosen.device)
    if device.emulated:
        raise VitcError(
            f"The times of {device.name} are emulated, so nothing can be tuned there.",
            "Tune on the machine itself, or through --device ssh://, where it is.",
        )
    device.supports(opened)
    with claim_folder(opened.path, marker=MANIFEST, force=True, parts=own_files) as output:
        return _tune(opened, device, chosen, output, say)


def _tune(
    opened: Artefact,
    device: Device,
    chosen: TuneOptions,
    output: FolderOutput,
    say: Callable[[str], None],
) -> TuneReport:
    search = _Search(opened, device, chosen, say)
    kernels = search.kernels()
    tiles = {
        search.identities[choice.kernel]: choice.chosen
        for choice in kernels
        if choice.chosen != choice.usual
    }
    if tiles == opened.tiles:
        return TuneReport(opened.path, search.cpu, kernels, None, None, replaced=False)
    with output.scratch() as scratch:
        say("compiling with the choices")
        settings = api.CompileOptions(
            opened.target.name,
            opened.batch,
            tiles=tiles,
            symbol_prefix=opened.manifest.symbol_prefix,
        )
        tuned = api.compile(opened.source, scratch / "tuned", settings, say=say)
        say("timing the choices beside the artefact as it was")
        before, after = search.race((opened, tuned))
        replaced = after.median < before.median and after.min < before.min
        if replaced:
            output.publish(tuned.path)
    return TuneReport(opened.path, search.cpu, kernels, before, after, replaced)


class _Search:
    """Times tiles on one device, or takes them from the cache."""

    def __init__(
        self, artefact: Artefact, device: Device, options: TuneOptions, say: Callable[[str], None]
    ) -> None:
        self._artefact, self._device, self._options, self._say = artefact, device, options, say
        self._isa = ISAS[artefact.target.isa]
        self._inputs = probe_inputs(artefact.entry.inputs, artefact.batch, 0)
        self.identities = kernel_identities(artefact.source, artefact.target)
        self._calls = [step.kernel for step in artefact.entry.steps]
        facts = device.run(artefact, self._inputs, RunRequest()).facts
        self.cpu = str(facts.get("cpu") or "unknown")
        self._cache = TileCache.of(facts, artefact.target)

    def kernels(self) -> tuple[KernelChoice, ...]:
        """Choose a tile for every kernel that has one."""
        symbols = [s for s in dict.fromkeys(self._calls) if s in self.identities]
        known = {} if self._options.fresh else self._cache.read()
        usual = Tile.of(self._isa)
        times: dict[Tile, dict[str, float]] = {}
        if not all(self.identities[symbol] in known for symbol in symbols):
            times = self._times([usual, *other_tiles(self._isa)], symbols)
            best = {s: self._best({t: times[t][s] for t in times}, usual) for s in symbols}
            known = {**known, **{self.identities[s]: tile for s, tile in best.items()}}
            self._cache.write(known)
        return tuple(
            KernelChoice(
                symbol,
                self._calls.count(symbol),
                usual,
                known[self.identities[symbol]],
                times[usual][symbol] if times else None,
                times[known[self.identities[symbol]]][symbol] if times else None,
            )
            for symbol in symbols
        )

    @staticmethod
    def _best(times: Mapping[Tile, float], usual: Tile) -> Tile:
        fastest = min(times, key=lambda tile: times[tile])
        return fastest if times[fastest] < (1 - _LEAST_GAIN) * times[usual] else usual

    def _times(self, tiles: Sequence[Tile], symbols: Sequence[str]) -> dict[Tile, dict[str, float]]:
        """Milliseconds of one image that each kernel takes with each tile."""
        fastest = {tile: np.full(len(self._calls), np.inf) for tile in tiles}
        with scratch_folder("tune") as scratch:
            built = {}
            for number, tile in enumerate(tiles, 1):
                self._say(f"compiling with tile {number} of {len(tiles)}: {tile}")
                built[tile] = compile_model(
                    self._artefact.source,
                    self._artefact.target,
                    Path(scratch) / str(number),
                    batch=self._artefact.batch,
                    tiles=dict.fromkeys(self.identities.values(), tile),
                    self_test=False,
                )
            for number in range(1, self._options.rounds + 1):
                self._say(f"round {number} of {self._options.rounds}")
                for tile, artefact in built.items():
                    fastest[tile] = np.minimum(fastest[tile], self._steps(artefact))
        return {
            tile: {
                symbol: float(
                    sum(t for t, s in zip(steps, self._calls, strict=True) if s == symbol)
                )
                for symbol in symbols
            }
            for tile, steps in fastest.items()
        }

    def _steps(self, artefact: Artefact) -> NDArray[np.float64]:
        """Milliseconds of one image that each step takes, the mean over the runs of a turn."""
        request = RunRequest(repeat=self._options.runs, warmup=_WARMUP, profile=True, pin=True)
        times = self._device.run(artefact, self._inputs, request).step_ns or ()
        if len(times) != len(self._calls):
            raise VitcError(
                f"{self._device.name} does not time the steps of an artefact.",
                "Tune on the machine itself, or through --device ssh:// or adb://.",
            )
        return np.asarray(times) / (1e6 * self._options.runs * artefact.batch)

    def race(self, artefacts: Sequence[Artefact]) -> list[Latency]:
        """Time artefacts in turns."""
        request = RunRequest(repeat=self._options.runs, warmup=_WARMUP, pin=True)
        times: list[list[int]] = [[] for _ in artefacts]
        for _ in range(self._options.rounds):
            for mine, artefact in zip(times, artefacts, strict=True):
                mine += self._device.run(artefact, self._inputs, request).latencies_ns
        return [Latency.of(mine) for mine in times]
