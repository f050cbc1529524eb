"""Tables: vitc beside ONNX Runtime and OpenVINO, on one thread."""

from __future__ import annotations

from collections.abc import Callable

from contenders import Contender, OwnLibrary, openvino, own_int8, pinned, race, twins
from markdown import table
from networks import MAIN, Network, Workshop, networks

from vitc.bench.measure import Latency

__all__ = ["avx2_table", "ratio_table"]

_OWN = "vitc"
_SAME = "same network, int8"
Say = Callable[[str], None]


def ratio_table(workshop: Workshop, runs: int, say: Say, *, quick: bool) -> str:
    """All networks for this machine's best target against every baseline."""
    rows, worst = [], list[tuple[float, str, str]]()
    columns: list[str] = []
    rivals: dict[str, dict[str, Contender]] = {}
    with pinned(1):
        for network in networks(quick=quick):
            say(f"timing {network.name}")
            if network.preset not in rivals:
                rivals = {network.preset: _rivals(network)}
            contenders = {
                _OWN: OwnLibrary(workshop.artefact(network, "native")),
                **rivals[network.preset],
                _SAME: own_int8(workshop, network, 1),
            }
            found = race(contenders, runs)
            columns = list(found)
            rows.append([network.name, *_cells(found)])
            worst += [(_ratio(found, name), name, network.name) for name in columns[1:]]
    lines = [table(["network", *(f">{name}" for name in columns)], rows), ""]
    for name in columns[1:]:
        ratio, _, network_name = min(entry for entry in worst if entry[1] == name)
        lines.append(f"- least against {name}: {ratio:.1f}x ({network_name})")
    if not any(name.startswith("OpenVINO") for name in columns):
        lines.append("- OpenVINO is not installed, so it was not timed (`pip install openvino`)")
    return "\n".join([*lines, "", _legend(runs)])


def avx2_table(workshop: Workshop, runs: int, say: Say) -> str:
    """DeiT-S for x86-64-v3 against rivals with everything the machine has."""
    say("timing the x86 target")
    artefact = workshop.artefact(MAIN, "x86")
    missing = artefact.missing_features()
    if missing:
        return f"This machine lacks {', '.join(missing)}."
    with pinned(1):
        contenders: dict[str, Contender] = {_OWN: OwnLibrary(artefact), **_rivals(MAIN)}
        found = race(contenders, runs)
    columns = ["network", *(f">{name}" for name in found)]
    return f"{table(columns, [[MAIN.name, *_cells(found)]])}\n\n{_legend(runs)}"


def _rivals(network: Network) -> dict[str, Contender]:
    return {**twins(network, 1), **openvino(network, 1)}


def _cells(found: dict[str, Latency]) -> list[str]:
    own = found[_OWN]
    cells = [f"{own.median:.2f} ms ({own.min:.2f})"]
    for name, other in found.items():
        if name != _OWN:
            cells.append(
                f"{other.median:.1f} ms, **{_ratio(found, name):.1f}x** "
                f"({other.min / own.min:.1f}x)"
            )
    return cells


def _ratio(found: dict[str, Latency], name: str) -> float:
    return found[name].median / found[_OWN].median


def _legend(runs: int) -> str:
    return (
        f"One pinned thread, batch 1, {runs} runs of each in turns. Medians, and how many times "
        "faster vitc is; in brackets minima and their ratio."
    )
