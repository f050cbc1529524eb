"""Runs the artefact's own runner as a process and reads what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from vitc.devices.conditions import conditions
from vitc.devices.device import DeviceRun, Inputs, RunRequest
from vitc.errors import VitcError
from vitc.places import scratch_folder
from vitc.runtime.arrays import Bound, bind_inputs

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = [
    "INPUT",
    "OUTPUT",
    "TRACE",
    "input_files",
    "output_files",
    "raise_failure",
    "read_run",
    "run_runner",
    "runner_arguments",
    "save_inputs",
]

INPUT: Final = "in.npy"
OUTPUT: Final = "out.npy"
TRACE: Final = "trace"
DIGESTS: Final = "digests"


def run_runner(
    artefact: Artefact,
    inputs: Inputs,
    request: RunRequest,
    *,
    prefix: Sequence[str] = (),
) -> DeviceRun:
    """Run ``vitc-run`` of an artefact on this machine.

    Args:
        artefact: The artefact.
        inputs: As for `vitc.devices.Device.run`.
        request: Threads, repeats, trace, timeout.
        prefix: Command before the runner, such as an emulator.

    Raises:
        VitcError: If the runner cannot start, fails, or takes longer than the timeout.
    """
    with scratch_folder("run") as folder:
        arrays = bind_inputs(inputs, artefact.entry.inputs)
        save_inputs(artefact, arrays, folder)
        command = [*prefix, str(artefact.runner), *runner_arguments(artefact, request, folder)]
        if request.digests:
            command += ["--digests", str(folder / DIGESTS)]
        output = _output(command, request.timeout_s)
        done = read_run(artefact, request, arrays, output, folder)
        return replace(done, digests=(folder / DIGESTS).read_text()) if request.digests else done


def input_files(artefact: Artefact) -> list[str]:
    """Names of the files of the inputs, in the order of the ports."""
    return _files(INPUT, len(artefact.entry.inputs))


def output_files(artefact: Artefact) -> list[str]:
    """Names of the files of the outputs, in the order of the ports."""
    return _files(OUTPUT, len(artefact.entry.outputs))


def _files(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{i}.{name}" for i in range(count)]


def save_inputs(artefact: Artefact, arrays: Bound, folder: Path) -> None:
    """Write the files of the inputs."""
    entry = artefact.entry
    for port, name in zip(entry.inputs, input_files(artefact), strict=True):
        np.save(folder / name, arrays[port.name])


def runner_arguments(artefact: Artefact, request: RunRequest, folder: PurePath) -> list[str]:
    """Arguments of ``vitc-run`` for files in a folder of the machine that runs it."""
    entry, inputs, outputs = (
        artefact.entry,
        input_files(artefact),
        output_files(artefact),
    )
    first = entry is artefact.manifest.entries[0]
    if first and len(inputs) == len(outputs) == 1:
        arguments = [str(folder / inputs[0]), str(folder / outputs[0])]
    else:
        arguments = [] if first else ["--entry", entry.name]
        for option, ports, files in (
            ("--input", entry.inputs, inputs),
            ("--output", entry.outputs, outputs),
        ):
            for port, name in zip(ports, files, strict=True):
                arguments += [option, f"{port.name}={folder / name}"]
    arguments += ["--threads", str(request.threads)]
    arguments += ["--repeat", str(request.repeat), "--warmup", str(request.warmup)]
    if request.trace:
        arguments += ["--trace", str(folder / TRACE)]
    if request.profile:
        arguments += ["--profile"]
    if request.pin:
        arguments += ["--pin"]
    return arguments


def read_run(
    artefact: Artefact, request: RunRequest, arrays: Bound, output: str, folder: Path
) -> DeviceRun:
    """Read what a run left.

    Args:
        artefact: What ran.
        request: How it was run.
        arrays: What it was given.
        output: What the runner printed.
        folder: A folder of this machine with logits and trace.

    Raises:
        VitcError: If something is missing or damaged.
    """
    report = _timings(output, artefact)
    try:
        ports = artefact.entry.outputs
        outputs: dict[str, NDArray[Any]] = {
            port.name: np.load(folder / name, allow_pickle=False).astype(port.dtype, copy=False)
            for port, name in zip(ports, output_files(artefact), strict=True)
        }
        raw = (folder / TRACE).read_bytes() if request.trace else b""
    except (OSError, ValueError) as error:
        raise VitcError(
            f"The runner of {artefact.path} left no readable result ({error}).",
            "Compile the artefact again.",
        ) from error
    return DeviceRun(
        outputs=outputs,
        latencies_ns=tuple(int(value) for value in report["latency_ns"]),
        load_ns=int(report.get("load_ns", 0)),
        trace=artefact.decode_trace(raw, arrays.images, arrays.n) if request.trace else None,
        step_ns=tuple(int(value) for value in report.get("step_ns", ())) or None,
        start_ns=int(report.get("start_ns", 0)),
        facts=conditions(report),
        threads=_count(report.get("threads")),
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
            f"Cannot start {command[0]}: {error.strerror or error}.", _why_not(Path(command[0]))
        ) from error
    if done.returncode:
        raise_failure(done.returncode, done.stderr)
    return done.stdout


def _why_not(program: Path) -> str:
    """What to do about a program that does not start."""
    with contextlib.suppress(OSError):
        if os.statvfs(program).f_flag & os.ST_NOEXEC:
            return f"{program.parent} is mounted noexec: copy the artefact to another disk."
        if not os.access(program, os.X_OK):
            return f"It is not executable: `chmod +x {program}`."
    return "Compile for this machine with `vitc compile --target native`, or use `--device qemu`."


def raise_failure(code: int, stderr: str) -> NoReturn:
    """Raise the `VitcError` of a runner that did not end well.

    Args:
        code: Its exit code; the negative signal number if it died of a signal.
        stderr: What it said.
    """
    if code < 0:
        raise VitcError(
            f"The runner died of {_signal_name(-code)}.",
            "SIGILL means that the CPU lacks instructions of the target: see `vitc targets`.",
        )
    said = stderr.strip().splitlines()
    reason = said[-1].removeprefix("vitc-run: ").removesuffix(".") if said else f"exit code {code}"
    raise VitcError(f"The runner failed: {reason}.", "See `vitc targets` for what fits a machine.")


def _count(found: Any) -> int | None:
    return found if type(found) is int and found > 0 else None


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
