"""`vitc doctor`: whether everything vitc needs is here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import typer

from vitc.cli.options import Force, JsonTo
from vitc.cli.output import Output
from vitc.cli.tables import plain, table
from vitc.errors import ExitCode

__all__ = ["doctor"]

_STYLE: Final = {"ok": "green", "optional": "yellow", "missing": "red"}


def doctor(json_to: JsonTo = None, force: Force = False) -> None:
    """Try what vitc needs, and say how to get what is missing.

    Exit code 1 if something needed is missing.
    """
    from vitc.devices.diagnosis import diagnose

    output = Output(json_to, force=force)
    with output.working("trying what vitc needs") as say:
        findings = diagnose(say)
    output.show(
        table(
            ("", "what", "found", "what to do"),
            [(plain(f.state, _STYLE[f.state]), f.what, f.found, f.advice) for f in findings],
        )
    )
    output.result({"findings": [asdict(finding) for finding in findings]})
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(int(ExitCode.ERROR))
