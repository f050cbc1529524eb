"""`vitc export`: a PyTorch model of vitc's layers to an ONNX file."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from torch import nn

from vitc.dialect import DOMAIN, VERSION, packed_width
from vitc.dialect.bodies import set_functions
from vitc.dialect.metadata import (
    CONFIG_KEY,
    DIALECT_KEY,
    ENTRIES_KEY,
    FLOAT_KEY,
    FORM_KEY,
    FORMS,
    LABELS_KEY,
    MODULE_KEY,
    PREPROCESSING_KEY,
    SOURCE_KEY,
    VERSION_KEY,
)
from vitc.dialect.proto import to_proto
from vitc.errors import VitcError
from vitc.exporter.capture import capture
from vitc.exporter.coverage import (
    check_modules,
    fallen_layers,
    known_layers,
    settle_float_layers,
    wide_layers,
)
from vitc.exporter.example import Example, inputs_of
from vitc.exporter.inline import inline_functions
from vitc.exporter.naming import name_everything
from vitc.exporter.taps import name_layers, name_modules, name_outputs, name_taps
from vitc.exporter.tidy import fold_constants, strip_origins, use_static_shapes
from vitc.models import binary_modules, freeze
from vitc.onnx_files.entries import entries_to_json, entry_models
from vitc.onnx_files.limits import LARGEST_FILE
from vitc.outputs import claim_file, explained, prepare_folder
from vitc.passes import LOWERINGS, PHASES, PassReport, run_phases

__all__ = ["ExportResult", "Traced", "build", "export", "trace", "trace_frozen"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """An exported file.

    Attributes:
        path: The file.
        form: packed, int8 or float.
        file_bytes: Size of the file.
        weight_bytes: Bytes of binary weights in it.
        constant_bytes: Bytes of all other constants.
        binary_modules: Binary linear modules of the PyTorch model.
        binary_operators: Binary linear operators they became.
        operators: Operator type and number, standard and dialect.
        passes: What each pass did.
        float_layers: Binary layers that are in float because they were allowed to: to reason.
    """

    path: Path
    form: str
    file_bytes: int
    weight_bytes: int
    constant_bytes: int
    binary_modules: int
    binary_operators: int
    operators: dict[str, int]
    passes: tuple[PassReport, ...]
    float_layers: dict[str, str]

    def __repr__(self) -> str:
        size = f"{self.binary_operators} binary operators, {self.file_bytes} bytes"
        return f"ExportResult({str(self.path)!r}, {self.form}: {size})"


@dataclass(frozen=True, eq=False)
class Traced:
    """A traced model. Tracing takes most of an export; this is what every format starts from.

    Attributes:
        model: The model.
        frozen: The model in inference form.
        graph: What `capture` made of that, as a message: clones of a model in memory share types
            and shapes, which rewrites change.
    """

    model: nn.Module
    frozen: nn.Module
    graph: onnx.ModelProto


def trace(model: nn.Module, example: Example | None = None) -> Traced:
    """Trace a model once, for several formats and checks.

    Args:
        model: A model built of vitc's layers, on the CPU. What changes in it later is not seen.
        example: An input [B, ..], or several in order or by the names of the model's forward
            method; types and sizes count. By default zeros of ``model.config.input_shape``.

    Raises:
        VitcError: The model cannot be traced, two layers have one name, a tap's first axis is not
            the image, the example does not fit, or there is none and the model says no shape.
    """
    return trace_frozen(model, freeze(model, keep=wide_layers(model)), example)


def trace_frozen(model: nn.Module, frozen: nn.Module, example: Example | None = None) -> Traced:
    """Trace a model whose inference form is at hand.

    Args:
        model: As in `trace`.
        frozen: Its inference form, which is read and not changed.
        example: As in `trace`.

    Raises:
        VitcError: As in `trace`.
    """
    captured = capture(frozen, inputs_of(model, example))
    return Traced(model, frozen, ir.to_proto(captured))


def build(
    model: nn.Module | Traced,
    *,
    form: str = "packed",
    example: Example | None = None,
    dump: Path | None = None,
    allow_float: Collection[str] = (),
    inline: bool = False,
) -> tuple[ir.Model, tuple[PassReport, ...]]:
    """Make the ONNX model in memory; the same model gives the same bytes.

    Args:
        model: A model built of vitc's layers, on the CPU, or what `trace` made of one.
        form: packed, int8 or float.
        example: As in `trace`, for a model that is not traced yet.
        dump: Folder for the model after each pass, or None.
        allow_float: Layers that may be in float, or modules that hold some; not in format float.
        inline: Whether the operators of the dialect are written out in standard ones, for readers
            that know no functions; weights stay packed. Only in format packed.

    Returns:
        The model and what each pass did.

    Raises:
        VitcError: The format is unknown, the model cannot be traced, a binary layer was lost or
            falls back to float and may not, or a name in `allow_float` allows nothing.
    """
    if form not in FORMS:
        raise VitcError(f"Unknown format {form!r}.", f"Choose one of {', '.join(FORMS)}.")
    if form == "float" and allow_float:
        raise VitcError(
            "Format float stores bits as signs, which a layer in float does not read.",
            "Allow layers in float with --format packed or int8.",
        )
    _refuse_idle_inlining(form, inline)
    if isinstance(model, Traced) and example is not None:
        raise VitcError("The model is traced already.", "Pass example= to `trace`.")
    _refuse_idle_int8(form, model.model if isinstance(model, Traced) else model)
    traced = model if isinstance(model, Traced) else trace(model, example)
    frozen, in_float = traced.frozen, wide_layers(traced.model)
    onnx_model = ir.from_proto(_copied(traced.graph))
    graph = onnx_model.graph
    outputs = [str(value.name) for value in graph.outputs]
    strip_origins(onnx_model)
    name_modules(graph)
    fold_constants(onnx_model)
    use_static_shapes(onnx_model)
    name_taps(graph)
    name_outputs(graph, outputs)
    name_layers(graph)
    set_functions(onnx_model)
    if dump is not None:
        _dump(onnx_model, dump / "00_captured.onnx")
    reports = run_phases(onnx_model, PHASES, dump)
    check_modules(graph, frozen)
    in_float = settle_float_layers(
        frozen, in_float | fallen_layers(graph), known_layers(graph, frozen), allow_float
    )
    _type_packed(graph)
    reports += run_phases(onnx_model, LOWERINGS[form], dump)
    name_layers(graph)
    name_everything(onnx_model, frozen.state_dict().keys())
    _finish(onnx_model, traced.model, form, in_float)
    if inline:
        _inline(onnx_model)
    return onnx_model, reports


def export(
    model: nn.Module | Traced,
    out: str | os.PathLike[str],
    *,
    form: str = "packed",
    example: Example | None = None,
    dump: Path | None = None,
    allow_float: Collection[str] = (),
    inline: bool = False,
    check: Callable[[Path], object] | None = None,
    force: bool = False,
) -> ExportResult:
    """Write `model` as an ONNX file.

    The file is written beside `out`, checked, and then renamed, so `out` is never half a file.

    Args:
        model: As in `build`.
        out: Path of the file.
        form: packed (dialect, packed weights), int8 or float (standard operators only).
        example: As in `build`.
        dump: As in `build`.
        allow_float: As in `build`.
        inline: As in `build`.
        check: Called with the written file before it gets its name; an exception leaves nothing.
        force: Whether an existing file may be replaced.

    Returns:
        Path, sizes, counts and pass reports.

    Raises:
        VitcError: As in `build`; or the file would be larger than 2 GB or invalid, exists, or
            cannot be written.
    """
    path = Path(out)
    _refuse_idle_inlining(form, inline)
    with claim_file(path, force=force) as output:
        if dump is not None:
            prepare_folder(dump, force=force)
        onnx_model, reports = build(
            model, form=form, example=example, dump=dump, allow_float=allow_float
        )
        weight_bytes, constant_bytes = _sizes(onnx_model.graph)
        binary_operators = sum(MODULE_KEY in node.metadata_props for node in onnx_model.graph)
        if inline:
            _inline(onnx_model)
        if weight_bytes + constant_bytes > LARGEST_FILE:
            raise VitcError(
                f"The file would hold {(weight_bytes + constant_bytes) / 1e9:.1f} GB of constants; "
                "ONNX files end at 2 GB.",
                "Export with --format packed, or a smaller model.",
            )
        data = _serialized(onnx_model)
        with output.aside() as part:
            with explained(path):
                part.write_bytes(data)
            if check is not None:
                check(part)
    module = model.model if isinstance(model, Traced) else model
    modules = binary_modules(module).keys() - wide_layers(module).keys()
    result = ExportResult(
        path=path,
        form=form,
        file_bytes=len(data),
        weight_bytes=weight_bytes,
        constant_bytes=constant_bytes,
        binary_modules=len(modules),
        binary_operators=binary_operators,
        operators=dict(sorted(Counter(node.op_type for node in onnx_model.graph).items())),
        passes=reports,
        float_layers=json.loads(onnx_model.metadata_props.get(FLOAT_KEY, "{}")),
    )
    logger.info("wrote %s, %d bytes", path, result.file_bytes)
    return result


def _refuse_idle_inlining(form: str, inline: bool) -> None:
    if inline and form != "packed":
        raise VitcError(
            f"Format {form} has standard operators only, so there is nothing to inline.",
            "Leave --inline away, or export with --format packed.",
        )


def _refuse_idle_int8(form: str, model: nn.Module) -> None:
    if form == "int8" and not binary_modules(model):
        raise VitcError(
            f"A {type(model).__name__} has no binary layer, so format int8 would leave it in fp32.",
            "Export it with --format packed, which `vitc compile` reads too.",
        )


def _inline(onnx_model: ir.Model) -> None:
    named = set(onnx_model.graph.initializers)
    inline_functions(onnx_model)
    name_layers(onnx_model.graph)
    name_everything(onnx_model, named)


def _copied(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A message of its own: constants are not copied when they are read, and rewrites name them."""
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    return copied


def _type_packed(graph: ir.Graph) -> None:
    for node in graph:
        bits, packed = node.inputs[0] if node.inputs else None, node.outputs[0]
        if (node.domain, node.op_type) == (DOMAIN, "PackBits") and bits is not None:
            packed.dtype = ir.DataType.UINT8
            if bits.shape is not None:
                packed.shape = ir.Shape(
                    [*bits.shape[:-1], packed_width(node.attributes["k"].as_int())]
                )


def _finish(onnx_model: ir.Model, model: nn.Module, form: str, in_float: Mapping[str, str]) -> None:
    version = importlib.metadata.version("vitc")
    set_functions(onnx_model)
    onnx_model.producer_name, onnx_model.producer_version = "vitc", version
    onnx_model.metadata_props.update(
        {
            VERSION_KEY: version,
            DIALECT_KEY: str(VERSION),
            FORM_KEY: form,
            CONFIG_KEY: _json(getattr(model, "config", None)),
            PREPROCESSING_KEY: _json(getattr(model, "preprocessing", None)),
            LABELS_KEY: json.dumps(list(getattr(model, "labels", None) or [])),
            SOURCE_KEY: str(getattr(model, "source_sha256", None) or ""),
        }
    )
    if in_float:
        onnx_model.metadata_props[FLOAT_KEY] = json.dumps(in_float)
    entries = getattr(model, "entries", None)
    if entries:
        onnx_model.metadata_props[ENTRIES_KEY] = entries_to_json(entries)
        entry_models(onnx_model, entries)


def _json(described: Any) -> str:
    return json.dumps({} if described is None else described.to_dict())


def _sizes(graph: ir.Graph) -> tuple[int, int]:
    """Return (bytes of binary weights, bytes of other constants)."""
    weights = others = 0
    for value in graph.initializers.values():
        size = 0 if value.const_value is None else value.const_value.nbytes
        of_module = any(
            MODULE_KEY in use.node.metadata_props and use.idx == 1 for use in value.uses()
        )
        weights, others = (weights + size, others) if of_module else (weights, others + size)
    return weights, others


def _dump(onnx_model: ir.Model, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(to_proto(onnx_model), path)


def _serialized(onnx_model: ir.Model) -> bytes:
    data: bytes = to_proto(onnx_model).SerializeToString(deterministic=True)
    if len(data) > LARGEST_FILE:
        raise VitcError(
            f"The file would be {len(data) / 1e9:.1f} GB; ONNX files end at 2 GB.",
            "Export with --format packed, or a smaller model.",
        )
    try:
        onnx.checker.check_model(data)
    except onnx.checker.ValidationError as error:
        first = str(error).partition("\n")[0]
        raise VitcError(f"The exported graph is not valid ONNX: {first}") from error
    return data
