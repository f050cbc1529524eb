"""Latency of an artefact, side by side with a baseline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from vitc.bench.baselines import Baseline, baseline, usual_baseline
from vitc.bench.estimate import Estimate, estimate, find_processor, supports_estimate
from vitc.bench.profile import Profile, profile, supports_profile
from vitc.devices import Device, DeviceRun, QemuDevice, RpcDevice, RunRequest, parse_device
from vitc.devices.conditions import throttling
from vitc.devices.farm import Farm, Finding, on_every_board
from vitc.devices.instructions import count_instructions
from vitc.devices.machine import machine, usable_cores
from vitc.devices.rpc import no_profile
from vitc.errors import VitcError
from vitc.runtime.arrays import TIMED_EXTENT, probe_inputs
from vitc.runtime.artefact import Artefact

__all__ = ["USUAL", "BenchOptions", "BenchReport", "Latency", "bench", "bench_farm"]

USUAL: Final = "usual"
MIN_RUNS: Final = 30
_ROUNDS: Final = 6
_REMOTE_ROUNDS: Final = 2
_EMULATED_RUNS: Final = 3
_WIDE_SPREAD: Final = 0.10


_NO_BASELINE: Final = "none"
"""As the command line says None."""


@dataclass(frozen=True)
class BenchOptions:
    """How to measure.

    Attributes:
        threads: Threads of the artefact and of the baseline; no more than there are cores.
        device: Where the artefact runs, as behind ``--device``, or that device.
        baseline: A key of `vitc.bench.baselines.BASELINES`; None for none; `USUAL` for the
            full-precision twin, or of a network without a configuration for its own file.
        runs: Timed runs of one batch, at least 30.
        warmup: Untimed runs at the start of each round.
        profile: Whether to time every step as well, beside the peaks of the machine.
        estimate: A key of `vitc.bench.estimate.PROCESSORS` whose time to model; None for none.
        pin: Whether to keep both sides on as many cores as threads, each thread of the artefact on
            a core of its own. Nothing is pinned on an emulator, nor over RPC.
        entry: Name of the entry that is timed; None for the first.
    """

    threads: int = 1
    device: str | Device = "local"
    baseline: str | None = USUAL
    runs: int = 60
    warmup: int = 3
    profile: bool = False
    estimate: str | None = None
    pin: bool = True
    entry: str | None = None

    def __post_init__(self) -> None:
        if self.threads < 1 or self.warmup < 0:
            raise VitcError(
                f"threads must be at least 1 and warmup at least 0, found {self.threads} "
                f"and {self.warmup}."
            )
        if self.runs < MIN_RUNS:
            raise VitcError(
                f"A median of {self.runs} runs says little.", f"Ask for {MIN_RUNS} or more."
            )
        if self.estimate is not None:
            find_processor(self.estimate)
        if self.baseline == _NO_BASELINE:
            object.__setattr__(self, "baseline", None)


@dataclass(frozen=True)
class Latency:
    """Distribution of the time of one run of one batch, in milliseconds."""

    median: float
    p10: float
    p90: float
    min: float

    @classmethod
    def of(cls, nanoseconds: Sequence[int]) -> Latency:
        """From single times in nanoseconds."""
        times = np.asarray(nanoseconds, np.float64) / 1e6
        p10, median, p90 = np.percentile(times, (10, 50, 90))
        return cls(float(median), float(p10), float(p90), float(times.min()))

    @property
    def spread(self) -> float:
        """(p90 - p10) / median."""
        return (self.p90 - self.p10) / self.median


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes:
        artefact: What ran.
        target: What it was compiled for.
        device: Where it ran.
        emulated: Whether the times mean nothing.
        threads: Threads of both sides; fewer than asked for where there are fewer cores.
        batch: Images in one run.
        runs: Timed runs of each side.
        latency: Of the artefact.
        load_ms: From the start of the library to ready, median over the rounds.
        machine: Facts about where it ran.
        baseline: Name and title of what it was timed against; None for none.
        baseline_latency: Of the baseline.
        warnings: What makes the numbers less certain.
        instructions: Executed for one image, counted by the emulator; None on a real machine.
        profile: Time by step; None unless asked for.
        estimate: Modelled time; None unless asked for.
        pinned: Whether each thread was bound to a core of its own.
    """

    artefact: str
    target: str
    device: str
    emulated: bool
    threads: int
    batch: int
    runs: int
    latency: Latency
    load_ms: float
    machine: Mapping[str, Any]
    baseline: tuple[str, str] | None = None
    baseline_latency: Latency | None = None
    warnings: tuple[str, ...] = ()
    instructions: int | None = None
    profile: Profile | None = None
    estimate: Estimate | None = None
    pinned: bool = False

    def __repr__(self) -> str:
        against = ""
        if self.baseline is not None:
            against = f", {self.ratio:.3g} times as fast as {self.baseline[0]}"
        what = f"{self.artefact}, {self.latency.median:.4g} ms on {self.device}"
        return f"BenchReport({what}, {self.threads} threads{against})"

    @property
    def ratio(self) -> float | None:
        """How many times faster than the baseline; None without one."""
        if self.baseline_latency is None:
            return None
        return self.baseline_latency.median / self.latency.median

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        against = None
        if self.baseline is not None and self.baseline_latency is not None:
            name, title = self.baseline
            against = {
                "name": name,
                "title": title,
                "latency_ms": asdict(self.baseline_latency),
            }
        peaks = None if self.profile is None else self.profile.peaks
        return {
            "latency_ms": asdict(self.latency),
            "threads": self.threads,
            "pinned": self.pinned,
            "machine": dict(self.machine),
            "baseline": against,
            "ratio": self.ratio,
            "artefact": self.artefact,
            "target": self.target,
            "device": self.device,
            "emulated": self.emulated,
            "batch": self.batch,
            "runs": self.runs,
            "load_ms": self.load_ms,
            "warnings": list(self.warnings),
            "instructions_per_image": self.instructions,
            "profile": None if self.profile is None else self.profile.to_dict(),
            "peaks": None if peaks is None else peaks.to_dict(),
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
        }


def bench(
    artefact: Artefact | str | os.PathLike[str],
    options: BenchOptions | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> BenchReport:
    """Time an artefact, and a baseline beside it.

    Both sides take turns in rounds on the same cores, so a machine that gets slower or
    faster meanwhile does so for both. Under emulation there is no baseline and time means nothing;
    executed instructions are counted instead.

    Args:
        artefact: An artefact or its folder.
        options: How to measure.
        say: Told what is being done.

    Raises:
        VitcError: If the artefact does not open or run, there is no such baseline or device, or
            step times are asked of an emulator or a modelled time of a processor that the artefact
            is not for.
    """
    chosen = options or BenchOptions()
    opened = artefact if isinstance(artefact, Artefact) else Artefact.open(Path(artefact))
    opened = opened if chosen.entry is None else opened.at(chosen.entry)
    device = _device(chosen, opened)
    device.supports(opened)
    if chosen.estimate is not None:
        supports_estimate(opened.target, chosen.estimate)
    if chosen.profile:
        supports_profile(device)
    against = None if chosen.baseline is None else _baseline(chosen.baseline, opened)
    facts = machine().to_dict()
    threads = chosen.threads if device.remote else min(chosen.threads, int(facts["cores"]))
    pinned = chosen.pin and not device.emulated and not isinstance(device, RpcDevice)
    if device.emulated or device.remote:
        against = None
    with _pinned(threads) if pinned and not device.remote else nullcontext():
        session = None
        if against is not None:
            say(f"building the baseline: {against.title}")
            session = against.open(opened, threads)
        own: list[int] = []
        theirs: list[int] = []
        loads: list[int] = []
        conditions: list[Mapping[str, Any]] = []
        runs = _EMULATED_RUNS if device.emulated else chosen.runs
        # Rounds are for taking turns; each copies everything to another machine again.
        rounds = 1 if device.emulated else _REMOTE_ROUNDS if device.remote else _ROUNDS
        for number, repeat in enumerate(_rounds(runs, rounds), 1):
            say(f"round {number}: {repeat} runs of the artefact")
            done = _time(opened, device, chosen, repeat, threads, pin=pinned)
            ran_on, threads = done.facts, done.threads or threads
            conditions.append(ran_on)
            own += done.latencies_ns
            loads.append(done.load_ns)
            if session is not None:
                say(f"round {number}: {repeat} runs of the baseline")
                session.times(chosen.warmup)
                theirs += session.times(repeat)
        steps = profile(opened, device, threads, say, pin=pinned) if chosen.profile else None
    emulated = _is_emulated(device, ran_on)
    warnings = list(_warnings(chosen, threads, device, conditions, own, theirs))
    instructions, modelled = None, None
    counted = chosen.estimate is not None and find_processor(chosen.estimate).counted
    if device.emulated or counted:
        say("counting instructions")
        try:
            instructions = count_instructions(opened)
        except VitcError as error:
            if counted:
                raise
            warnings.append(str(error))
    if chosen.estimate is not None:
        say(f"modelling {chosen.estimate}")
        modelled = estimate(opened, chosen.estimate, instructions)
    return BenchReport(
        artefact=str(opened.path),
        target=opened.manifest.target.name,
        device=device.name,
        emulated=emulated,
        threads=threads,
        batch=opened.batch,
        runs=len(own),
        latency=Latency.of(own),
        load_ms=float(np.median(loads)) / 1e6,
        machine=_machine(device, facts, ran_on),
        baseline=None if against is None else (against.name, against.title),
        baseline_latency=Latency.of(theirs) if theirs else None,
        warnings=tuple(warnings),
        instructions=instructions,
        profile=steps,
        estimate=modelled,
        pinned=pinned,
    )


def bench_farm(
    artefact: Artefact | str | os.PathLike[str],
    options: BenchOptions,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> list[Finding[BenchReport]]:
    """Time an artefact on every board of a farm, on all at once, as `bench` does on one.

    Args:
        artefact: An artefact or its folder.
        options: How to measure; its device names a farm (`vitc.devices.farm.Farm`).
        say: Told what is being done.

    Raises:
        VitcError: If the artefact does not open, there is no such farm, or step times or a modelled
            time are asked for. That a board fails is in its finding.
    """
    if options.profile:
        raise no_profile()
    if options.estimate is not None:
        raise VitcError(
            "A modelled time is of a processor, not of a board.", "Leave --estimate or the farm."
        )
    opened = artefact if isinstance(artefact, Artefact) else Artefact.open(Path(artefact))
    return on_every_board(
        Farm.parse(str(options.device)),
        lambda board: bench(opened, replace(options, device=board)),
        say,
    )


def _baseline(name: str, artefact: Artefact) -> Baseline:
    return usual_baseline(artefact) if name == USUAL else baseline(name)


def _device(options: BenchOptions, artefact: Artefact) -> Device:
    """The device asked for; where instructions must be counted for a model, an emulator."""
    device = options.device
    if isinstance(device, str):
        device = parse_device(device)
    counted = options.estimate is not None and find_processor(options.estimate).counted
    if counted and artefact.missing_features() and not device.emulated:
        return QemuDevice()
    return device


def _time(
    artefact: Artefact,
    device: Device,
    options: BenchOptions,
    repeat: int,
    threads: int,
    *,
    pin: bool,
) -> DeviceRun:
    inputs = probe_inputs(artefact.entry.inputs, artefact.batch, 0, n=TIMED_EXTENT)
    warmup = 0 if device.emulated else options.warmup
    request = RunRequest(threads=threads, repeat=repeat, warmup=warmup, pin=pin)
    return device.run(artefact, inputs, request)


def _machine(
    device: Device, here: Mapping[str, Any], there: Mapping[str, Any]
) -> Mapping[str, Any]:
    if device.remote:
        return there
    # During the runs this process was pinned, so what it says of cores is of before.
    if device.emulated:
        return {**here, **there, "cores": here["cores"], "load": here["load"]}
    return {**there, **here}


def _is_emulated(device: Device, facts: Mapping[str, Any]) -> bool:
    """Whether times mean nothing: a server elsewhere may itself run under an emulator."""
    return device.emulated or "emulator" in facts


def _rounds(runs: int, rounds: int) -> list[int]:
    each, more = divmod(runs, rounds)
    return [each + (number < more) for number in range(rounds)]


@contextmanager
def _pinned(threads: int) -> Iterator[None]:
    """Keep this process, and what it starts, on as many cores as there are threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = usable_cores()
    os.sched_setaffinity(0, before[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _warnings(
    options: BenchOptions,
    threads: int,
    device: Device,
    conditions: Sequence[Mapping[str, Any]],
    own: Sequence[int],
    theirs: Sequence[int],
) -> Iterator[str]:
    if _is_emulated(device, conditions[-1]):
        yield "emulated: the times say nothing about the device, and there is no ratio"
        return
    facts = conditions[-1]
    if device.remote and options.baseline is not None:
        yield "the baselines run on this machine only, so there is no ratio"
    if threads < options.threads:
        yield (
            f"{options.threads} threads were asked for and {threads} used, as many as there are "
            "cores"
        )
    yield from dict.fromkeys(text for entry in conditions for text in throttling(entry))
    load = facts.get("load") if device.remote else machine().load
    if load is not None and load > threads + 0.5:
        yield f"the machine is busy with other work (load average {load:.1f})"
    for side, times in (("artefact", own), ("baseline", theirs)):
        if times and Latency.of(times).spread > _WIDE_SPREAD:
            yield f"the times of the {side} spread by {Latency.of(times).spread:.0%}"
