"""What `vitc bench` and `vitc check` say of every board of a farm: one table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vitc.cli.durations import unit_of
from vitc.cli.output import Output
from vitc.cli.report import Bars, Report, Subject, Verdict, accuracies, write_report
from vitc.cli.tables import plain, table
from vitc.errors import ExitCode
from vitc.outputs import FileOutput

if TYPE_CHECKING:
    from vitc.bench import BenchReport
    from vitc.devices.farm import Finding
    from vitc.verify.report import CheckReport

__all__ = ["show_benches", "show_checks"]

Found = TypeVar("Found", "BenchReport", "CheckReport")


def show_benches(
    output: Output,
    artefact: Path,
    findings: Sequence[Finding[BenchReport]],
    report: FileOutput | None,
) -> int:
    """Show, write and report times by board.

    Returns:
        The exit code of the command.
    """
    timed = [(each, each.found) for each in findings if each.found is not None]
    unit = unit_of(found.latency.median for _, found in timed)
    rows: list[tuple[str, ...]] = []
    for each in findings:
        found = each.found
        if found is None:
            rows.append((each.board, "", "failed", "", "", "", "", ""))
            continue
        times = (found.latency.median, found.latency.p10, found.latency.p90, found.latency.min)
        cpu = str(found.machine.get("cpu", ""))
        state = "emulated" if found.emulated else "timed"
        numbers = [unit.number(time) for time in times]
        rows.append((each.board, cpu, state, str(found.threads), *numbers))
    columns = ("board", "processor", "", ">threads", f">median {unit.name}", ">p10", ">p90", ">min")
    output.show(table(columns, rows))
    for each, found in timed:
        for warning in found.warnings:
            output.note(f"warning: {each.board}: {warning}")
    failures = _show_failures(output, findings)
    output.result(_document(findings))
    if report is not None:
        medians = [
            (each.board, found.latency.median, unit.text(found.latency.median))
            for each, found in timed
        ]
        longest = max((median for _, median, _ in medians), default=0.0)
        page = Report(
            title=f"Latency of {artefact}",
            subject=Subject.of(artefact),
            verdict=_verdict(f"timed on {_boards(len(timed))}", failures, len(findings)),
            bars=[Bars("Latency by board, median", medians, longest)] if medians else [],
            machine={each.board: found.machine for each, found in timed},
        )
        write_report(report, page)
    return int(ExitCode.ERROR) if failures else 0


def show_checks(
    output: Output,
    artefact: Path,
    findings: Sequence[Finding[CheckReport]],
    report: FileOutput | None,
) -> int:
    """Show, write and report what a check found by board.

    Returns:
        The exit code of the command.
    """
    checked = [(each, each.found) for each in findings if each.found is not None]
    rows: list[tuple[str, ...]] = []
    for each in findings:
        found = each.found
        if found is None:
            rows.append((each.board, "failed", "", "", "", "", ""))
            continue
        accuracy = "" if found.accuracy is None else f"{found.accuracy.candidate:.2%}"
        rows.append(
            (
                each.board,
                "equal" if found.equal else "not equal",
                str(found.images),
                accuracy,
                str(found.near_tie_count),
                f"{found.max_logit_difference:.3g}",
                str(found.machine.get("cpu", "")),
            )
        )
    columns = (
        "board", "", ">images", ">accuracy", ">near ties", ">max difference", "processor",
    )  # fmt: skip
    output.show(table(columns, rows))
    wrong = [(each, found) for each, found in checked if not found.equal]
    for each, found in wrong:
        output.show(plain(f"{each.board}: {found.verdict}", "red"))
    failures = _show_failures(output, findings)
    output.result(_document(findings))
    if report is not None:
        good = f"equal on {_boards(len(checked) - len(wrong))}"
        failures = [*(f"{each.board}: {found.verdict}" for each, found in wrong), *failures]
        documents = [found.to_dict() for _, found in checked]
        page = Report(
            title=f"Check of {artefact}",
            subject=Subject.of(artefact),
            verdict=_verdict(good, failures, len(findings)),
            bars=[bars for document in documents for bars in accuracies(document)],
            checks=documents,
            machine={each.board: found.machine for each, found in checked},
        )
        write_report(report, page)
    if wrong:
        return int(ExitCode.NOT_EQUAL)
    return int(ExitCode.ERROR) if failures else 0


def _show_failures(output: Output, findings: Sequence[Finding[Found]]) -> list[str]:
    """Say of each board that failed why, at the end; the sentences."""
    failed = [(each, each.error) for each in findings if each.error is not None]
    sentences = [_sentence(each.board, error.message) for each, error in failed]
    output.show(*(plain(sentence, "red") for sentence in sentences))
    for hint in dict.fromkeys(error.hint for _, error in failed if error.hint):
        output.note(hint)
    return sentences


def _sentence(board: str, message: str) -> str:
    return message if message.startswith(board) else f"{board}: {message}"


def _document(findings: Sequence[Finding[Found]]) -> dict[str, Any]:
    return {
        "boards": [
            {
                "board": each.board,
                "kind": each.kind,
                "address": each.address,
                "error": None if each.error is None else each.error.message,
                "result": None if each.found is None else each.found.to_dict(),
            }
            for each in findings
        ],
        "failed": [each.board for each in findings if each.error is not None],
    }


def _verdict(good: str, failures: Sequence[str], boards: int) -> Verdict:
    if not failures:
        return Verdict(good, True)
    return Verdict(f"{len(failures)} of {_boards(boards)} failed", False, " ".join(failures))


def _boards(count: int) -> str:
    return f"{count} board{'' if count == 1 else 's'}"
