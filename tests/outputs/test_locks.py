"""Two runs never write one output, and what a killed run left is swept, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitc.errors import VitcError
from vitc.outputs import check_file, claim_file, claim_folder, write_file
from vitc.outputs.hidden import hidden_name, lock_name

HOLDER = """
import os, sys, time
from pathlib import Path
from vitc.outputs import claim_file, claim_folder
path, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "file":
    with claim_file(path) as output, output.aside() as part:
        part.write_text("half")
        print("ready", flush=True)
        time.sleep(3600)
else:
    with claim_folder(path, marker="m") as output, output.scratch() as scratch:
        (scratch / "half").write_text("half")
        if kind == "forked" and os.fork():
            time.sleep(3600)  # it is the child that is ready
        print("ready", flush=True)
        time.sleep(3600)
"""


class Holder:
    """Another process that is writing an output."""

    def __init__(self, path: Path, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), kind], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_process_fails_with_a_sentence_and_the_first_goes_on(tmp_path: Path) -> None:
    holder = Holder(tmp_path / "a", "file")
    try:
        with pytest.raises(VitcError, match=f"Another run.*{holder.process.pid}.*writing.*a"):
            write_file(tmp_path / "a", "mine", force=True)
        assert holder.process.poll() is None
        assert len(names(tmp_path)) == 2  # the lock and what is half done
    finally:
        holder.kill()


def test_the_lock_is_of_the_file_that_a_link_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a")
    with claim_file(tmp_path / "a"), pytest.raises(VitcError, match="Two outputs"):
        check_file(tmp_path / "link")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path: Path, kind: str) -> None:
    Holder(tmp_path / "a", kind).kill()
    assert len(names(tmp_path)) == 2
    if kind == "file":
        write_file(tmp_path / "a", "mine")
        assert names(tmp_path) == ["a"]
    else:
        with claim_folder(tmp_path / "a", marker="m"):
            pass
        assert names(tmp_path) == []


def test_a_child_that_outlives_a_killed_run_holds_no_lock(tmp_path: Path) -> None:
    holder = Holder(tmp_path / "a", "forked")
    children = Path(f"/proc/{holder.process.pid}/task/{holder.process.pid}/children")
    child = int(children.read_text().split()[0])
    try:
        holder.kill()
        os.kill(child, 0)
        with claim_folder(tmp_path / "a", marker="m"):
            pass
    finally:
        os.kill(child, 9)


def test_only_what_vitc_makes_for_this_output_is_swept(tmp_path: Path) -> None:
    stale = hidden_name(tmp_path / "m.onnx")
    stale.touch()
    kept = [
        hidden_name(tmp_path / "m"),
        hidden_name(tmp_path / "other.onnx"),
        tmp_path / ".m.onnx.backup",
        tmp_path / ".m.onnx.0123456789abcdef",
        tmp_path / ".m.onnx.0123456789abcdef.vitc-part.bak",
        tmp_path / ".mxonnx.0123456789abcdef.vitc-part",
        tmp_path / "m.onnx.part",
    ]
    for path in kept:
        path.touch()
    check_file(tmp_path / "m.onnx")
    assert names(tmp_path) == sorted(path.name for path in kept)


def test_hidden_names_are_never_shared(tmp_path: Path) -> None:
    assert len({hidden_name(tmp_path / "a") for _ in range(100)}) == 100


def test_a_lock_that_was_left_is_taken_over(tmp_path: Path) -> None:
    lock_name(tmp_path / "a").write_text("1")
    write_file(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"]


def test_of_many_processes_that_start_at_once_one_writes(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom vitc.outputs import claim_file\n"
        "with claim_file(sys.argv[1]) as output:\n"
        "    time.sleep(0.3)\n    output.write(sys.argv[2])\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "a"), str(number)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    said = [process.communicate(timeout=600)[1] for process in running]
    won = [number for number, process in enumerate(running) if process.returncode == 0]
    assert len(won) == 1, said
    assert (tmp_path / "a").read_text() == str(won[0])
    assert names(tmp_path) == ["a"]
