"""`--report` of check and bench: one HTML file that needs no other, and escapes all it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.page import Page
from tests.cli.pages import EVIL, bench, full
from vitc.cli.report import Report, Subject, Verdict, latencies, write_report
from vitc.outputs import claim_file


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
    full(tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert "script" not in page.tags
    assert page.text.count("alert('x')") >= 30


def test_the_verdict_comes_first_and_then_the_network(
    vitc: Any, built: Any, tmp_path: Path
) -> None:
    path = tmp_path / "check.html"
    assert vitc("check", built.onnx, "--reference", built.checkpoint, "--report", path).code == 0
    body = Page(path).source.partition("<body>")[2].strip()
    assert body.startswith('<h1 class="good">equal</h1>')
    assert "sibivit" in body.splitlines()[1]
    assert "1 block, width 64" in body.splitlines()[1]
    assert "10 classes" in body.splitlines()[1]


def test_verdicts_of_a_bench() -> None:
    timed = bench()
    assert Verdict.of_bench(timed).text == f"4.00 times as fast as the {EVIL}"
    assert Verdict.of_bench({**timed, "ratio": None}).text == "0.500 ms for a batch of 1"
    assert not Verdict.of_bench({**timed, "emulated": True}).good


@pytest.mark.parametrize(
    ("scale", "row"),
    [(1, ["0.500", "0.400", "0.600", "0.300"]), (0.05, ["25.00", "20.00", "30.00", "15.00"])],
)
def test_times_have_the_digits_of_their_bars(tmp_path: Path, scale: float, row: list[str]) -> None:
    timed = bench()
    times = {name: time * scale for name, time in timed["latency_ms"].items()}
    quick = {**timed, "latency_ms": times}
    report = Report("x", Subject("x", "", {}), Verdict("x", True), latencies(quick), bench=quick)
    with claim_file(tmp_path / "r.html") as output:
        write_report(output, report)
    page = Page(tmp_path / "r.html")
    unit = "us" if scale < 1 else "ms"
    assert f"Latency, {unit} for a batch of 1" in page.text
    assert f"{row[0]} {unit}" in page.text  # of the bar
    assert "".join(row) in page.text


def test_labelled_images_are_shown_by_class(vitc: Any, built: Any, tmp_path: Path) -> None:
    path = tmp_path / "check.html"
    done = vitc(
        "check", built.artefact, "--reference", built.checkpoint, "--data", "digits",
        "--no-rebuild", "--report", path, "--json", "-",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = done.json["confusion"]
    assert found["labels"] == [str(digit) for digit in range(10)]
    assert found["reference"] == found["candidate"]
    assert sum(count for *_, count in found["candidate"]) == done.json["images"] == 360
    right = sum(count for label, given, count in found["candidate"] if label == given)
    assert right / 360 == done.json["accuracy"]["candidate"]
    text = Page(path).text
    assert "Accuracy of each class" in text
    assert "Confusion matrix" in text


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
