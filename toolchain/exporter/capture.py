"""From a PyTorch module to a raw ONNX graph: torch.export and the translation of vitc's ops.

Operators of the dialect are opaque here; their bodies are added to the finished file. A binary
linear becomes `BinaryLinear(PackBits(bits), PackBits(weight))`, so the graph is valid ONNX from the
start, and a tap becomes a node that `vitc.exporter.taps` turns into a value name.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript
import torch
from onnxscript.values import Op, Opset
from torch import nn

import vitc.models.ops
from vitc.dialect import DOMAIN, OPS, OPSET, VERSION
from vitc.errors import VitcError

__all__ = ["TAP_OP", "capture"]

TAP_OP = "Tap"
BATCH = "batch"

_Schema: Any = onnx.defs.OpSchema
_op: Any = onnxscript.opset21


def _opaque(name: str, inputs: tuple[str, ...], attributes: tuple[tuple[str, str], ...]) -> Any:
    types = [f"tensor({kind})" for kind in ("float", "double", "uint8", "int32", "int64", "bool")]
    kinds = {
        "int": _Schema.AttrType.INT,
        "float": _Schema.AttrType.FLOAT,
        "string": _Schema.AttrType.STRING,
    }
    schema = _Schema(
        name,
        DOMAIN,
        VERSION,
        inputs=[_Schema.FormalParameter(each, f"T_{each}") for each in inputs],
        outputs=[_Schema.FormalParameter("output", "T")],
        type_constraints=[(kind, types, "") for kind in ("T", *(f"T_{each}" for each in inputs))],
        attributes=[_Schema.Attribute(n, kinds[kind], "", required=True) for n, kind in attributes],
    )
    return Op(Opset(DOMAIN, VERSION), name, schema)


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    dialect = {spec.name: _opaque(spec.name, spec.inputs, spec.attributes) for spec in OPS.values()}
    named = _opaque(TAP_OP, ("x",), (("name", "string"),))

    def packed(bits: Any) -> tuple[Any, int]:
        k = int(bits.shape[-1])
        return dialect["PackBits"](bits, k=k), k

    def binarize(x: Any) -> Any:
        flip = onnx.numpy_helper.from_array(np.zeros((), dtype=bool))
        return dialect["Binarize"](x, _op.Constant(value_float=0.0), _op.Constant(value=flip))

    def binary_linear(bits: Any, weight: Any) -> Any:
        (x, k), (w, _) = packed(bits), packed(weight)
        return dialect["BinaryLinear"](x, w, k=k)

    def binary_scores(q: Any, k: Any) -> Any:
        (query, width), (key, _) = packed(q), packed(k)
        return dialect["BinaryScores"](query, key, k=width)

    def softmax_mask(p: Any, ratio: float) -> Any:
        return dialect["SoftmaxMask"](p, ratio=ratio)

    def mask_sign_matmul(mask: Any, v: Any) -> Any:
        rank = len(v.shape)
        by_token = _op.Transpose(v, perm=[*range(rank - 2), rank - 1, rank - 2])
        rows, tokens = packed(mask)
        return dialect["MaskSignMatMul"](rows, dialect["PackBits"](by_token, k=tokens), k=tokens)

    def tap(x: Any, name: str) -> Any:
        return named(x, name=name)

    own = torch.ops.vitc
    return {
        own.binarize.default: binarize,
        own.binary_linear.default: binary_linear,
        own.binary_scores.default: binary_scores,
        own.softmax_mask.default: softmax_mask,
        own.mask_sign_matmul.default: mask_sign_matmul,
        own.tap.default: tap,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def capture(frozen: nn.Module, example: torch.Tensor) -> ir.Model:
    """Trace a frozen model into a raw graph with a dynamic batch.

    Args:
        frozen: Model in inference form (`vitc.models.freeze`), one tensor in, one tensor out.
        example: An input of the model, its first axis the batch.

    Returns:
        The graph, input `input`, output `logits`, with opaque operators of the dialect and taps.

    Raises:
        VitcError: torch.export or the translation to ONNX fails; the message has its first line.
    """
    if not hasattr(torch.ops.vitc, "tap"):
        raise VitcError(f"The operators of {vitc.models.ops.__name__} are not registered.")
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                frozen,
                (example,),
                dynamo=True,
                custom_translation_table=_translations(),
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim(BATCH)},),
                input_names=["input"],
                output_names=["logits"],
                optimize=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, VitcError):
            raise cause from error
        raise VitcError(
            f"The model could not be traced: {str(cause).strip().partition(chr(10))[0]}",
            "A model for vitc is built of the layers of vitc.models and plain torch operators.",
        ) from error
    if program is None:
        raise VitcError("torch.onnx.export returned nothing.")
    model: ir.Model = program.model
    return model
