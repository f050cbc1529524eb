"""The process that talks to a TVM RPC server, so that a peer that never answers can be given up.

``python -m vitc.devices.rpc_client FOLDER`` reads ``request.json`` and ``in.npy`` there and leaves
``out.npy``, the trace and, as its last line of output, the timings of `vitc.devices.runner`. If the
request is to hold the device, it names no run: folders of runs then come as lines of its input, and
each is answered by a line of its output.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vitc.devices.kernel_files import Read, condition_files, describe_machine
from vitc.devices.runner import TRACE
from vitc.devices.tvm_runtime import choose_runtime
from vitc.runtime.arrays import filled

__all__ = ["CONNECTED", "REQUEST"]

CONNECTED: Final = "connected"
"""Begins the line that says that the device is ours from now on, and where it is."""

REQUEST: Final = "request.json"
_RUNS_PER_CALL: Final = 100
"""A server sees only between calls that its client is gone."""

_SHUTDOWN: Final = "code=kShutdown"
_TEXT_BYTES: Final = 4096  # what vitc_read takes and gives


def _connect(request: dict[str, Any]) -> tuple[Any, str]:
    """A session, and ``host:port`` of the server that it is with."""
    from tvm import rpc
    from tvm.rpc import client

    host, port, key, timeout = (request[name] for name in ("host", "port", "key", "timeout_s"))
    if not request["tracker"]:
        return rpc.connect(host, port, key, session_timeout=timeout), f"{host}:{port}"
    tracker = rpc.connect_tracker(host, port)
    known = {info["key"].partition(":")[2] for info in tracker.summary()["server_info"]}
    if key not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise RuntimeError(f"the tracker has no device with key {key!r}; it has {listed}")
    # A session does not say which server of its kind the tracker has handed out.
    connect, places = client.connect, [""]

    def noting(url: str, port: int, *arguments: Any, **named: Any) -> Any:
        places.append(f"{url}:{port}")
        return connect(url, port, *arguments, **named)

    client.connect = noting
    session = tracker.request(key, session_timeout=timeout)
    return session, places[-1]


def _run(session: Any, folder: Path) -> dict[str, Any]:
    import tvm

    request = json.loads((folder / REQUEST).read_text())
    batch, count = int(request["batch"]), int(request["images"])
    given = [
        (np.load(folder / e["file"], allow_pickle=False), e["per_image"]) for e in request["inputs"]
    ]
    # The server keeps files by name for as long as the session.
    name = f"vitc-{uuid.uuid4().hex}.so"
    session.upload(request["library"], name)
    started = time.monotonic_ns()
    module = session.load_module(name)
    load_ns = time.monotonic_ns() - started
    device, threads = session.cpu(0), int(request["threads"])
    outputs = [tvm.runtime.empty(tuple(e["shape"]), e["dtype"], device) for e in request["outputs"]]
    run = module["vitc_run"]
    numbered = [int(request["entry"])] if request["entry"] else []
    read = _reader(module, device)
    before = condition_files(read)
    found: list[list[NDArray[Any]]] = [[] for _ in outputs]
    latencies = []
    trace = module["vitc_trace"] if request["trace"] else None
    buffers = tvm.runtime.empty((batch, int(request["bytes"])), "uint8", device)
    with (folder / TRACE).open("wb") as traced:
        for start in range(0, count, batch):
            tensors = numbered + [
                tvm.runtime.tensor(filled(array, start, batch) if each else array, device)
                for array, each in given
            ] + outputs
            for _ in range(int(request["warmup"]) - 1):
                run(*tensors, threads)
            times = _timed(module, device, int(request["repeat"]), *tensors, threads)
            latencies.append(times)
            if trace is not None:
                trace(*tensors, buffers, threads)
                traced.write(buffers.numpy()[: count - start].tobytes())
            for parts, output in zip(found, outputs, strict=True):
                parts.append(output.numpy())
    for entry, parts in zip(request["outputs"], found, strict=True):
        whole = np.concatenate(parts)[:count] if entry["per_image"] else parts[-1]
        np.save(folder / entry["file"], whole)
    # By repeat, then by batch, as the runner has it.
    ordered = np.asarray(latencies).T.ravel() * 1e9
    machine = describe_machine(read, str(request["architecture"]))
    return {
        "threads": min(threads, machine["cores"] or threads),
        "latency_ns": [round(value) for value in ordered.tolist()],
        "load_ns": load_ns,
        "system_files": {"before": before, "after": condition_files(read)},
        "machine": machine,
    }


def _timed(module: Any, device: Any, repeat: int, *arguments: Any) -> list[float]:
    """Seconds of each run; before the clock starts, the evaluator makes one more by itself."""
    times: list[float] = []
    while len(times) < repeat:
        count = min(_RUNS_PER_CALL, repeat - len(times))
        clock = module.time_evaluator("vitc_run", device, number=1, repeat=count)
        times += clock(*arguments).results
    return times


def _reader(module: Any, device: Any) -> Read:
    """Reads a file of the machine that the library was loaded on."""
    import tvm

    try:
        function = module["vitc_read"]
    except AttributeError:  # of a library that was made before there was one
        return lambda _: ""

    def read(path: str) -> str:
        text = tvm.runtime.tensor(_padded(path), device)
        function(text)
        return bytes(text.numpy()).rstrip(b"\0").decode(errors="replace")

    return read


def _padded(path: str) -> NDArray[np.uint8]:
    return np.frombuffer(path.encode().ljust(_TEXT_BYTES, b"\0"), np.uint8)


def _reason(error: Exception) -> str:
    """The sentence in an error that came through layers of tracebacks."""
    if _SHUTDOWN in str(error):
        return "the library crashed there, or the connection was lost"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rpartition("Error: ")[2]


def _hold(session: Any) -> None:
    """Run what is asked for until there is no more."""
    for line in sys.stdin:
        try:
            answer = _run(session, Path(json.loads(line)))
        except Exception as error:  # TVM raises whatever the peer raised
            answer = {"error": _reason(error)}
        _say(json.dumps(answer))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _main(folder: Path) -> int:
    choose_runtime()
    try:
        request = json.loads((folder / REQUEST).read_text())
        session, place = _connect(request)
        _say(f"{CONNECTED} {place}")
        if request.get("hold"):
            _hold(session)
        else:
            _say(json.dumps(_run(session, folder)))
    except Exception as error:  # TVM raises whatever the peer raised
        sys.stderr.write(f"{_reason(error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
