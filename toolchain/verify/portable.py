"""An artefact against its own ONNX file, with no checkpoint at hand.

The file is rewired so that every tap is an output, and whatever reads a tap reads an input instead.
One run of ONNX Runtime that is fed the artefact's taps then says, layer by layer, what each layer
should have made of what it was given. Both sides decide bits by the same fp32 comparisons, so bits
must be equal with no exception for near ties; only sums of floats may be rounded differently. What
that may come to is one number for all layers: the bounds of `vitc.verify.bounds` are carried
through the float64 run of a module, and here is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper

from vitc.devices import Device, RunRequest
from vitc.errors import VitcError
from vitc.onnx_files.confined import ConfinedSession, opening
from vitc.onnx_files.load_entry import load_entry
from vitc.onnx_files.ports import packed_widths
from vitc.runtime.arrays import probe_inputs
from vitc.runtime.artefact import Artefact
from vitc.runtime.manifest import EntryFacts
from vitc.verify.inputs import probe_ports
from vitc.verify.report import CheckReport, LayerReport, OutputReport

__all__ = ["begin_against_onnx", "check_against_onnx", "forced"]

_SUFFIX: Final = "/forced"
_COLOURS: Final = 3
_FLOAT_TOLERANCE: Final = 2e-5
"""Of the largest value of a tap: sums of 768 products stay below 1e-6, a wrong term does not."""


def check_against_onnx(
    artefact: Artefact,
    device: Device,
    *,
    images: int = 2,
    seed: int = 0,
    also: Mapping[str, NDArray[Any]] | None = None,
) -> CheckReport:
    """Compare the entry that an artefact is opened at with its ONNX file, layer by layer.

    Args:
        artefact: The artefact.
        device: Where it runs.
        images: How many probe images.
        seed: Of the images.
        also: Inputs by name, of images to compare on as well.

    Returns:
        A report without parameters and accuracy; its logits are those of the last layer, fed by
        the artefact.

    Raises:
        VitcError: If the artefact cannot run there, or the file does not run on its values.
    """
    return begin_against_onnx(artefact, device, images=images, seed=seed, also=also)()


def begin_against_onnx(
    artefact: Artefact,
    device: Device,
    *,
    images: int = 2,
    seed: int = 0,
    also: Mapping[str, NDArray[Any]] | None = None,
) -> Callable[[], CheckReport]:
    """Run the artefact, and let ONNX Runtime open the file while something else is done.

    Args:
        artefact: The artefact.
        device: Where it runs.
        images: How many probe images.
        seed: Of the images.
        also: Inputs by name, of images to compare on as well.

    Returns:
        What compares the two, as `check_against_onnx`, which raises what comes of the file.

    Raises:
        VitcError: If the artefact cannot run there.
    """
    entry = artefact.entry
    loaded = load_entry(artefact.onnx, entry.name)
    given = _probes(entry, images, seed, packed_widths(loaded))
    count = images
    if also is not None and all(port.per_image for port in entry.inputs):
        given = {name: np.concatenate([part, also[name]]) for name, part in given.items()}
        count += len(next(iter(also.values())))
    done = device.run(artefact, given, RunRequest(trace=True))
    trace = {**(done.trace or {}), **done.outputs}
    model = ir.to_proto(loaded)
    opened = opening(forced(model, trace).SerializeToString())

    def finish() -> CheckReport:
        expected = _run(opened, model, given, trace)
        return _report(artefact, device.name, count, model, expected, trace)

    return finish


def _report(
    artefact: Artefact,
    device: str,
    images: int,
    model: onnx.ModelProto,
    expected: Mapping[str, NDArray[Any]],
    trace: Mapping[str, NDArray[Any]],
) -> CheckReport:
    entry = artefact.entry
    layers = tuple(
        _compare(name, expected[name], trace[name])
        for name in (output for node in model.graph.node for output in node.output)
        if name in expected
    )
    silent = sorted(set(trace) - set(expected))
    wrong = [layer.name for layer in layers if not layer.equal]
    agreement = None
    if entry.classifier is not None:
        name = entry.outputs[0].name
        agreement = float((expected[name].argmax(axis=1) == trace[name].argmax(axis=1)).mean())
    errors = {layer.name: layer.max_error for layer in layers}
    return CheckReport(
        candidate=str(artefact.path),
        device=device,
        images=images,
        layer_images=images,
        layers=layers,
        outputs=tuple(
            OutputReport(port.name, errors[port.name], _tolerance(expected[port.name]))
            for port in entry.outputs
        ),
        top1_agreement=agreement,
        faults=tuple(f"the ONNX file has no value named {name}" for name in silent),
        first_difference=wrong[0] if wrong else None,
    )


def _probes(
    entry: EntryFacts, images: int, seed: int, widths: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    if entry.classifier is not None:
        (channels, height, width), _ = entry.classifier
        if channels == _COLOURS and height == width:
            return probe_ports(entry.inputs, images, seed=seed)
    return probe_inputs(entry.inputs, images, seed, widths=widths)


def forced(model: onnx.ModelProto, taps: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """A copy of `model` whose taps are outputs, and are read from inputs named ``TAP/forced``.

    Args:
        model: An exported model.
        taps: Values to feed; those the model does not make are left out.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    found = {name for node in graph.node for name in node.output} & set(taps)
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in found:
                node.input[index] = name + _SUFFIX
    for name in sorted(found):
        kind = helper.np_dtype_to_tensor_dtype(taps[name].dtype)
        shape = [None, *taps[name].shape[1:]]
        if name not in outputs:
            graph.output.append(helper.make_tensor_value_info(name, kind, shape))
        graph.input.append(helper.make_tensor_value_info(name + _SUFFIX, kind, shape))
    return made


def _run(
    session: Future[ConfinedSession],
    model: onnx.ModelProto,
    given: Mapping[str, NDArray[Any]],
    taps: Mapping[str, NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    try:
        opened = session.result()
        inputs = [entry.name for entry in opened.get_inputs()]
        feed = {name: taps[name.removesuffix(_SUFFIX)] for name in inputs if name.endswith(_SUFFIX)}
        types = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
        feed |= {
            name: value.astype(helper.tensor_dtype_to_np_dtype(types[name]), copy=False)
            for name, value in given.items()
        }
        names = [entry.name for entry in opened.get_outputs()]
        return dict(zip(names, opened.run(names, feed), strict=True))
    except VitcError as error:
        raise VitcError(
            f"The ONNX file does not run on what the artefact handed out: {error.message}",
            "Export and compile the model again.",
        ) from error


def _tolerance(expected: NDArray[Any]) -> float:
    if expected.dtype.kind != "f":
        return 0.0
    return _FLOAT_TOLERANCE * float(np.abs(expected).max())


def _compare(name: str, expected: NDArray[Any], found: NDArray[Any]) -> LayerReport:
    if expected.shape != found.shape:
        raise VitcError(
            f"The ONNX file makes {name} {list(expected.shape)}, the artefact {list(found.shape)}.",
            "Export and compile the model again.",
        )
    if expected.dtype.kind == "f":
        error = np.nan_to_num(np.abs(found - expected.astype(np.float64)), nan=np.inf)
        limit = _tolerance(expected)
        kind, wrong, worst = "float", error > limit, float(error.max()) / max(limit, 1e-300)
    else:
        error = np.abs(found.astype(np.int64) - expected.astype(np.int64))
        kind, wrong, worst = ("int" if expected.dtype == np.int32 else "bits"), error != 0, 0.0
    first = tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.any() else None
    return LayerReport(
        name,
        kind,
        values=expected.size,
        mismatches=int(wrong.sum()),
        near_ties=0,
        max_error=float(error.max()),
        worst=worst,
        first=first,
    )
