"""`--report` of check and bench: one HTML file that needs no other, and escapes all it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.page import Page
from vitc.cli.report import write_report
from vitc.outputs import claim_file

EVIL = "<script>alert('x')</script>\"&"


def test_check_writes_a_report(vitc: Any, built: Any, tmp_path: Path) -> None:
    path = tmp_path / "check.html"
    done = vitc("check", built.artefact, "--reference", built.checkpoint, "--report", path)
    assert done.code == 0, done.err
    page = Page(path)
    assert "vitc check" in page.text
    assert "blocks.0.attn.output" in page.text
    assert "largest difference" in page.text
    assert "Its ONNX file" in page.text
    assert "weights" in page.text
    assert "architecture" in page.text
    assert "script" not in page.tags


def test_bench_writes_a_report_with_each_layer(vitc: Any, built: Any, tmp_path: Path) -> None:
    path = tmp_path / "bench.html"
    done = vitc(
        "bench", built.artefact, "--baseline", "none", "--runs", 30, "--profile", "--report", path
    )
    assert done.code == 0, done.err
    page = Page(path)
    assert "median" in page.text
    assert "blocks.*.attn.output" in page.text
    assert "temperature_c" in page.text or "conditions" in page.text


def test_whatever_is_shown_is_escaped(tmp_path: Path) -> None:
    layer = {
        "name": EVIL,
        "kind": EVIL,
        "values": 1,
        "mismatches": 1,
        "near_ties": 0,
        "max_error": 1.0,
    }
    result = {
        "candidate": EVIL, "device": EVIL, "equal": False, "first_difference": EVIL, "images": 1,
        "layer_images": 1, "outputs": [{"name": EVIL, "max_difference": 0.5, "tolerance": 0.1}],
        "top1_agreement": 0.5, "accuracy": {"reference": 0.5, "candidate": 0.25},
        "faults": [EVIL], "layers": [layer],
        "near_ties": [{"tap": EVIL, "index": [0, 1], "margin": 1e-9, "bound": 1e-8}],
        "parameters": {"differences": [{"layer": EVIL, "name": EVIL, "detail": EVIL}]},
        "differing_images": [{"index": 0, "name": EVIL, "reference": 0, "candidate": 1,
                              "output": EVIL, "logit_difference": 0.5, "explained": False}],
        "onnx": None,
    }  # fmt: skip
    machine = {EVIL: EVIL, "list": [EVIL]}
    with claim_file(tmp_path / "r.html") as output:
        write_report(output, EVIL, result, machine=machine, sizes={EVIL: 3})
    page = Page(tmp_path / "r.html")
    assert "script" not in page.tags
    assert page.text.count("alert('x')") >= 12


@pytest.mark.parametrize("option", ["--report", "--json"])
def test_a_file_that_cannot_be_written_is_an_error_before_the_check_and_leaves_nothing(
    vitc: Any, built: Any, tmp_path: Path, option: str
) -> None:
    (tmp_path / "folder").mkdir()
    command = ["check", built.artefact, "--reference", built.checkpoint, option]
    for name in ("no/r.html", "folder"):
        done = vitc(*command, tmp_path / name)
        assert done.code == 1
        assert f"{name} cannot be written" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("option", ["--report", "--json"])
def test_a_file_that_exists_is_kept_unless_forced(
    vitc: Any, built: Any, tmp_path: Path, option: str
) -> None:
    (tmp_path / "r").write_text("old")
    arguments = ["check", built.onnx, "--reference", built.checkpoint, option, tmp_path / "r"]
    done = vitc(*arguments)
    assert done.code == 1
    assert "r exists already" in done.err
    assert "--force" in done.err
    assert (tmp_path / "r").read_text() == "old"
    assert vitc(*arguments, "--force").code == 0
    assert (tmp_path / "r").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
