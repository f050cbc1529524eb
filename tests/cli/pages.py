"""A report with all that a report can have, and names that are markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitc.cli.report import Report, Subject, Verdict, accuracies, latencies, write_report
from vitc.outputs import claim_file

EVIL = "<script>alert('x')</script>\"&"
LONG = "a_name_without_any_blank" * 8


def failed_check(classes: int = 16) -> dict[str, Any]:
    """The JSON form of a check in which everything is hostile, long or wrong."""
    layer = {"name": EVIL, "kind": EVIL, "values": 123456789, "mismatches": 1, "near_ties": 0,
             "max_error": 1.23456e-7}  # fmt: skip
    counts = [[i, j, 9 * i + j + 1] for i in range(classes) for j in range(classes)]
    names = [EVIL, LONG, *(f"label {number}" for number in range(2, classes))]
    image = {"index": 0, "name": EVIL + LONG, "reference": 100, "candidate": 101, "output": EVIL,
             "logit_difference": 0.5, "explained": False}  # fmt: skip
    return {
        "candidate": EVIL, "device": EVIL, "equal": False, "first_difference": EVIL,
        "verdict": f"not equal: first difference at {EVIL}", "images": 1, "layer_images": 1,
        "outputs": [{"name": EVIL, "max_difference": 0.5, "tolerance": 0.1}],
        "top1_agreement": 0.5, "accuracy": {"reference": 0.5, "candidate": 0.25},
        "measures": {EVIL: {"reference": 0.5, "candidate": 0.25}}, "faults": [EVIL],
        "confusion": {"labels": names, "reference": counts, "candidate": counts},
        "layers": [layer, {**layer, "name": LONG}], "near_tie_count": 1,
        "near_ties": [{"tap": EVIL + LONG, "index": [0, 1], "margin": 1e-9, "bound": 1e-8}],
        "parameters": {"differences": [{"layer": EVIL, "name": LONG, "detail": EVIL}]},
        "differing_images": [image], "onnx": None,
    }  # fmt: skip


def bench() -> dict[str, Any]:
    """The JSON form of a bench."""
    times = {"median": 0.5, "p10": 0.4, "p90": 0.6, "min": 0.3}
    twin = {"name": "onnxruntime", "title": EVIL, "latency_ms": {**times, "median": 2.0}}
    layers = [{"name": LONG, "ms": 0.25, "share": 0.5}, {"name": EVIL, "ms": 0.25, "share": 0.5}]
    return {
        "latency_ms": times, "batch": 1, "target": "native", "baseline": twin, "ratio": 4.0,
        "device": EVIL, "emulated": False, "threads": 1, "runs": 60, "load_ms": 0.1,
        "warnings": [EVIL], "instructions_per_image": None, "profile": {"layers": layers},
    }  # fmt: skip


def full(path: Path, classes: int = 16, curve: bytes | None = None) -> None:
    """Write such a report."""
    found, timed = failed_check(classes), bench()
    report = Report(
        title=EVIL,
        subject=Subject(EVIL + LONG, EVIL, {EVIL: 3}),
        verdict=Verdict.of_check(found),
        bars=[*latencies(timed), *accuracies(found)],
        checks=[{**found, "onnx": found}],
        bench=timed,
        curve=curve,
        machine={EVIL: EVIL, "list": [EVIL, LONG], "conditions": {LONG: LONG}},
    )
    with claim_file(path) as output:
        write_report(output, report)
