"""What is timed side by side, on the same cores: vitc, and what a user would run instead."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from networks import Network, Workshop
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from vitc.bench.baselines import BaselineSession
from vitc.bench.measure import Latency
from vitc.bench.twin import twin_model
from vitc.devices import LocalDevice, RunRequest
from vitc.devices.machine import usable_cores
from vitc.errors import VitcError
from vitc.runtime.arrays import as_bytes
from vitc.runtime.artefact import Artefact

__all__ = [
    "Contender",
    "OwnLibrary",
    "noise",
    "openvino",
    "own_int8",
    "pinned",
    "race",
    "static_int8",
    "twins",
]

_ROUNDS = 6
_WARMUP = 3
_PIXELS = 224


class Contender(Protocol):
    """Something that can be timed again and again."""

    def times(self, runs: int) -> list[int]:
        """Nanoseconds of each of `runs` runs of one image."""


class OwnLibrary:
    """A vitc artefact, run by its own runner.

    Args:
        artefact: An artefact for this machine, batch 1.
        threads: Threads of the library.
    """

    def __init__(self, artefact: Artefact, threads: int = 1) -> None:
        self._artefact = artefact
        self._threads = threads
        image = noise((1, *artefact.image_shape))
        of_bytes = artefact.entry.inputs[0].dtype == "uint8"
        self._image = as_bytes(image) if of_bytes else image

    def times(self, runs: int) -> list[int]:
        """See `Contender.times`; each call is a new process."""
        request = RunRequest(threads=self._threads, repeat=runs, warmup=_WARMUP, pin=True)
        return list(LocalDevice().run(self._artefact, self._image, request).latencies_ns)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Two images of noise; the ranges that come out do not change the time."""

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        rng = np.random.default_rng(1)
        images = [rng.standard_normal(shape, dtype=np.float32) for _ in range(2)]
        self._images = iter([{name: image} for image in images])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._images, None)


def noise(shape: tuple[int, ...] = (1, 3, _PIXELS, _PIXELS)) -> NDArray[np.float32]:
    """An input that costs what any other costs."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def twins(network: Network, threads: int) -> dict[str, Contender]:
    """DeiT of the same width in ONNX Runtime: fp32, static int8 (QDQ) and dynamic int8."""
    model = twin_model(network.config)
    image = [noise()]
    return {
        "fp32": BaselineSession(model.SerializeToString(), image, threads),
        "int8 QDQ": BaselineSession(static_int8(model), image, threads),
        "int8 dynamic": BaselineSession(_dynamic_int8(model), image, threads),
    }


def static_int8(model: onnx.ModelProto) -> bytes:
    """A network of one image in int8, weights by channel (QDQ)."""
    (given,) = model.graph.input
    shape = [dimension.dim_value or 1 for dimension in given.type.tensor_type.shape.dim]

    def quantize(ready: Path, made: Path) -> None:
        quantize_static(
            str(ready),
            str(made),
            _Calibration(given.name, shape),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    return _quantized(model, quantize)


def _dynamic_int8(model: onnx.ModelProto) -> bytes:
    return _quantized(
        model,
        lambda ready, made: quantize_dynamic(
            str(ready), str(made), per_channel=True, weight_type=QuantType.QInt8
        ),
    )


def _quantized(model: onnx.ModelProto, quantize: Callable[[Path, Path], None]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="vitc-bench-") as name:
        plain, ready, made = (Path(name) / f"{stem}.onnx" for stem in ("plain", "ready", "made"))
        plain.write_bytes(model.SerializeToString())
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize(ready, made)
        return made.read_bytes()


def own_int8(workshop: Workshop, network: Network, threads: int) -> Contender:
    """The same binarized network as a plain int8 ONNX graph, in ONNX Runtime."""
    content = workshop.onnx(network, "int8").read_bytes()
    return BaselineSession(content, [noise()], threads)


class _OpenVino:
    def __init__(self, content: bytes, threads: int) -> None:
        import openvino

        core = openvino.Core()
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(core.read_model(content), "CPU", options)
        self.precision = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(openvino.Tensor(noise()))

    def times(self, runs: int) -> list[int]:
        taken = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            self._request.infer()
            taken.append(time.perf_counter_ns() - start)
        return taken


def openvino(network: Network, threads: int) -> dict[str, Contender]:
    """The twin in OpenVINO, in the precision that it chooses and in int8; empty without it."""
    if find_spec("openvino") is None:
        return {}
    model = twin_model(network.config)
    try:
        plain = _OpenVino(model.SerializeToString(), threads)
        int8 = _OpenVino(static_int8(model), threads)
    except RuntimeError as error:
        raise VitcError(f"OpenVINO fails: {error}", "Uninstall it to leave it out.") from error
    precision = plain.precision.replace("'", "").split(" ")[-1].rstrip(">")
    return {f"OpenVINO {precision}": plain, "OpenVINO int8 QDQ": int8}


def race(contenders: Mapping[str, Contender], runs: int) -> dict[str, Latency]:
    """Time contenders in turns, so that a change of the machine's pace meets all of them.

    Args:
        contenders: By name.
        runs: Timed runs of each.
    """
    times: dict[str, list[int]] = {name: [] for name in contenders}
    for number in range(_ROUNDS):
        share = runs // _ROUNDS + (number < runs % _ROUNDS)
        for name, contender in contenders.items():
            contender.times(_WARMUP)
            times[name] += contender.times(share)
    return {name: Latency.of(taken) for name, taken in times.items()}


@contextmanager
def pinned(threads: int) -> Iterator[Sequence[int]]:
    """Keep this process, and what it starts, on as many cores as there are threads."""
    before = usable_cores()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, before[:threads])
    try:
        yield before[:threads]
    finally:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, before)
