"""Text of a user, a file or a label is shown letter by letter, on any stream and at any width."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from vitc.cli.streams import printable
from vitc.cli.tables import table

NAMES = ["[old] two.png", ":dog: x.png", "a[/b].png", "[/x].png", "[bold red].png"]


def program(
    *arguments: object, line: str = '"$0" -m vitc "$@"', folder: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """`vitc` as a process of its own, started by a line of shell."""
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "VITC_DEBUG")}
    return subprocess.run(
        ["/bin/sh", "-c", line, sys.executable, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=600,
        cwd=folder,
        env=environment | more,
        check=False,
    )


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in NAMES if "/" not in name]
    for folder in ("a[", "["):
        (tmp_path / folder).mkdir()
    paths += [tmp_path / "a[" / "b].png", tmp_path / "[" / "x].png"]
    for path in paths:
        Image.new("L", (32, 32)).save(path)
    return paths


def test_names_that_look_like_markup_or_emoji_are_printed_as_they_are(
    vitc, built, pictures, monkeypatch
) -> None:
    monkeypatch.chdir(pictures[0].parent)
    names = [str(path.relative_to(pictures[0].parent)) for path in pictures]
    outcome = vitc("run", built.artefact, *names, "--topk", 1)

    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()[1:]
    assert [line[: len(name)] for name, line in zip(names, lines, strict=True)] == names


def test_an_artefact_folder_that_looks_like_markup_is_run_and_checked_and_inspected(
    vitc, built, pictures, tmp_path
) -> None:
    folder = tmp_path / "[/x] :dog:"
    shutil.copytree(built.artefact, folder)

    for arguments in (
        ["run", folder, pictures[0]],
        ["check", folder, "--reference", built.checkpoint, "--images", 1],
        ["inspect", folder],
        ["bench", folder, "--runs", 30, "--baseline", "none"],
    ):
        outcome = vitc(*arguments)
        assert outcome.code == 0, outcome.err
        assert "[/x] :dog:" in outcome.out + outcome.err or arguments[0] == "inspect"


def test_an_error_shows_a_name_that_looks_like_markup(vitc, built) -> None:
    outcome = vitc("run", built.artefact, "[red]none[/red].png")

    assert outcome.code == 1
    assert "[red]none[/red].png" in outcome.err


@pytest.mark.parametrize("arguments", [["[/bold]"], ["new", "micro", "--[/x]"]])
def test_wrong_usage_shows_what_looks_like_markup(vitc, arguments) -> None:
    outcome = vitc(*arguments)

    assert outcome.code == 2
    assert arguments[-1] in outcome.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_letters_that_the_encoding_lacks_are_escaped(built, pictures, tmp_path, encoding) -> None:
    name = tmp_path / "猫.png"
    shutil.copy(pictures[0], name)

    done = program("run", built.artefact, name, PYTHONIOENCODING=encoding)

    assert done.returncode == 0, done.stderr
    assert "\\u732b.png" in done.stdout


def test_help_is_whole_in_any_encoding(built) -> None:
    for encoding in ("latin-1", "ascii"):
        done = program("compile", "--help", PYTHONIOENCODING=encoding)
        assert done.returncode == 0
        assert done.stdout.isascii()
        assert "--no-check" in done.stdout


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_help_keeps_the_names_of_options_at_any_width(columns) -> None:
    done = program("compile", "--help", COLUMNS=str(columns))

    assert "--allow-external-data" in done.stdout
    assert "…" not in done.stdout


def test_a_name_that_is_no_unicode_is_shown_and_kept(built, pictures, tmp_path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff.png")
    shutil.copy(pictures[0], name)

    done = program("run", built.artefact, name)

    assert done.returncode == 0, done.stderr
    assert "\\udcff.png" in done.stdout


def test_a_name_cannot_drive_the_terminal(vitc, built) -> None:
    outcome = vitc("run", built.artefact, "a\x1b[31m\rb.png")

    assert "a\\x1b[31m\\rb.png" in outcome.err
    assert "\x1b" not in outcome.err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_silence(closed) -> None:
    done = program("models", line=f'"$0" -m vitc "$@" {closed}')

    assert done.returncode == 0
    assert done.stderr == ""
    assert ("deit-tiny" in done.stdout) == (">&-" not in closed or closed == "2>&-")


def test_nothing_lands_in_a_file_that_got_the_number_of_a_closed_stream(tmp_path) -> None:
    done = program(
        "new", "micro", "--depth", 1, "--out", tmp_path / "m.safetensors",
        line='"$0" -m vitc "$@" <&- >&- 2>&-',
    )  # fmt: skip
    whole = program("inspect", tmp_path / "m.safetensors")

    assert (done.returncode, whole.returncode) == (0, 0), whole.stderr


def test_results_that_cannot_be_written_are_an_error() -> None:
    done = program("models", line='"$0" -m vitc "$@" >/dev/full')

    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "No space left" in done.stderr


@pytest.mark.parametrize(
    ("asked", "options"), [({}, []), ({"VITC_DEBUG": "1"}, []), ({}, ["-W", "default"])]
)
def test_what_libraries_say_to_programmers_is_heard_by_who_asks(asked, options) -> None:
    code = (
        "import warnings; from vitc.cli.streams import quiet_libraries; quiet_libraries(); "
        "warnings.warn('old name', FutureWarning)"
    )
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"} | asked,
    )
    assert ("old name" in done.stderr) == bool(asked or options)


def test_a_reader_that_goes_away_gets_no_complaint() -> None:
    done = program("models", line='"$0" -m vitc "$@" | true')

    assert done.stderr == ""


@pytest.mark.parametrize("module", ["vitc", "vitc.cli", "vitc.cli.main"])
def test_each_module_that_names_the_program_runs_it(module) -> None:
    done = program("--version", line=f'"$0" -m {module} "$@"')

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("vitc 0.")


def shown(width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    rows = [["blocks.0.attn.move_fc", "12480", "why it is not binary: a long reason"]]
    console.print(table(("layer", ">params", "why"), rows))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [12, 30, 50, 80])
def test_a_table_keeps_every_letter_at_any_width(width) -> None:
    text = shown(width)

    assert "blocks.0.attn.move_fc" in text.replace("\n", "").replace(" ", "")
    assert "12480" in text
    for word in ("why", "long", "reason"):
        assert word in text
    assert max(map(len, text.splitlines())) <= width


def test_a_table_breaks_between_words_while_it_can() -> None:
    lines = shown(50).splitlines()

    assert lines[1].split()[:2] == ["blocks.0.attn.move_fc", "12480"]
    assert len(lines) > 2


def test_printable_text_is_left_alone() -> None:
    assert printable("a  é猫\u3000b") == "a  é猫\u3000b"
    assert printable("a\nb\t", keep="\n") == "a\nb\\t"
    assert printable("\u2028\ud800") == "\\u2028\\ud800"
    assert printable("\u202egnp.exe\u2066") == "\\u202egnp.exe\\u2066"
    assert printable("👩\u200d🚀") == "👩\u200d🚀"  # joiners turn nothing


def test_a_name_that_is_no_unicode_can_be_compiled_and_run(built, pictures, tmp_path) -> None:
    onnx, folder = (os.fsdecode(bytes(tmp_path) + name) for name in (b"/\xff.onnx", b"/o\xff"))
    shutil.copy(built.onnx, onnx)

    compiled = program("compile", onnx, "--out", folder)
    ran = program("run", folder, pictures[0])

    assert compiled.returncode == 0, compiled.stderr
    assert "o\\udcff" in compiled.stderr
    assert ran.returncode == 0, ran.stderr
