"""Reports in a real browser: nothing sticks out, runs or is missing, and all is legible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, Tab
from tests.cli.page import Page
from tests.cli.pages import full
from vitc.training.options import EpochReport
from vitc.training.progress_files import curve

WIDTHS = (1280, 400)
LEAST_CONTRAST = 4.5
"""Of text, WCAG 2.2 AA (1.4.3)."""


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, long and hostile."""
    folder = tmp_path_factory.mktemp("reports")
    history = [EpochReport(n, 2, 1.0 / n, 0.1, 1.0, measures={"right": 0.5}) for n in (1, 2)]
    curve(history, {"right": "accuracy"}, 2, "title").savefig(folder / "curve.png")
    full(folder / "r.html", curve=(folder / "curve.png").read_bytes())
    return folder / "r.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_fits_and_is_legible(
    browser: Browser, hard: Path, width: int, dark: bool
) -> None:
    tab = browser.open(width, dark=dark)
    tab.go(hard.as_uri())
    assert tab.ask("innerWidth") == width
    assert tab.complaints() == []
    assert tab.overflow() == {}
    assert tab.ask("document.images.length") == 1
    assert tab.ask("document.images[0].naturalWidth") > 0
    for element in ("body", "h1", "h3", ".quiet", ".bad", ".key", "th", "pre"):
        assert contrast(tab, element) >= LEAST_CONTRAST, element
    light = sum(colour(tab, "body", "background-color")) / 3
    assert (light < 128) is dark


def test_a_report_has_the_elements_that_are_written_and_runs_nothing(
    browser: Browser, hard: Path
) -> None:
    tab = browser.open()
    tab.go(hard.as_uri())
    found = tab.ask("[...document.querySelectorAll('*')].map(each => each.localName)")
    written = Page(hard).counts
    counts = {name: found.count(name) for name in found if name != "tbody"}  # a parser's own
    assert counts == dict(written)
    assert "script" not in counts
    assert tab.ask("document.compatMode") == "CSS1Compat"
    assert tab.complaints() == []


def test_the_verdict_is_largest_and_the_machine_folded(browser: Browser, hard: Path) -> None:
    tab = browser.open()
    tab.go(hard.as_uri())
    sizes = tab.ask(
        "[...document.querySelectorAll('body *')].map(each => parseFloat(getComputedStyle(each)"
        ".fontSize))"
    )
    assert sizes[0] == max(sizes)
    assert sizes[0] > 1.5 * max(sizes[1:])
    assert tab.ask("document.body.firstElementChild.localName") == "h1"
    folded = tab.ask(
        "[...document.querySelectorAll('details:not([open]) > summary')].map(e => e.textContent)"
    )
    assert "Machine" in folded
    longest = tab.ask("[...document.querySelectorAll('.bars .fill')].map(e => e.offsetWidth)")
    assert longest[0] * 4 == pytest.approx(longest[1], rel=0.02)  # 0.5 ms beside 2 ms


def test_a_report_of_a_check_fits(
    vitc: Any, built: Any, browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "check.html"
    done = vitc(
        "check", built.artefact, "--reference", built.checkpoint, "--data", "digits",
        "--no-rebuild", "--report", path,
    )  # fmt: skip
    assert done.code == 0, done.err
    for width in WIDTHS:
        tab = browser.open(width)
        tab.go(path.as_uri())
        assert tab.overflow() == {}
        assert tab.complaints() == []
        assert tab.ask("document.querySelectorAll('.matrix tr').length") == 11


def colour(tab: Tab, element: str, what: str) -> list[float]:
    """Red, green and blue in 0 .. 255 of the first such element; of what shines through it."""
    found: list[float] = tab.ask(
        f"""(() => {{
          for (let each = document.querySelector('{element}'); each; each = each.parentElement) {{
            const parts = getComputedStyle(each)['{what}'].match(/[\\d.]+/g).map(Number);
            if (parts.length < 4 || parts[3] > 0) return parts.slice(0, 3);
          }}
        }})()"""
    )
    return found


def contrast(tab: Tab, element: str) -> float:
    """Contrast ratio of text and what it stands on, as WCAG 2.2 defines it."""

    def luminance(parts: list[float]) -> float:
        shares = [part / 255 for part in parts]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return sum(f * s for f, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    text = luminance(colour(tab, element, "color"))
    ground = luminance(colour(tab, element, "background-color"))
    return (max(text, ground) + 0.05) / (min(text, ground) + 0.05)
