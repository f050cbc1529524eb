"""What is timed side by side, on the same cores: vitc, and what a user would run instead."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
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
from vitc.runtime.artefact import Artefact

__all__ = ["Contender", "OwnLibrary", "noise", "openvino", "own_int8", "pinned", "race", "twins"]

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
        self._image = noise((1, *artefact.image_shape))

    def times(self, runs: int) -> list[int]:
        """See `Contender.times`; each call is a new process."""
        request = RunRequest(threads=self._threads, repeat=runs, warmup=_WARMUP, pin=True)
        return list(LocalDevice().run(self._artefact, self._image, request).latencies_ns)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Two images of noise; the ranges that come out do not change the time."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        shape = (1, 3, _PIXELS, _PIXELS)
        self._images = iter([rng.standard_normal(shape, dtype=np.float32) for _ in range(2)])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {"input": image}


def noise(shape: tuple[int, ...] = (1, 3, _PIXELS, _PIXELS)) -> NDArray[np.float32]:
    """An input that costs what any other costs."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def twins(network: Network, threads: int) -> dict[str, Contender]:
    """DeiT of the same width in ONNX Runtime: fp32, static int8 (QDQ) and dynamic int8."""
    model = twin_model(network.config)
    image = [noise()]
    with tempfile.TemporaryDirectory(prefix="vitc-bench-") as name:
        folder = Path(name)
        plain, ready, static, dynamic = (
            folder / f"{stem}.onnx" for stem in ("plain", "ready", "static", "dynamic")
        )
        plain.write_bytes(model.SerializeToString())
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(static),
            _Calibration(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantize_dynamic(str(ready), str(dynamic), per_channel=True, weight_type=QuantType.QInt8)
        return {
            "fp32": BaselineSession(plain.read_bytes(), image, threads),
            "int8 QDQ": BaselineSession(static.read_bytes(), image, threads),
            "int8 dynamic": BaselineSession(dynamic.read_bytes(), image, threads),
        }


def own_int8(workshop: Workshop, network: Network, threads: int) -> Contender:
    """The same binarized network as a plain int8 ONNX graph, in ONNX Runtime."""
    content = workshop.onnx(network, "int8").read_bytes()
    return BaselineSession(content, [noise()], threads)


class _OpenVino:
    def __init__(self, network: Network, threads: int) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(twin_model(network.config).SerializeToString())
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", options)
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


def openvino(network: Network, threads: int) -> tuple[str, Contender] | None:
    """The fp32 twin in OpenVINO, with the precision it chooses; None where it is not installed."""
    if find_spec("openvino") is None:
        return None
    contender = _OpenVino(network, threads)
    precision = contender.precision.replace("'", "").split(" ")[-1].rstrip(">")
    return f"OpenVINO {precision}", contender


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
