"""Table: the tiny backbones beside their twins in other runtimes, and where their time goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contenders import Contender, OwnLibrary, noise, openvino, pinned, race, static_int8
from markdown import table
from networks import TINY, Network, Workshop

from vitc.bench.baselines import BaselineSession
from vitc.bench.measure import Latency
from vitc.bench.profile import Profile, profile
from vitc.bench.twin import twin_model
from vitc.devices import LocalDevice
from vitc.devices.machine import machine
from vitc.targets.table import TARGETS, host_features

__all__ = ["family_table"]

Say = Callable[[str], None]

_TARGETS = ("x86", "x86-avx512bw", "x86-avx512", "x86-amx")
"""Of which those are timed that this machine runs; elsewhere its own target."""


def family_table(workshop: Workshop, runs: int, say: Say) -> str:
    """Every tiny backbone on one thread, by every target that this machine runs."""
    features = host_features()
    targets = [t for t in _TARGETS if features.issuperset(TARGETS[t].features)] or ["native"]
    rows = []
    rivals: list[str] = []
    with pinned(1):
        for preset in TINY:
            forms = [Network(preset, None, si=True, rounded=rounded) for rounded in (False, True)]
            say(f"timing {preset}")
            artefacts = {
                (form.name, target): workshop.artefact(form, target)
                for form in forms
                for target in targets
            }
            twin = twin_model(forms[0].config)
            image = [noise((1, *next(iter(artefacts.values())).image_shape))]
            against: dict[Any, Contender] = {
                "fp32": BaselineSession(twin.SerializeToString(), image, 1),
                "int8 QDQ": BaselineSession(static_int8(twin), image, 1),
                **openvino(forms[0], 1),
            }
            own: dict[Any, Contender] = {k: OwnLibrary(made) for k, made in artefacts.items()}
            found = race({**own, **against}, runs)
            rivals = list(against)
            others = [found.pop(name) for name in rivals]
            for key, taken in found.items():
                shares = profile(artefacts[key], LocalDevice(), 1, say, pin=True)
                own_time = f"{taken.median:.2f} ms ({taken.min:.2f})"
                beside = [_beside(taken, other) for other in others]
                name = artefacts[key].target.name
                rows.append((key[0], name, own_time, *beside, *_shares(shares)))
    columns = (
        "network", "target", ">vitc", *(f">{name}" for name in rivals),
        ">binary products", ">fp32 products", ">other",
    )  # fmt: skip
    return (
        f"{table(columns, rows)}\n\n{machine().cpu}, one pinned thread, batch 1, {runs} runs of "
        "each in turns. Medians, and how many times faster vitc is; in brackets minima and their "
        "ratio. Shares are those of the fastest time of each step; int8 products are among the "
        "others."
    )


def _beside(own: Latency, other: Latency) -> str:
    """A rival's time, and how many times as fast vitc is."""
    ratios = f"**{other.median / own.median:.1f}x** ({other.min / own.min:.1f}x)"
    return f"{other.median:.1f} ms, {ratios}"


def _shares(found: Profile) -> tuple[str, str, str]:
    """Of the time: binary products, fp32 products, everything else."""
    binary = sum(step.milliseconds for step in found.steps if step.macs.binary)
    fp32 = sum(s.milliseconds for s in found.steps if s.macs.fp and not s.macs.binary)
    whole = found.milliseconds
    return f"{binary / whole:.0%}", f"{fp32 / whole:.0%}", f"{1 - (binary + fp32) / whole:.0%}"
