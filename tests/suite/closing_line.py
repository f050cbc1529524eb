"""The last lines of a run of the tests: its order, and what was skipped and why, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

__all__ = ["closing_line"]


def closing_line(reasons: Iterable[str]) -> str:
    """One sentence from the reason of each test that was skipped."""
    # A reason may be an error of several lines.
    counts = Counter(" ".join(reason.removeprefix("Skipped:").split()) for reason in reasons)
    if not counts:
        return "No test was skipped."
    listed = "; ".join(f"{count} ({reason})" for reason, count in counts.most_common())
    return f"Skipped {counts.total()} tests: {listed}"


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Write the line below all that pytest writes."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    # The workers of pytest-xdist have none.
    if reporter is None or not reporter.stats or config.option.collectonly:
        return
    seed = config.getoption("randomly_seed", None)
    if isinstance(seed, int):
        reporter.write_line(f"In random order, which --randomly-seed={seed} repeats.")
    skipped = reporter.stats.get("skipped", [])
    reporter.write_line(closing_line(report.longrepr[2] for report in skipped))
