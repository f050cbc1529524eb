"""Cache and scratch folders fall back where a place cannot be used, or name it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from vitc.errors import VitcError
from vitc.places import find_cache, scratch_folder

NOWHERE = "/proc/1/nowhere"
"""Where nobody can make a folder, root included."""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_cache_lies_where_the_user_says(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    assert find_cache().folder == tmp_path / "cache" / "vitc"
    assert find_cache().folder.is_dir()
    assert find_cache().passed_over == ""


@pytest.mark.parametrize("stated", ["", "relative", "./x"])
def test_a_variable_that_is_no_absolute_path_counts_as_absent(
    tmp_path, monkeypatch, stated
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", stated)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert find_cache().folder == tmp_path / "home" / ".cache" / "vitc"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("kind", ["file", "nowhere", "read-only"])
def test_a_cache_that_cannot_be_written_falls_back_and_says_why(
    tmp_path, temporary, monkeypatch, kind
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "read-only").mkdir(mode=0o500)
    if kind == "read-only" and os.getuid() == 0:
        kind = "nowhere"  # root writes there all the same
    place = NOWHERE if kind == "nowhere" else str(tmp_path / kind)
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    monkeypatch.setenv("HOME", NOWHERE)

    found = find_cache()

    assert found.folder == temporary / f"vitc-{os.getuid()}" / "vitc"
    assert f"{place} (XDG_CACHE_HOME) cannot be written: " in found.passed_over


def test_no_place_at_all_is_named(monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", NOWHERE)
    monkeypatch.setenv("XDG_CACHE_HOME", NOWHERE + "/a")
    monkeypatch.setenv("HOME", NOWHERE + "/b")

    with pytest.raises(VitcError, match=r"nowhere/a \(XDG_CACHE_HOME\).*nowhere/b/.cache \(HOME\)"):
        find_cache()


def test_a_full_temporary_folder_is_named(temporary) -> None:
    with (
        pytest.raises(VitcError, match="is full") as caught,
        scratch_folder("test"),
        Path("/dev/full").open("wb") as stream,
    ):
        np.zeros(100_000).tofile(stream)  # its error has no number

    assert str(temporary) in caught.value.message
    assert list(temporary.iterdir()) == []


def test_an_error_of_another_kind_passes(temporary) -> None:
    with pytest.raises(FileNotFoundError), scratch_folder("test") as folder:
        (folder / "none").read_bytes()


def test_a_full_disk_by_its_number_is_named(temporary) -> None:
    with pytest.raises(VitcError, match="is full"), scratch_folder("test"):
        raise OSError(errno.ENOSPC, "No space left on device")


def vitc(folder: Path, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", line, sys.executable],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
    )


def test_a_deleted_current_folder_is_named_before_anything_loads(tmp_path) -> None:
    (tmp_path / "gone").mkdir()
    leave = "cd gone && rmdir ../gone && exec "

    done = vitc(tmp_path, leave + '"$0" -m vitc new micro --out m.safetensors')
    table = vitc(tmp_path, "mkdir gone && " + leave + '"$0" -m vitc models')

    assert done.returncode == 1
    assert done.stderr.startswith("error: The current folder was deleted.")
    assert table.returncode == 0


def test_too_little_address_space_is_named(tmp_path) -> None:
    done = vitc(
        tmp_path,
        'ulimit -v 700000 && exec "$0" -m vitc train --epochs 1 --depth 1 --out m.safetensors',
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
    )

    assert done.returncode == 1
    assert "error: There is not enough memory: the address space is limited to 0.7 GB." in (
        done.stderr
    )
    assert "Traceback" not in done.stderr


def test_doctor_names_a_cache_that_it_could_not_use(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    done = vitc(
        tmp_path,
        '"$0" -m vitc doctor',
        XDG_CACHE_HOME=str(tmp_path / "file"),
        HOME=NOWHERE,
    )

    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'file'} (XDG_CACHE_HOME) cannot be written" in done.stdout
    assert "links" in done.stdout


def test_onnx_runtime_leaves_nothing_in_the_cache_folder(tmp_path) -> None:
    code = """
import numpy as np, onnx
from onnx import TensorProto, helper
from vitc.onnx_files import session
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
model = helper.make_model(
    helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]),
    opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.save(model, "m.onnx")
for confined in (False, True):
    opened = session("m.onnx", confined=confined)
    assert opened.run(["y"], {"x": np.ones(1, np.float32)})[0] == 1
"""
    (tmp_path / "home").mkdir()
    (tmp_path / "try.py").write_text(code)
    environment = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    done = vitc(tmp_path, '"$0" try.py', **environment)

    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "home").rglob("*")) == []
