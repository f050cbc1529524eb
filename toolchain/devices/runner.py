"""Runs the artefact's own runner as a process and reads what it leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitc.devices.device import DeviceRun, RunRequest
from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["run_runner"]


def run_runner(
    artefact: Artefact,
    inputs: NDArray[np.float32],
    request: RunRequest,
    *,
    prefix: Sequence[str] = (),
) -> DeviceRun:
    """Run ``vitc-run`` of an artefact on this machine.

    Args:
        artefact: The artefact.
        inputs: float32 [B, 3, H, W].
        request: Threads, repeats, trace, timeout.
        prefix: Command before the runner, such as an emulator.

    Raises:
        VitcError: If the runner cannot start, fails, or takes longer than the timeout.
    """
    with tempfile.TemporaryDirectory(prefix="vitc-run-") as folder:
        given, wanted, trace = (Path(folder, name) for name in ("in.npy", "out.npy", "trace"))
        np.save(given, np.ascontiguousarray(inputs, dtype=np.float32))
        command = [*prefix, str(artefact.runner), str(given), str(wanted)]
        command += ["--threads", str(request.threads), "--repeat", str(request.repeat)]
        command += ["--warmup", str(request.warmup)]
        if request.trace:
            command += ["--trace", str(trace)]
        report = _timings(_output(command, request.timeout_s), artefact)
        try:
            logits = np.load(wanted, allow_pickle=False).astype(np.float32, copy=False)
            raw = trace.read_bytes() if request.trace else b""
        except (OSError, ValueError) as error:
            raise VitcError(
                f"The runner of {artefact.path} left no readable result ({error}).",
                "Compile the artefact again.",
            ) from error
    return DeviceRun(
        logits=logits,
        latencies_ns=tuple(int(value) for value in report["latency_ns"]),
        load_ns=int(report.get("load_ns", 0)),
        trace=artefact.decode_trace(raw, len(inputs)) if request.trace else None,
    )


def _output(command: Sequence[str], timeout_s: float) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise VitcError(
            f"The run took longer than {timeout_s:g} s and was stopped.",
            "Run fewer images, or a smaller model, on this device.",
        ) from error
    except OSError as error:
        raise VitcError(
            f"Cannot start {command[0]}: {error.strerror or error}.",
            "Compile for this machine with `vitc compile --target native`, or use `--device qemu`.",
        ) from error
    if done.returncode < 0:
        raise VitcError(
            f"The runner died of {_signal_name(-done.returncode)}.",
            "SIGILL means that the CPU lacks instructions of the target: see `vitc targets`.",
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        reason = said[-1].removeprefix("vitc-run: ") if said else f"exit code {done.returncode}"
        raise VitcError(
            f"The runner failed: {reason}.",
            "See `vitc targets` for what fits this machine.",
        )
    return done.stdout


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _timings(output: str, artefact: Artefact) -> dict[str, Any]:
    lines = output.strip().splitlines()
    try:
        report = json.loads(lines[-1])
        latencies = report["latency_ns"]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise VitcError(
            f"The runner of {artefact.path} printed no timings.", "Compile the artefact again."
        ) from error
    if not isinstance(latencies, list):
        raise VitcError(
            f"The runner of {artefact.path} printed latency_ns that is no list.",
            "Compile the artefact again.",
        )
    return dict(report)
