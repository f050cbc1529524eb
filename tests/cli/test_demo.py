from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.page import Page
from vitc import demo as demo_module


def test_the_demo_ends_in_a_table_and_says_what_an_absent_emulator_costs(
    vitc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "_QUICK_EPOCHS", 1)
    monkeypatch.setattr(demo_module, "FORMS", ("packed",))
    monkeypatch.setattr(demo_module, "find_emulator", lambda _: None)
    monkeypatch.setattr(demo_module.platform, "machine", lambda: "x86_64")

    outcome = vitc("demo", "--quick", "--out", tmp_path / "demo")

    assert outcome.code == 0
    sides = ("PyTorch reference", "native artefact", "arm artefact", "full-precision twin")
    for words in (*sides, "skipped"):
        assert words in outcome.out
    assert "apt-get install qemu-user" in outcome.out
    assert str(tmp_path / "demo") in outcome.err
    made = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {"micro.safetensors", "micro.packed.onnx", "native", "arm", "report.html"} <= made

    path = tmp_path / "demo" / "report.html"
    assert outcome.err.splitlines()[-1] == f"report: {path}"
    page = Page(path)
    assert page.source.partition("<body>")[2].strip().startswith('<h1 class="good">equal, and ')
    for words in ("micro", "full-precision twin", "Accuracy of each class", "Confusion matrix"):
        assert words in page.text
    assert page.counts["img"] == 1

    again = vitc("demo", "--quick", "--out", tmp_path / "demo")
    assert again.code == 1
    assert "exists already" in again.err
