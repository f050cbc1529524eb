"""Every command keeps what exists, checks its outputs before the work, and writes through pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitc.outputs import claim_file, claim_folder

HEAVY = ["torch", "tvm", "onnxruntime", "onnx_ir", "sklearn"]
PROBE = """
import sys
from vitc.cli.main import main
try:
    main()
finally:
    print("LOADED", *(n for n in {heavy!r} if n in sys.modules), file=sys.stderr)
"""
NEW = ["new", "micro", "--depth", 1]
TRAIN = ["train", "--depth", 1, "--epochs", 1]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32))
    return path


def writers(built: Any, inputs: Path) -> dict[str, list[object]]:
    """Commands that write a file, without its name."""
    return {
        "new": [*NEW, "--out"],
        "train": [*TRAIN, "--out"],
        "export": ["export", built.checkpoint, "--no-check", "--out"],
        "run": ["run", built.artefact, inputs, "--out"],
        "json": ["inspect", built.onnx, "--json"],
        "report": ["check", built.onnx, "--reference", built.checkpoint, "--report"],
    }


@pytest.mark.parametrize("command", ["new", "train", "export", "run", "json", "report"])
def test_an_existing_file_is_kept_and_named_with_force(
    vitc: Any, built: Any, inputs: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "o.safetensors"
    out.write_text("old")
    outcome = vitc(*writers(built, inputs)[command], out)
    assert outcome.code == 1
    assert "o.safetensors exists already" in outcome.err
    assert "--force" in outcome.err
    assert out.read_text() == "old"


@pytest.mark.parametrize("command", ["new", "export", "run", "json"])
def test_force_replaces_an_existing_file(
    vitc: Any, built: Any, inputs: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "o.safetensors"
    out.write_text("old")
    outcome = vitc(*writers(built, inputs)[command], out, "--force")
    assert outcome.code == 0, outcome.err
    assert out.stat().st_size > 100
    assert {path.name for path in tmp_path.iterdir()} == {"o.safetensors", "x.npy"}


@pytest.mark.parametrize("command", ["new", "train", "export", "run", "json", "report"])
def test_a_file_that_another_run_writes_is_refused(
    vitc: Any, built: Any, inputs: Path, tmp_path: Path, command: str
) -> None:
    with claim_file(tmp_path / "o.safetensors"):
        outcome = vitc(*writers(built, inputs)[command], tmp_path / "o.safetensors", "--force")
    assert outcome.code == 1
    assert "o.safetensors" in outcome.err
    assert not (tmp_path / "o.safetensors").exists()


def test_a_folder_that_another_run_makes_is_refused(vitc: Any, built: Any, tmp_path: Path) -> None:
    with claim_folder(tmp_path / "o", marker="manifest.json"):
        outcome = vitc("compile", built.onnx, "--out", tmp_path / "o")
    assert outcome.code == 1
    assert f"{tmp_path / 'o'}" in outcome.err


@pytest.mark.parametrize(
    "command", ["new", "train", "export", "run", "json", "report", "compile", "dump"]
)
def test_an_output_is_refused_before_any_framework_is_loaded(
    built: Any, inputs: Path, tmp_path: Path, command: str
) -> None:
    name = tmp_path / "o.safetensors"
    name.mkdir()
    (name / "work").touch()
    commands = {
        **writers(built, inputs),
        "compile": ["compile", built.onnx, "--out"],
        "dump": ["compile", built.onnx, "--out", tmp_path / "a", "--dump-ir"],
    }
    arguments = [str(argument) for argument in (*commands[command], name)]
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 1
    assert "o.safetensors" in done.stderr
    assert done.stderr.splitlines()[-1] == "LOADED"
    assert [path.name for path in name.iterdir()] == ["work"]


@pytest.mark.parametrize("command", ["new", "export", "run", "json"])
def test_a_pipe_gets_what_a_file_would_get(
    vitc: Any, built: Any, inputs: Path, tmp_path: Path, command: str
) -> None:
    # A checkpoint's name has to end so.
    pipe, file = tmp_path / "p.safetensors", tmp_path / "f.safetensors"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    outcome = vitc(*writers(built, inputs)[command], pipe)
    assert outcome.code == 0, outcome.err
    reader.join(600)
    assert vitc(*writers(built, inputs)[command], file).code == 0
    assert got == [file.read_bytes()]
    assert pipe.is_fifo()


def test_two_outputs_of_one_command_need_two_names(vitc: Any, built: Any, tmp_path: Path) -> None:
    command = ["check", built.onnx, "--reference", built.checkpoint]
    outcome = vitc(*command, "--json", tmp_path / "o", "--report", tmp_path / "o")
    assert outcome.code == 1
    assert "Two outputs" in outcome.err
    assert not (tmp_path / "o").exists()


def test_a_folder_of_dumps_is_kept_unless_forced(vitc: Any, built: Any, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.mkdir()
    (dump / "00-read.txt").write_text("old")
    command = ["compile", built.onnx, "--no-check", "--out", tmp_path / "a", "--dump-ir", dump]
    outcome = vitc(*command)
    assert outcome.code == 1
    assert "--force" in outcome.err
    assert (dump / "00-read.txt").read_text() == "old"
    assert vitc(*command, "--force").code == 0
    assert (dump / "00-read.txt").read_text() != "old"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "100%", "50%d a'b$HOME`x`"])
def test_a_folder_of_any_name_is_compiled_into(
    vitc: Any, built: Any, tmp_path: Path, name: str
) -> None:
    outcome = vitc("compile", built.onnx, "--no-check", "--out", tmp_path / name / name)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / name / name / "vitc-run").is_file()
    assert [path.name for path in (tmp_path / name).iterdir()] == [name]
