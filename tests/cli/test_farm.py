"""A farm of boards behind TVM's own tracker: all at once, one table, and what becomes of a few.

Tracker and boards are processes of `vitc device` on loopback.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.cli.page import Page
from tests.devices.rpc_processes import Command, registered, wait_until_registered
from tests.devices.sshd import HANG_S, free_port, wait_for
from vitc import api
from vitc.compiler.link import run_zig
from vitc.devices import Device, RunRequest
from vitc.devices.farm import Farm, is_farm, on_every_board
from vitc.errors import VitcError
from vitc.runtime.arrays import probe_inputs

Start = Callable[..., Command]


@dataclass
class Boards:
    """A tracker, and the boards that it knows from the start."""

    tracker: int
    ports: dict[str, list[int]]
    commands: list[Command] = field(default_factory=list)

    def url(self, kinds: str, more: str = "") -> str:
        return f"rpc://127.0.0.1:{self.tracker}/{kinds}{more}"

    def named(self, kinds: str = "quick") -> list[str]:
        """What boards are called, in the order of the table."""
        return [
            f"{kind} at 127.0.0.1:{port}"
            for kind in sorted(self.ports)
            if kind.startswith(kinds)
            for port in sorted(self.ports[kind])
        ]

    def add(self, start: Start, kind: str) -> tuple[Command, str]:
        """Start a board; itself, and what it is called."""
        port = free_port()
        tracker = ("--tracker", f"127.0.0.1:{self.tracker}")
        command = start("serve", "--port", str(port), "--key", kind, *tracker)
        return command, f"{kind} at 127.0.0.1:{port}"


@pytest.fixture(scope="module")
def boards(start_rpc: Start) -> Boards:
    """Two boards of one kind and one of another."""
    made = Boards(free_port(), {"quick-a": [], "quick-b": []})
    made.commands.append(start_rpc("tracker", "--port", str(made.tracker)))
    for kind in ("quick-a", "quick-a", "quick-b"):
        command, name = made.add(start_rpc, kind)
        made.commands.append(command)
        made.ports[kind].append(int(name.rpartition(":")[2]))
    for kind, ports in made.ports.items():
        wait_until_registered(made.tracker, kind, len(ports))
    return made


def farm(boards: Boards, kinds: str, more: str = "") -> Farm:
    return Farm.parse(boards.url(kinds, more))


def kill(command: Command) -> None:
    """End a server and all it has started, as a loss of power does."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(command.process.pid)
        for each in (*process.children(recursive=True), process):
            each.kill()


def test_bench_times_every_board_and_shows_one_table(
    vitc: Any, built: Any, boards: Boards, tmp_path: Path
) -> None:
    report = tmp_path / "farm.html"
    done = vitc(
        "bench", built.artefact, "--device", boards.url("quick*"), "--runs", 30,
        "--json", tmp_path / "farm.json", "--report", report,
    )  # fmt: skip

    assert done.code == 0, done.err
    header, *rows = done.out.splitlines()
    assert header.split()[:3] == ["board", "processor", "threads"]
    assert [row.partition("  ")[0] for row in rows] == boards.named()
    found = json.loads((tmp_path / "farm.json").read_text())
    assert [each["board"] for each in found["boards"]] == boards.named()
    assert found["failed"] == []
    for each in found["boards"]:
        assert each["error"] is None
        assert each["result"]["runs"] == 30
        assert each["result"]["latency_ms"]["min"] > 0
        assert each["result"]["device"] == each["board"]
    page = Page(report)
    assert "timed on 3 boards" in page.text
    assert all(name in page.text for name in boards.named())


def test_trackers_and_boards_load_tvms_runtime_alone(boards: Boards) -> None:
    for command in boards.commands:
        process = psutil.Process(command.process.pid)
        family = [process, *process.children(recursive=True)]
        assert len(family) == 2
        for each in family:
            loaded = {Path(part.path).name for part in each.memory_maps()}
            assert any(name.startswith("libtvm_runtime") for name in loaded)
            assert not any(name.startswith(("libtorch", "libtvm_compiler")) for name in loaded)


def test_check_proves_every_board_of_a_kind(vitc: Any, built: Any, boards: Boards) -> None:
    done = vitc(
        "check", built.artefact, "--reference", built.checkpoint, "--device",
        boards.url("quick-a"), "--json", "-",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert [each["board"] for each in done.json["boards"]] == boards.named("quick-a")
    layers = {tuple(layer["name"] for layer in each["result"]["layers"])
              for each in done.json["boards"]}  # fmt: skip
    assert len(layers) == 1
    assert all(each["result"]["equal"] for each in done.json["boards"])
    assert all("library" in each["result"] for each in done.json["boards"])
    # What is no matter of a board is looked at once.
    assert done.err.count("checking the artefact's ONNX file") <= 1


def test_a_board_that_differs_is_exit_code_3(
    vitc: Any, built: Any, boards: Boards, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitc.devices.farm import _Board

    liar = boards.named("quick-a")[1]
    run = _Board.run

    def lying(self: _Board, artefact: Any, inputs: Any, request: RunRequest) -> Any:
        done = run(self, artefact, inputs, request)
        if self.name == liar:
            done.logits[:, 0] += 1
        return done

    monkeypatch.setattr(_Board, "run", lying)
    done = vitc(
        "check", built.artefact, "--reference", built.checkpoint, "--no-rebuild", "--device",
        boards.url("quick-a"),
    )  # fmt: skip

    assert done.code == 3
    (row,) = [line for line in done.out.splitlines() if line.startswith(f"{liar}  ")]
    assert "not equal" in row
    assert f"{liar}: not equal: first difference at logits" in done.out
    assert done.out.count("not equal") == 2


@pytest.mark.parametrize("command", ["bench", "check"])
def test_a_board_that_vanishes_in_the_middle_is_named_and_the_rest_reported(
    vitc: Any, built: Any, boards: Boards, start_rpc: Start, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, command: str,
) -> None:  # fmt: skip
    from vitc.devices.farm import _Board

    doomed, name = boards.add(start_rpc, "rare-z")
    wait_until_registered(boards.tracker, "rare-z")
    others = boards.named("quick-b")
    run, runs = _Board.run, []

    def dying(self: _Board, artefact: Any, inputs: Any, request: RunRequest) -> Any:
        done = run(self, artefact, inputs, request)
        if self.name == name:
            runs.append(self.name)
            kill(doomed)
        return done

    monkeypatch.setattr(_Board, "run", dying)
    given = {
        "bench": ["--runs", 30],
        "check": ["--reference", built.checkpoint, "--no-rebuild"],
    }[command]
    written = tmp_path / "farm.json"
    try:
        done = vitc(
            command, built.artefact, *given, "--device", boards.url("*-[bz]"), "--json", written
        )
    finally:
        kill(doomed)

    assert done.code == 1
    assert len(runs) == 1
    found = json.loads(written.read_text())
    assert found["failed"] == [name]
    assert [each["board"] for each in found["boards"]] == [*others, name]
    *rest, last = found["boards"]
    assert all(each["result"] is not None for each in rest)
    assert last["result"] is None
    assert last["error"].startswith(f"{name} failed: ")
    rows = done.out.splitlines()[1:3]
    assert [row.partition("  ")[0] for row in rows] == [*others, name]
    assert [row for row in rows if "failed" in row] == rows[1:]
    assert done.out.splitlines()[-1] == last["error"]
    assert wait_for(lambda: "rare-z" not in registered(boards.tracker), HANG_S)


def test_a_library_that_hangs_is_let_go_and_its_board_is_free_again(
    built: Any, boards: Boards, tmp_path: Path
) -> None:
    artefact = api.open(built.artefact)
    inputs = probe_inputs(artefact.entry.inputs, 1, 0)
    shutil.copytree(artefact.path, tmp_path / "hanging")
    hanging = replace(artefact, path=tmp_path / "hanging")
    (tmp_path / "hang.c").write_text("int __tvm_ffi_vitc_run(void) { for (;;); }\n")
    made = ["-target", artefact.target.link, "-shared", "-fPIC", str(tmp_path / "hang.c")]
    run_zig([*made, "-o", str(hanging.library)], tmp_path)

    (name,), others = boards.named("quick-b"), boards.named("quick-a")

    def work(board: Device) -> str:
        board.run(hanging if board.name == name else artefact, inputs, RunRequest())
        return board.name

    *done, hung = on_every_board(farm(boards, "quick*", "?limit=10"), work)
    assert [each.found for each in done] == others
    assert hung.error is not None
    assert hung.error.message == f"{name} was not done within 10 s and was let go."
    # The server ends what hangs there, so that the board is handed out again.
    (again,) = on_every_board(farm(boards, "quick-b", "?wait=200"), lambda board: board.name)
    assert again.found == name


def test_a_board_that_is_listed_and_not_handed_out_is_named(
    boards: Boards, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {"quick-b": [f"127.0.0.1:{boards.ports['quick-b'][0]}", "127.0.0.1:1"]}
    monkeypatch.setattr(Farm, "listed", lambda _: listed)
    findings = on_every_board(farm(boards, "quick-b"), lambda board: board.name)
    # The only board of the kind is free again when the first is done with it.
    ours, lost = sorted(findings, key=lambda each: each.error is not None)
    assert (ours.board, ours.found) == (boards.named("quick-b")[0],) * 2
    assert lost.board == "quick-b at 127.0.0.1:1"
    assert "listed and not handed out" in str(lost.error)


def test_one_board_does_all_that_is_asked_of_its_device(built: Any, boards: Boards) -> None:
    artefact = api.open(built.artefact)
    inputs = probe_inputs(artefact.entry.inputs, 1, 0)
    wanted = artefact(*inputs.values())

    def work(board: Device) -> list[str]:
        names = []
        for _ in range(3):
            done = board.run(artefact, inputs, RunRequest())
            np.testing.assert_array_equal(done.logits, wanted)
            names.append(board.name)
        with pytest.raises(VitcError, match=r"thread count is not 1 to 64\."):
            board.run(artefact, inputs, RunRequest(threads=65))
        return names

    findings = on_every_board(farm(boards, "quick-a"), work)
    assert [each.board for each in findings] == boards.named("quick-a")
    assert [each.found for each in findings] == [[name] * 3 for name in boards.named("quick-a")]


def test_an_interrupted_bench_frees_its_boards(
    vitc: Any, built: Any, boards: Boards, tmp_path: Path
) -> None:
    command = ["bench", str(built.artefact), "--device", boards.url("quick-a")]
    process = subprocess.Popen(
        [sys.executable, "-m", "vitc.cli", *command, "--runs", "60000000"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
    )

    def connected() -> bool:
        clients = psutil.Process(process.pid).children(recursive=True)
        return set(boards.ports["quick-a"]) <= {
            connection.raddr.port
            for client in clients
            for connection in client.net_connections()
            if connection.raddr
        }

    try:
        assert wait_for(connected, HANG_S)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=HANG_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert not list(tmp_path.glob("vitc-*"))
    findings = on_every_board(farm(boards, "quick-a"), lambda board: board.name)
    assert [each.found for each in findings] == boards.named("quick-a")


def test_a_kind_that_no_board_has_is_refused_with_those_there_are(
    vitc: Any, built: Any, boards: Boards
) -> None:
    done = vitc("bench", built.artefact, "--device", boards.url("toaster*"))
    assert done.code == 1
    assert "has no board 'toaster*'; it has quick-a, quick-b." in done.err


def test_what_is_no_tracker_is_said(vitc: Any, built: Any, rpc_server: str) -> None:
    done = vitc("bench", built.artefact, "--device", f"{rpc_server}/quick*")
    assert done.code == 1
    assert "does not say which boards it has" in done.err
    done = vitc("bench", built.artefact, "--device", f"rpc://127.0.0.1:{free_port()}/quick*")
    assert done.code == 1
    assert "Nobody answers" in done.err
    assert "vitc device tracker" in done.err
    assert "vitc device serve" not in done.err


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["run", "{artefact}", "x.npy"], "names the boards of a farm"),
        (["check", "{onnx}", "--reference", "{checkpoint}"], "is no artefact folder"),
        (["bench", "{artefact}", "--profile"], "no profile over RPC"),
        (["bench", "{artefact}", "--estimate", "cortex-a72"], "of a processor, not of a board"),
    ],
)
def test_what_a_farm_does_not_do_is_refused(
    vitc: Any, built: Any, command: list[str], sentence: str
) -> None:
    words = [word.format(**vars(built)) for word in command]
    done = vitc(*words, "--device", f"rpc://127.0.0.1:{free_port()}/rpi4*")
    assert done.code == 1
    assert done.err.count("error: ") == 1
    assert sentence in done.err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rpc://farm/rpi4*", ("farm", 9190, "rpi4*", 600, 3600)),
        ("rpc://farm:1234/rpi[45]?wait=30", ("farm", 1234, "rpi[45]", 30, 3600)),
        ("rpc://farm/*?wait=30&limit=7.5", ("farm", 9190, "*", 30, 7.5)),
        ("rpc://[::1]/*", ("::1", 9190, "*", 600, 3600)),
    ],
)
def test_urls(text: str, wanted: tuple[object, ...]) -> None:
    found = Farm.parse(text)
    assert is_farm(text)
    assert (found.host, found.port, found.kinds, found.wait_s, found.limit_s) == wanted
    assert found.name == text


@pytest.mark.parametrize(
    "text",
    ["rpc:///rpi4", "rpc://farm:0/a", "rpc://farm:99999/a", "rpc://u@farm/a", "rpc://farm/a/b",
     "rpc://farm/a b", "rpc://farm/a?key=b", "rpc://farm/a?wait=0", "rpc://farm/a#b",
     "rpc://farm/a?limit=0", "rpc://farm/a?limit=nan"],
)  # fmt: skip
def test_no_urls(vitc: Any, built: Any, text: str) -> None:
    assert is_farm(text)
    done = vitc("bench", built.artefact, "--device", text)
    assert done.code == 1
    assert "names no boards of a farm" in done.err


@pytest.mark.parametrize("text", ["local", "ssh://pi/folder", "rpc://pi:9090", "rpc://pi:1?key=a/b"])
def test_single_devices_are_no_farm(text: str) -> None:
    assert not is_farm(text)
