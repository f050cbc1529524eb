"""What every command has: an example, names completed, a next step, and how loud it is."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.main import get_command

from vitc import names
from vitc.cli.examples import EXAMPLES
from vitc.cli.main import app
from vitc.cli.output import Loudness, loudness


def commands() -> dict[str, object]:
    """Every command, those of groups too, by its words."""
    found = {}
    for name, command in get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            found[name] = command
        else:
            found |= {f"{name} {each}": part for each, part in inner.items()}
    return found


def options(command) -> set[str]:
    return {option for each in command.params for option in (*each.opts, *each.secondary_opts)}


def test_every_command_has_an_example() -> None:
    assert EXAMPLES.keys() == commands().keys()


@pytest.mark.parametrize("words", EXAMPLES)
def test_help_ends_with_examples_of_options_that_there_are(vitc, words) -> None:
    help_text = vitc(*words.split(), "--help").out
    known = options(commands()[words])

    assert {"-q", "--quiet", "-v", "--verbose"} <= known
    for line in EXAMPLES[words]:
        assert help_text.rstrip().endswith(line) or f"  {line}\n" in help_text
        assert shlex.split(line)[1 : 1 + len(words.split())] == words.split()
        assert {word for word in shlex.split(line) if re.match("--[a-z]", word)} <= known


@pytest.mark.parametrize("words", EXAMPLES)
def test_examples_give_what_the_command_needs(words) -> None:
    command = commands()[words]
    for line in EXAMPLES[words]:
        context = command.make_context("vitc", [], resilient_parsing=True)
        given = shlex.split(line)[1 + len(words.split()) :]
        found, left, _ = command.make_parser(context).parse_args(given)
        needed = {each.name for each in command.params if each.required}
        assert not left, line
        assert needed <= {name for name, value in found.items() if value not in (None, ())}, line


def test_options_of_names_are_completed() -> None:
    known = {
        "--preset": names.PRESETS, "--scheme": names.SCHEMES, "--norm": names.NORMS,
        "--recipe": names.RECIPES, "--baseline": names.BASELINES, "--merge": names.MERGES,
        "--format": names.FORMATS, "--device": names.DEVICES, "--estimate": names.PROCESSORS,
    }  # fmt: skip
    tried = set()
    for command in commands().values():
        context = command.make_context("vitc", [], resilient_parsing=True)
        for each in command.params:
            for option in set(each.opts) & known.keys():
                found = [item.value for item in each.shell_complete(context, "")]
                assert set(found) == set(known[option].known), (command.name, option)
                tried.add(option)
    assert tried == known.keys()
    new = commands()["new"]
    preset = next(each for each in new.params if each.name == "preset")
    context = new.make_context("vitc", [], resilient_parsing=True)
    assert [item.value for item in preset.shell_complete(context, "deit-s")] == ["deit-small"]


def test_the_way_is_walked_by_what_each_step_says_comes_next(vitc, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome, walked = vitc("new", "micro", "--depth", 1), ["new"]
    while outcome.code == 0 and len(walked) < 6:
        (line,) = re.findall(r"^next: vitc (.*)$", outcome.err, re.MULTILINE)
        words = ["micro.safetensors" if word == "CKPT" else word for word in shlex.split(line)]
        quick = {"bench": ("--baseline", "none", "--runs", "30"), "tune": ("--help",)}
        walked.append(words[0])
        if words[0] == "tune":
            break
        outcome = vitc(*words, *quick.get(words[0], ()))
    assert outcome.code == 0, outcome.err
    assert walked == ["new", "export", "compile", "check", "bench", "tune"]
    written = {"micro.safetensors", "micro.onnx", "micro-native"}
    assert {path.name for path in tmp_path.iterdir()} == written


@pytest.mark.parametrize("silencer", [("-q",), ("--quiet",), ("--json", "-")])
def test_nothing_is_said_to_programs_and_to_the_quiet(vitc, built, silencer) -> None:
    loud = vitc("bench", built.artefact, "--baseline", "none", "--runs", 30)
    quiet = vitc("bench", built.artefact, "--baseline", "none", "--runs", 30, *silencer)

    assert "next: vitc tune" in loud.err
    assert "next:" not in quiet.err
    assert quiet.out
    if "json" not in silencer[0]:
        assert quiet.err == ""
        assert "median" in quiet.out


def test_quiet_says_errors_and_holds_for_one_command(vitc, tmp_path) -> None:
    outcome = vitc("inspect", tmp_path / "none", "-q")
    assert (outcome.code, outcome.err.count("error: ")) == (1, 1)
    made = vitc("new", "micro", "--depth", 1, "--out", tmp_path / "m.safetensors")
    assert "next: vitc export" in made.err
    assert loudness() is Loudness.USUAL


def test_verbose_says_where_an_error_comes_from(vitc, tmp_path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    usual = vitc("inspect", tmp_path / "m.onnx")
    verbose = vitc("inspect", tmp_path / "m.onnx", "-v")

    assert "Traceback" not in usual.err
    assert "Traceback" in verbose.err
    assert verbose.err.endswith(usual.err)


def test_a_default_name_does_not_replace_what_is_there(vitc, built, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("micro.safetensors").write_text("mine")
    Path("m.onnx").write_text("mine")
    shutil.copytree(built.artefact, "m-native")

    assert vitc("new", "micro").code == 1
    assert vitc("train", "--epochs", 1).code == 1
    assert vitc("export", built.checkpoint).code == 1
    assert vitc("compile", built.onnx).code == 1
    assert Path("micro.safetensors").read_text() == Path("m.onnx").read_text() == "mine"


def test_several_files_have_no_default_name(vitc, built) -> None:
    outcome = vitc("compile", f"a={built.onnx}", f"b={built.onnx}")
    assert outcome.code == 1
    assert "Add --out DIR." in outcome.err


def test_the_version_has_a_short_option(vitc) -> None:
    assert vitc("-V").out == vitc("--version").out
