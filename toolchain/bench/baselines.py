"""What an artefact is timed against, in ONNX Runtime on the same cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from vitc import names
from vitc.errors import VitcError
from vitc.extras import need
from vitc.models.architectures import config_from_dict
from vitc.models.config import NetworkConfig
from vitc.places import scratch_folder
from vitc.runtime.arrays import TIMED_EXTENT, probe_inputs

if TYPE_CHECKING:
    import onnx

    from vitc.runtime.artefact import Artefact

__all__ = ["BASELINES", "Baseline", "BaselineSession", "baseline", "usual_baseline"]


class BaselineSession:
    """A model in ONNX Runtime, ready to be timed.

    Args:
        content: The serialized model.
        inputs: Arrays for its inputs, in its order.
        threads: Threads of ONNX Runtime.
    """

    def __init__(self, content: bytes, inputs: Sequence[NDArray[np.generic]], threads: int) -> None:
        import onnxruntime

        from vitc.onnx_files.session import INPUT_DTYPES

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads of ONNX Runtime must not spin on the cores while the artefact is timed.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self._binding = self._session.io_binding()
        for wanted, array in zip(self._session.get_inputs(), inputs, strict=True):
            self._binding.bind_cpu_input(wanted.name, array.astype(INPUT_DTYPES[wanted.type]))
        for made in self._session.get_outputs():
            self._binding.bind_output(made.name)

    def times(self, runs: int) -> list[int]:
        """Nanoseconds of each of `runs` runs."""
        taken = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            self._session.run_with_iobinding(self._binding)
            taken.append(time.perf_counter_ns() - start)
        return taken


@dataclass(frozen=True)
class Baseline:
    """One thing to be faster than.

    Attributes:
        name: As a user writes it behind ``--baseline``.
        title: What it is, for the report.
        build: Makes the serialized ONNX model for an artefact and its batch size.
        extra: Key of `vitc.extras.EXTRAS` that it takes.
    """

    name: str
    title: str
    build: Callable[[Artefact], bytes]
    extra: str

    def open(self, artefact: Artefact, threads: int) -> BaselineSession:
        """A session with random inputs of the artefact's ports and batch.

        Raises:
            VitcError: If it is made from a configuration and the artefact states none.
            MissingExtraError: If a package that it takes is not installed.
        """
        need(f"The baseline {self.name}", self.extra, hint="or --baseline none")
        inputs = probe_inputs(artefact.entry.inputs, artefact.batch, 0, n=TIMED_EXTENT)
        return BaselineSession(self.build(artefact), list(inputs.values()), threads)


def _config(artefact: Artefact) -> NetworkConfig:
    if not artefact.manifest.config:
        raise VitcError(
            f"{artefact.path} holds a network without a configuration, so nobody knows its twin "
            "and its network in another format.",
            "Time it beside its own file: --baseline packed. Or alone: --baseline none.",
        )
    return config_from_dict(artefact.manifest.config)


def _twin(artefact: Artefact) -> bytes:
    made: bytes = _twin_model(artefact).SerializeToString()
    return made


def _twin_model(artefact: Artefact) -> onnx.ModelProto:
    from vitc.bench.twin import twin_model

    return twin_model(_config(artefact), artefact.batch)


def _quantized_twin(artefact: Artefact) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with scratch_folder("bench") as folder:
        out = folder / "int8.onnx"
        quantize_dynamic(
            _twin_model(artefact),
            out,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return out.read_bytes()


def _own_file(artefact: Artefact) -> bytes:
    from vitc.dialect.proto import to_proto
    from vitc.onnx_files.load_entry import load_entry

    model = load_entry(artefact.onnx, artefact.entry.name)
    own: bytes = to_proto(model).SerializeToString()
    return own


def _own_network_in_int8(artefact: Artefact) -> bytes:
    from vitc.exporter import export
    from vitc.models.embedding import with_embedding
    from vitc.models.initialise import random_model

    config = _config(artefact)
    model = random_model(replace(config, embedding="fp32"))
    with scratch_folder("bench") as folder:
        out = folder / "int8.onnx"
        export(with_embedding(model, config.embedding), out, form="int8")
        return out.read_bytes()


BASELINES: Final[Mapping[str, Baseline]] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Baseline("onnxruntime", "full-precision twin, ONNX Runtime", _twin, "train"),
            Baseline(
                "onnxruntime-int8", "twin in dynamic int8, ONNX Runtime", _quantized_twin, "train"
            ),
            Baseline("packed", "the artefact's own ONNX file, ONNX Runtime", _own_file, "onnx"),
            Baseline(
                "int8",
                "the same network, format int8, ONNX Runtime",
                _own_network_in_int8,
                "train",
            ),
        )
    }
)


def baseline(name: str) -> Baseline:
    """Look up a baseline.

    Raises:
        VitcError: If there is none of that name; the nearest is named and the known are listed.
    """
    if name not in BASELINES:
        raise names.BASELINES.unknown(name)
    return BASELINES[name]


def usual_baseline(artefact: Artefact) -> Baseline:
    """The full-precision twin of a classifier or a network of a task; else its own file."""
    stated = artefact.manifest.config
    twin = stated and (artefact.entry.classifier or stated.get("arch") in names.TASKS.known)
    return BASELINES["onnxruntime" if twin else "packed"]
