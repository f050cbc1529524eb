"""The process in which a stranger's graph runs: ONNX Runtime within limits of memory and time.

Started by its path, so that it imports nothing else of vitc and is there in a moment. It answers
requests on its standard input until that ends. `vitc.onnx_files.confined` is the other side.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = ["receive", "send"]

Array = npt.NDArray[Any]
_LENGTH = struct.Struct("<Q")


def send(stream: IO[bytes], header: dict[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Write a message: the length of a JSON header, the header, and plain array data."""
    described = [[array.dtype.str, list(array.shape)] for array in arrays]
    text = json.dumps({**header, "arrays": described}).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[Array]]:
    """Read a message.

    Raises:
        EOFError: The other side ended.
    """
    header = json.loads(_exactly(stream, *_LENGTH.unpack(_exactly(stream, _LENGTH.size))))
    arrays = []
    for kind, shape in header["arrays"]:
        array = np.empty(shape, np.dtype(kind))
        array.reshape(-1).view(np.uint8)[:] = np.frombuffer(
            _exactly(stream, array.nbytes), np.uint8
        )
        arrays.append(array)
    return header, arrays


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _limit(memory: int, seconds: int) -> None:
    """Bound what is used from now on, beyond what is used already."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    used = resource.getrusage(resource.RUSAGE_SELF)
    for what, most in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + memory),
        (resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard < 0 else min(most, hard), hard))


def _answer(
    sessions: dict[int, Any], header: dict[str, Any], arrays: list[Array]
) -> tuple[dict[str, Any], list[Array]]:
    if header["do"] == "run":
        feed = dict(zip(header["inputs"], arrays, strict=True))
        outputs = sessions[header["session"]].run(header["outputs"], feed)
        if any(getattr(value, "dtype", np.dtype(object)).kind not in "biuf" for value in outputs):
            raise TypeError("only arrays of numbers are passed on")
        return {}, outputs
    import onnxruntime  # on the other side this file is imported for its messages alone

    options = onnxruntime.SessionOptions()
    # It moves QuantizeLinear up, past values that are outputs too, which come out rounded then.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads = header["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A file is run once or twice here, and every layer's value is asked for. Of DeiT-S, folding and
    # fusing take a second and save a few hundredths of one; and looking for memory to use again,
    # which compares all values with all, takes two. Freed they are either way.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_reuse = False
    opened = onnxruntime.InferenceSession(
        arrays[0].tobytes(), options, providers=["CPUExecutionProvider"]
    )
    sessions[header["session"]] = opened
    return {
        "inputs": [[entry.name, entry.shape, entry.type] for entry in opened.get_inputs()],
        "outputs": [entry.name for entry in opened.get_outputs()],
    }, []


def _serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    sessions: dict[int, Any] = {}
    while True:
        try:
            header, arrays = receive(requests)
        except EOFError:
            return
        for number in header["closed"]:
            sessions.pop(number, None)
        _limit(header["memory"], header["seconds"])
        try:
            reply, results = _answer(sessions, header, arrays)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            reply, results = {"error": first}, []
        # An error in here ends the process: half a message is no answer.
        send(replies, reply, results)


if __name__ == "__main__":
    import onnxruntime  # noqa: F401  (before memory is limited, and while nobody waits)

    own = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed is no reply
    with os.fdopen(own, "wb") as out:
        _serve(sys.stdin.buffer, out)
