"""What a report says in its first line, and how it counts."""

from __future__ import annotations

import dataclasses

import torch

from vitc.models import ops
from vitc.models.taps import TapEvent
from vitc.verify.bounds import RoundingErrors
from vitc.verify.forcing import TapComparison
from vitc.verify.report import (
    CheckReport,
    ConstantDifference,
    DifferingImage,
    LayerReport,
    OutputReport,
)

LAYER = LayerReport("blocks.0.attn.query", "bits", 40, 3, 0, 1.0, first=(1, 0, 2))
LOGITS = OutputReport("logits", 0.0, 1e-4)
EQUAL = CheckReport("m.onnx", "local", 4, 4, (), (LOGITS,), 1.0)


def test_the_verdict_names_culprit_and_cause() -> None:
    place = LAYER.name
    bits = dataclasses.replace(EQUAL, layers=(LAYER,), first_difference=place)
    one, other = (ConstantDifference("blocks.0.attn", f"{place}.{n}", "bad") for n in "ab")
    constants = dataclasses.replace(EQUAL, parameters=(one, other), first_difference=place)

    assert EQUAL.verdict == "equal: m.onnx on local"
    assert bits.verdict == (
        f"not equal: first difference at {place}: 3 of 40 bits differ, the first at [1, 0, 2]"
    )
    assert constants.verdict == (
        f"not equal: first difference at {place}: {place}.a is not what the reference exports to: "
        "bad (and 1 more parameters)"
    )
    inside = dataclasses.replace(EQUAL, onnx=constants, first_difference=place)
    assert inside.verdict.startswith(f"not equal: its ONNX file: first difference at {place}: ")
    broken = dataclasses.replace(EQUAL, faults=("vitc-run is another file", "so is the header"))
    assert broken.verdict == "not equal: vitc-run is another file (and 1 more)"


def test_another_checkpoint_comes_first() -> None:
    known = dataclasses.replace(EQUAL, made_from="a" * 64, reference_sha256="b" * 64)
    differs = dataclasses.replace(known, layers=(LAYER,), first_difference=LAYER.name)

    other = "made from another checkpoint than the reference"
    assert differs.verdict.startswith(f"not equal: {other}; first difference at ")
    assert known.verdict.endswith(f", though {other} (the same numbers)")
    assert not dataclasses.replace(known, reference_sha256=None).of_another_checkpoint


def test_one_class_is_never_given_instead_of_itself() -> None:
    same, other = (DifferingImage(3, "", 7, to, 0.25, explained=False) for to in (7, 2))
    report = dataclasses.replace(EQUAL, differing_images=(same,), first_difference="logits")

    assert same.what == "image 3: logits differ by 0.25, the class is 7 in both"
    assert other.what == "image 3: class 2 instead of 7, logits differ by 0.25"
    assert report.verdict == (
        f"not equal: first difference at logits: {same.what}, and no near tie explains it"
    )


def test_near_ties_are_all_counted_and_the_first_hundred_listed() -> None:
    comparison = TapComparison()
    pre = torch.full((2, 150), -1e-9, dtype=torch.float64)

    for _ in range(2):
        with torch.no_grad(), RoundingErrors() as errors:
            event = TapEvent("x", "bits", ops.binarize((pre + 1) - 1))
        comparison.judge(event, (pre < 0).to(torch.uint8).numpy(), errors)

    report = dataclasses.replace(
        EQUAL, layers=comparison.layers, near_ties=tuple(comparison.near_ties)
    )
    assert report.layers[0].mismatches == 0
    assert not report.layers[0].equal, "all bits of a layer are no chance"
    assert report.near_tie_count == report.to_dict()["near_tie_count"] == 600
    assert len(report.near_ties) == 100
