"""Reading an ONNX file of vitc: everything that is not one is refused with one sentence."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from vitc.dialect import DOMAIN, OPS, VERSION
from vitc.dialect.entries import Entries
from vitc.dialect.metadata import (
    CONFIG_KEY,
    DIALECT_KEY,
    ENTRIES_KEY,
    FLOAT_KEY,
    FORM_KEY,
    FORMS,
    LABELS_KEY,
    MODULE_KEY,
    PASSES_KEY,
    PREPROCESSING_KEY,
    SOURCE_KEY,
    VERSION_KEY,
)
from vitc.errors import VitcError
from vitc.models.architectures import TASKS
from vitc.onnx_files.entries import read_entries
from vitc.onnx_files.external_data import embed_external_data, is_external, tensors
from vitc.onnx_files.inference import check_types
from vitc.onnx_files.limits import (
    IR_VERSIONS,
    LARGEST_FILE,
    LARGEST_IMAGE,
    LARGEST_TENSOR,
    MOST_CALLS,
    MOST_FUNCTIONS,
    MOST_INITIALIZERS,
    MOST_NESTED,
    MOST_NODES,
    MOST_PARTS,
    OPSETS,
)
from vitc.onnx_files.parts import has_more_parts

__all__ = ["ModelFacts", "is_inlined", "load_onnx", "read_facts"]

_EXPORT = "Write it with `vitc export CKPT --out M.onnx`."
_STANDARD = ("", "ai.onnx")
_INPUT_TYPES = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.UINT8,
)
_UNBOUNDED = frozenset({"Loop", "Scan", "SequenceMap"})
"""What can run for ever on no input at all."""


@dataclass(frozen=True)
class ModelFacts:
    """What an ONNX file says about itself.

    Attributes:
        version: vitc that wrote it.
        dialect: Version of domain dev.vitc.
        form: packed, int8 or float.
        config: `vitc.models.ModelConfig` as JSON values; empty for a model without one.
        preprocessing: `vitc.models.Preprocessing` as JSON values.
        labels: Class names, possibly none.
        source_sha256: SHA-256 of the checkpoint, or None.
        passes: Names of the rewrites that ran.
        float_layers: Binary layers that were allowed to be in float: name to reason.
        entries: Programs that an artefact of it has (`vitc.onnx_files.entries`); none for one.
    """

    version: str
    dialect: int
    form: str
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    labels: tuple[str, ...]
    source_sha256: str | None
    passes: tuple[str, ...]
    float_layers: dict[str, str]
    entries: Entries = field(default_factory=dict)


def load_onnx(
    path: str | os.PathLike[str], *, allow_external_data: bool = False
) -> tuple[ir.Model, ModelFacts]:
    """Read an ONNX file that vitc wrote.

    Args:
        path: The file.
        allow_external_data: Whether its constants are in other files, which are in its folder
            (`vitc.onnx_files.external_data`).

    Returns:
        The model, in memory, and what it says about itself.

    Raises:
        VitcError: The file is missing, unreadable, truncated, no ONNX file, not of vitc, of an
            unknown dialect version, uses unknown operators, keeps data in other files and that was
            not allowed, or the other way round, or is beyond a limit of `vitc.onnx_files.limits`.
    """
    file = Path(path)
    try:
        return _load(file, allow_external_data)
    except VitcError:
        raise
    except Exception as error:  # whatever a damaged graph makes onnx and onnx_ir raise
        first = str(error).strip().partition("\n")[0]
        raise VitcError(f"{file} is not a valid vitc model: {first}", _EXPORT) from error


def _load(file: Path, allow_external_data: bool) -> tuple[ir.Model, ModelFacts]:
    proto = _parse(file, _read(file))
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if DIALECT_KEY not in metadata or FORM_KEY not in metadata:
        raise VitcError(f"{file} is an ONNX file but no vitc model.", _EXPORT)
    facts = read_facts(metadata, str(file))
    _check_versions(file, proto)
    _check_sizes(file, proto)
    _check_operators(file, proto)
    _check_calls(file, proto)
    _settle_external_data(file, proto, allow_external_data)
    _check_lengths(file, proto)
    inputs, outputs = (
        [v.name for v in values] for values in (proto.graph.input, proto.graph.output)
    )
    # A file that states sizes of an image classifier has its ports; others have any.
    classifier = "image_size" in facts.config and facts.config.get("arch") not in TASKS
    if (
        not inputs
        or not outputs
        or (classifier and (inputs != ["input"] or "logits" not in outputs))
    ):
        raise VitcError(
            f"{file} maps {', '.join(inputs) or 'nothing'} to {', '.join(outputs) or 'nothing'}; "
            f"a vitc model maps {'input to logits' if classifier else 'inputs to outputs'}.",
            _EXPORT,
        )
    for value in proto.graph.input:
        _check_input(file, value)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        first = str(error).strip().partition("\n")[0]
        raise VitcError(f"{file} is not valid ONNX: {first}", _EXPORT) from error
    check_types(file, proto)
    model = ir.from_proto(proto)
    # What onnx-ir reads it may still refuse to write, such as a name that is no UTF-8.
    ir.to_proto(model)
    return model, facts


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise VitcError(
                f"{file} has {file.stat().st_size / 1e9:.1f} GB; ONNX files end at 2 GB.", _EXPORT
            )
        return file.read_bytes()
    except FileNotFoundError:
        raise VitcError(f"{file} does not exist.", _EXPORT) from None
    except OSError as error:
        raise VitcError(f"{file} cannot be read: {error.strerror or error}.") from error


def _parse(file: Path, data: bytes) -> onnx.ModelProto:
    if has_more_parts(data, MOST_PARTS):
        raise VitcError(f"{file} has more than {MOST_PARTS} parts.", _EXPORT)
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise VitcError(f"{file} is truncated or no ONNX file.", _EXPORT) from error
    if not proto.graph.node:
        raise VitcError(f"{file} is truncated or no ONNX file: it holds no graph.", _EXPORT)
    return proto


def read_facts(metadata: dict[str, str], where: str = "The model") -> ModelFacts:
    """Read what a model says about itself from its metadata properties.

    Args:
        metadata: The properties of the file.
        where: What to call the file in errors.

    Raises:
        VitcError: The dialect or format is unknown, or a property is malformed.
    """
    dialect = metadata.get(DIALECT_KEY, "")
    if dialect != str(VERSION):
        raise VitcError(
            f"{where} is of dialect version {dialect or '?'}; this vitc knows version {VERSION}.",
            "Use the vitc that wrote it, or export it again.",
        )
    form = metadata.get(FORM_KEY, "")
    if form not in FORMS:
        raise VitcError(
            f"{where} is of the unknown format {form!r}; known are {', '.join(FORMS)}.",
            "Use the vitc that wrote it, or export it again.",
        )
    return ModelFacts(
        version=metadata.get(VERSION_KEY, ""),
        dialect=int(dialect),
        form=form,
        config=_json(metadata, CONFIG_KEY, dict, where),
        preprocessing=_json(metadata, PREPROCESSING_KEY, dict, where),
        labels=tuple(_json(metadata, LABELS_KEY, list, where)),
        source_sha256=metadata.get(SOURCE_KEY) or None,
        passes=tuple(_json(metadata, PASSES_KEY, list, where)),
        float_layers={
            name: str(why) for name, why in _json(metadata, FLOAT_KEY, dict, where).items()
        },
        entries=_entries(metadata, where),
    )


def _entries(metadata: dict[str, str], where: str) -> Entries:
    try:
        return read_entries(_json(metadata, ENTRIES_KEY, dict, where))
    except ValueError as error:
        raise VitcError(
            f"{where} has a malformed property {ENTRIES_KEY}: {error}.", _EXPORT
        ) from error


def _json(metadata: dict[str, str], key: str, kind: type, where: str) -> Any:
    text = metadata.get(key)
    try:
        value = kind() if text is None else json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise VitcError(f"{where} has a malformed property {key}.", _EXPORT)
    return value


def _nodes(nodes: Any) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in _graphs(node):
            yield from _nodes(graph.node)


def _check_nesting(file: Path, nodes: Any, depth: int = 1) -> None:
    if depth > MOST_NESTED:
        raise VitcError(f"{file} nests graphs deeper than {MOST_NESTED}.", _EXPORT)
    for node in nodes:
        for graph in _graphs(node):
            _check_nesting(file, graph.node, depth + 1)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_versions(file: Path, proto: onnx.ModelProto) -> None:
    opsets = [entry.version for entry in proto.opset_import if entry.domain in _STANDARD]
    for body in proto.functions:
        opsets += [entry.version for entry in body.opset_import if entry.domain in _STANDARD]
    versions = [("IR version", proto.ir_version, IR_VERSIONS)]
    versions += [("opset", opset, OPSETS) for opset in opsets]
    for what, found, (first, last) in versions:
        if not first <= found <= last:
            raise VitcError(
                f"{file} is of {what} {found}; this vitc reads {first} to {last}.", _EXPORT
            )


def _check_sizes(file: Path, proto: onnx.ModelProto) -> None:
    everything = [*proto.graph.node, *(node for body in proto.functions for node in body.node)]
    _check_nesting(file, everything)
    counts = {
        "nodes": (sum(1 for _ in _nodes(everything)), MOST_NODES),
        "constants": (sum(1 for _ in tensors(proto)), MOST_INITIALIZERS),
        "functions": (len(proto.functions), MOST_FUNCTIONS),
    }
    for what, (found, most) in counts.items():
        if found > most:
            raise VitcError(f"{file} has {found} {what}; vitc reads up to {most}.", _EXPORT)
    for tensor in tensors(proto):
        if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > LARGEST_TENSOR:
            raise VitcError(
                f"{file}: the constant {tensor.name} has shape {list(tensor.dims)}.", _EXPORT
            )


def _check_lengths(file: Path, proto: onnx.ModelProto) -> None:
    """Refuse constants with more or fewer bytes than their shapes need; onnx minds fewer only."""
    for tensor in tensors(proto):
        if not tensor.HasField("raw_data"):
            continue
        wanted = math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).itemsize)
        if len(tensor.raw_data) != wanted:
            raise VitcError(
                f"{file} is not valid ONNX: the constant {tensor.name} has "
                f"{len(tensor.raw_data)} bytes, its shape {list(tensor.dims)} needs {wanted}.",
                _EXPORT,
            )


def _check_calls(file: Path, proto: onnx.ModelProto) -> None:
    """Refuse functions that call themselves, or each other too deep."""
    called = {
        (body.domain, body.name): [(node.domain, node.op_type) for node in _nodes(body.node)]
        for body in proto.functions
    }
    if len(called) != len(proto.functions):
        raise VitcError(f"{file} defines a function twice.", _EXPORT)
    level = [list(called)]
    # Each round follows one more call; without recursion it ends soon.
    while level[-1]:
        if len(level) > MOST_CALLS:
            raise VitcError(
                f"{file}: functions call themselves, or each other deeper than {MOST_CALLS}.",
                _EXPORT,
            )
        level.append(list({callee for name in level[-1] for callee in called[name]} & set(called)))


def _check_input(file: Path, image: onnx.ValueInfoProto) -> None:
    """Refuse an input that is no batch of images of a sensible size."""
    kind = image.type.tensor_type
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim[1:]]
    known = [size for size in sizes if size is not None]
    fits = (
        kind.elem_type in _INPUT_TYPES
        and len(kind.shape.dim) > 1
        and all(size > 0 for size in known)
        and math.prod(known) <= LARGEST_IMAGE
    )
    if not fits:
        raise VitcError(
            f"{file}: the input {image.name} is no batch of at most {LARGEST_IMAGE} values each, "
            "of fp32, integers or bytes.",
            _EXPORT,
        )


def _check_operators(file: Path, proto: onnx.ModelProto) -> None:
    imported = {entry.domain: entry.version for entry in proto.opset_import}
    if imported.get(DOMAIN, VERSION) != VERSION:
        raise VitcError(
            f"{file} imports {DOMAIN} version {imported[DOMAIN]}; this vitc knows {VERSION}.",
            "Use the vitc that wrote it, or export it again.",
        )
    bodies = (node for function in proto.functions for node in function.node)
    for node in _nodes((*proto.graph.node, *bodies)):
        if node.domain not in (*_STANDARD, DOMAIN):
            raise VitcError(
                f"{file} uses {node.op_type} of the unknown domain {node.domain}.", _EXPORT
            )
        if node.domain in _STANDARD and node.op_type in _UNBOUNDED:
            raise VitcError(f"{file} uses {node.op_type}, which no export of vitc has.", _EXPORT)
        if node.domain == DOMAIN and node.op_type not in OPS:
            raise VitcError(f"{file} uses {node.op_type}, which {DOMAIN} does not have.", _EXPORT)


def _settle_external_data(file: Path, proto: onnx.ModelProto, allowed: bool) -> None:
    external = [tensor for tensor in tensors(proto) if is_external(tensor)]
    if external and not allowed:
        raise VitcError(
            f"{file} keeps weights in other files, which vitc does not read unasked.",
            "If they belong to it and are in its folder, add --allow-external-data.",
        )
    if allowed and not external:
        raise VitcError(
            f"{file} keeps no data in other files.", "Leave --allow-external-data away."
        )
    embed_external_data(file, proto)


def is_inlined(model: ir.Model, form: str) -> bool:
    """Whether a model of this format would call operators of the dialect, but calls none.

    A network without a binary layer has nothing to inline.
    """
    return (
        form == "packed"
        and all(node.domain != DOMAIN for node in model.graph)
        and any(MODULE_KEY in node.metadata_props for node in model.graph)
    )
