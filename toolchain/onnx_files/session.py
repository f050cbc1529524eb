"""ONNX Runtime on a model of vitc, with tapped values as extra outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, overload

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from vitc.dialect.metadata import TAP_KEY
from vitc.errors import VitcError
from vitc.onnx_files.confined import ConfinedSession
from vitc.onnx_files.external_data import is_external, tensors

__all__ = ["INPUT_DTYPES", "run_with_taps", "serialized", "session", "tap_names"]

Array = npt.NDArray[Any]

INPUT_DTYPES: Final[Mapping[str, Any]] = {
    "tensor(float)": np.float32,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
"""By what ONNX Runtime calls the type of an input, that of its array."""

# Where somebody loaded ONNX Runtime before vitc said so (`vitc.__init__`).
onnxruntime.disable_telemetry_events()


def tap_names(model: ir.Model) -> list[str]:
    """Return the names of the tapped values of `model`, in the order of computation."""
    return [
        str(value.name)
        for node in model.graph
        for value in node.outputs
        if TAP_KEY in value.metadata_props
    ]


@overload
def session(
    model: str | os.PathLike[str] | ir.Model,
    outputs: Sequence[str] | None = None,
    threads: int = 1,
    *,
    confined: Literal[False] = False,
) -> onnxruntime.InferenceSession: ...


@overload
def session(
    model: str | os.PathLike[str] | ir.Model,
    outputs: Sequence[str] | None = None,
    threads: int = 1,
    *,
    confined: Literal[True],
) -> ConfinedSession: ...


def session(
    model: str | os.PathLike[str] | ir.Model,
    outputs: Sequence[str] | None = None,
    threads: int = 1,
    *,
    confined: bool = False,
) -> onnxruntime.InferenceSession | ConfinedSession:
    """Open a model in ONNX Runtime.

    Args:
        model: A file, or a model in memory (which is not changed).
        outputs: Names of values to compute; None for the outputs of the model.
        threads: Threads inside an operator.
        confined: Whether to open it in a process with limits (`vitc.onnx_files.confined`), as
            befits a graph that is not known to be of this vitc.

    Returns:
        A session on the CPU.

    Raises:
        VitcError: A name is not a value of the model, or ONNX Runtime refuses the model.
    """
    data = serialized(model, outputs)
    if confined:
        return ConfinedSession(data, threads)
    options = onnxruntime.SessionOptions()
    # See the same line of `confined_worker`.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class.
        raise VitcError(
            f"ONNX Runtime refuses the model: {_first_line(error)}",
            "Export it again from its checkpoint.",
        ) from error


def serialized(
    model: str | os.PathLike[str] | ir.Model, outputs: Sequence[str] | None = None
) -> bytes:
    """What `session` opens; arguments and errors are its."""
    proto = _proto(model)
    if outputs is not None:
        _set_outputs(proto, outputs)
    data: bytes = proto.SerializeToString()
    return data


def run_with_taps(
    model: str | os.PathLike[str] | ir.Model | onnxruntime.InferenceSession | ConfinedSession,
    images: Array | Mapping[str, Array],
    names: Sequence[str] | None = None,
    threads: int = 1,
) -> dict[str, Array]:
    """Run a model and return tapped values.

    Args:
        model: A file, a model in memory, or an open session whose outputs are wanted.
        images: fp32 [B, 3, H, W], normalised; arrays by name for other inputs.
        names: Values to return; None for all taps and the logits (or all of the session's outputs).
        threads: Threads inside an operator, if a session has to be opened.

    Returns:
        Arrays by name: bits uint8, scores int32 (both fp32 in format float), floats fp32.

    Raises:
        VitcError: As in `session`; or the images do not fit the model, or its shapes each other.
    """
    if isinstance(model, onnxruntime.InferenceSession | ConfinedSession):
        opened = model
        wanted = [output.name for output in opened.get_outputs()] if names is None else list(names)
    else:
        loaded = model if isinstance(model, ir.Model) else ir.from_proto(_proto(model))
        outputs = [str(value.name) for value in loaded.graph.outputs]
        wanted = list(dict.fromkeys((*tap_names(loaded), *outputs) if names is None else names))
        opened = session(loaded, wanted, threads)
    feeds = opened.get_inputs()
    given = images if isinstance(images, Mapping) else {feeds[0].name: images}
    if {feed.name for feed in feeds} != set(given):
        names = ", ".join(feed.name for feed in feeds)
        raise VitcError(
            f"The model takes {names}, {', '.join(given)} was given.", "Name each input."
        )
    for feed in feeds:
        found = given[feed.name].shape
        fits = len(found) == len(feed.shape) and all(
            not isinstance(want, int) or want == size
            for want, size in zip(feed.shape, found, strict=True)
        )
        if not fits:
            raise VitcError(
                f"The model takes images {feed.shape}, {list(found)} was given.",
                "Preprocess images as the model says.",
            )
    arrays_in = {
        feed.name: np.ascontiguousarray(given[feed.name], dtype=INPUT_DTYPES[feed.type])
        for feed in feeds
    }
    try:
        arrays = opened.run(wanted, arrays_in)
    except VitcError:
        raise
    except Exception as error:  # as above
        raise VitcError(
            f"ONNX Runtime cannot run the model: {_first_line(error)}",
            "Export it again from its checkpoint.",
        ) from error
    return dict(zip(wanted, arrays, strict=True))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _proto(model: str | os.PathLike[str] | ir.Model) -> onnx.ModelProto:
    if isinstance(model, ir.Model):
        return ir.to_proto(model)
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(Path(model).read_bytes())
    except OSError as error:
        raise VitcError(f"{model} cannot be read: {error.strerror or error}.") from error
    except DecodeError as error:
        raise VitcError(f"{model} is truncated or no ONNX file.") from error
    if any(is_external(tensor) for tensor in tensors(proto)):
        raise VitcError(
            f"{model} keeps weights in other files.", "Read it with vitc.onnx_files.load_onnx."
        )
    return proto


def _set_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    graph = proto.graph
    known = {info.name: info for info in (*graph.value_info, *graph.input, *graph.output)}
    made = {name for node in graph.node for name in node.output}
    for name in names:
        if name not in made:
            raise VitcError(
                f"The model has no value {name}.", "vitc.onnx_files.tap_names lists its taps."
            )
    chosen = [known.get(name, onnx.ValueInfoProto(name=name)) for name in names]
    del graph.output[:]
    graph.output.extend(chosen)
