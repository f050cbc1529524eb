"""Table: the tiny backbones beside their fp32 twins in ONNX Runtime, and where their time goes."""

from __future__ import annotations

from collections.abc import Callable

from contenders import Contender, OwnLibrary, noise, pinned, race, static_int8
from markdown import table
from networks import Network, Workshop

from vitc.bench.baselines import BaselineSession
from vitc.bench.measure import Latency
from vitc.bench.profile import Profile, profile
from vitc.bench.twin import twin_model
from vitc.devices import LocalDevice

__all__ = ["family_table"]

Say = Callable[[str], None]

_PRESETS = ("deit-tiny", "swin-tiny", "pvt-tiny", "nest-tiny")


def family_table(workshop: Workshop, runs: int, say: Say) -> str:
    """Every tiny backbone on one thread."""
    rows, target = [], ""
    with pinned(1):
        for preset in _PRESETS:
            network = Network(preset, None, si=True)
            say(f"timing {network.name}")
            artefact = workshop.artefact(network, "native")
            target = artefact.target.name
            twin = twin_model(network.config)
            image = [noise((1, *artefact.image_shape))]
            contenders: dict[str, Contender] = {
                "vitc": OwnLibrary(artefact),
                "fp32": BaselineSession(twin.SerializeToString(), image, 1),
                "int8 QDQ": BaselineSession(static_int8(twin), image, 1),
            }
            own, *others = race(contenders, runs).values()
            shares = profile(artefact, LocalDevice(), 1, say, pin=True)
            times = [f"{own.median:.2f} ms ({own.min:.2f})", *(_beside(own, o) for o in others)]
            rows.append((network.name, *times, *_shares(shares)))
    columns = (
        "network", ">vitc", ">fp32", ">int8 QDQ", ">binary products", ">fp32 products", ">other"
    )  # fmt: skip
    return (
        f"{table(columns, rows)}\n\nTarget {target}, one pinned thread, batch 1, {runs} runs of "
        "each in turns. Medians, and how many times faster vitc is; in brackets minima and their "
        "ratio. Shares are those of the fastest time of each step."
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
