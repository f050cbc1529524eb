"""``--report F.html``: the result of a check, a bench or a demo as one file that needs no other."""

from __future__ import annotations

import base64
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from vitc.cli.durations import Unit, unit_of
from vitc.cli.output import megabytes
from vitc.cli.report_classes import shown_classes
from vitc.errors import VitcError
from vitc.outputs import FileOutput

__all__ = ["Bars", "Report", "Subject", "Verdict", "accuracies", "latencies", "write_report"]

_TEMPLATE: Final = "report.html"


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        name: Of the network.
        summary: What kind it is, and its sizes; empty if nothing says so.
        sizes: Of an artefact's parts, bytes.
    """

    name: str
    summary: str = ""
    sizes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, *, allow_external_data: bool = False) -> Subject:
        """An artefact folder or an exported file, by what it says of the network."""
        from vitc.devices.source import Description
        from vitc.models.architectures import named_after, summary
        from vitc.runtime.artefact import Artefact

        sizes: Mapping[str, Any] = {}
        try:
            if path.is_dir():
                artefact = Artefact.open(path, verify=False)
                sizes = artefact.manifest.sizes
                found = Description.of_artefact(artefact)
            else:
                from vitc.onnx_files import load_onnx

                facts = load_onnx(path, allow_external_data=allow_external_data)[1]
                found = Description.of_onnx(path, facts)
        except VitcError:  # a network of one's own has no configuration
            return cls(path.name, sizes=sizes)
        classes = f"{found.config.classes} classes"
        high, wide = found.config.sides
        text = f"{summary(found.config)}, {high} x {wide} px, {classes}"
        return cls(named_after(found.config), text, sizes)


@dataclass(frozen=True)
class Verdict:
    """What stands largest.

    Attributes:
        text: A few words.
        good: Whether all is as it should be.
        detail: A sentence or two; empty for none.
    """

    text: str
    good: bool
    detail: str = ""

    @classmethod
    def of_check(cls, result: Mapping[str, Any]) -> Verdict:
        """Of the JSON form of a check."""
        equal = bool(result["equal"])
        return cls("equal" if equal else "not equal", equal, result["verdict"])

    @classmethod
    def of_bench(cls, result: Mapping[str, Any]) -> Verdict:
        """Of the JSON form of a bench."""
        median = result["latency_ms"]["median"]
        time = f"{unit_of([median]).text(median)} for a batch of {result['batch']}"
        if result["emulated"]:
            return cls("emulated", False, f"{time}, which says nothing about the device")
        if result["ratio"] is None:
            return cls(time, True, f"on {result['device']}")
        against = result["baseline"]["title"]
        return cls(f"{result['ratio']:.2f} times as fast as the {against}", True, time)


@dataclass(frozen=True)
class Bars:
    """Figures side by side.

    Attributes:
        title: What they are.
        rows: Name, figure, figure in words; the first is the artefact's.
        full: Figure of a bar of full length.
    """

    title: str
    rows: Sequence[tuple[str, float, str]]
    full: float

    @classmethod
    def sizes(cls, title: str, rows: Sequence[tuple[str, int]]) -> Bars:
        """Bytes."""
        shown = [(name, float(size), megabytes(size)) for name, size in rows]
        return cls(title, shown, max(size for _, size in rows))


@dataclass(frozen=True)
class Report:
    """What a report shows.

    Attributes:
        title: Of the page, and what was done.
        subject: What it is about.
        verdict: Largest, and first.
        bars: Of the artefact beside its reference or its twin.
        checks: JSON forms of checks.
        bench: JSON form of a bench; None for none.
        curve: Of a training, as PNG; None for none.
        machine: Facts about where it ran.
    """

    title: str
    subject: Subject
    verdict: Verdict
    bars: Sequence[Bars] = ()
    checks: Sequence[Mapping[str, Any]] = ()
    bench: Mapping[str, Any] | None = None
    curve: bytes | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)


def latencies(result: Mapping[str, Any]) -> list[Bars]:
    """Medians of an artefact and of what it was timed against, of the JSON form of a bench."""
    sides = [(f"{result['target']} artefact", result["latency_ms"]["median"])]
    if result["baseline"]:
        sides.append((result["baseline"]["title"], result["baseline"]["latency_ms"]["median"]))
    unit = _unit(result)
    rows = [(name, median, unit.text(median)) for name, median in sides]
    title = f"Latency of a batch of {result['batch']}, median"
    return [Bars(title, rows, max(median for _, median in sides))]


def _unit(result: Mapping[str, Any]) -> Unit:
    """The unit of all times of the JSON form of a bench."""
    sides = [result, *filter(None, [result["baseline"]])]
    return unit_of(side["latency_ms"]["median"] for side in sides)


def accuracies(result: Mapping[str, Any]) -> list[Bars]:
    """Accuracy, or other figures, of both sides of the JSON form of a check."""
    figures = dict(result["measures"])
    if result["accuracy"] is not None:
        figures = {"Accuracy": result["accuracy"], **figures}
    return [
        Bars(
            f"{name} on {result['images']} images",
            [
                (side, each[key], f"{100 * each[key]:.2f} %")
                for side, key in (
                    (f"artefact on {result['device']}", "candidate"),
                    ("reference in PyTorch, float64", "reference"),
                )
            ],
            1.0,
        )
        for name, each in figures.items()
    ]


def write_report(output: FileOutput, report: Report) -> None:
    """Write a report, complete or not at all.

    Raises:
        VitcError: If the file cannot be written.
    """
    from importlib.metadata import version

    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vitc.cli", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "shown": _shown,
        "base64": _base64,
        "classes": shown_classes,
        "unit": _unit,
    }
    text = environment.get_template(_TEMPLATE).render(
        report=report,
        command=shlex.join(["vitc", *sys.argv[1:]]),
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("vitc"),
    )
    output.write(text.encode("utf-8", "backslashreplace"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
