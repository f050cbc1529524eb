"""A graph of one operator that scores documents: the entry of an artefact that searches."""

from __future__ import annotations

import importlib.metadata

import onnx
import onnx_ir as ir
from onnx import helper

from vitc.dialect.bodies import set_functions
from vitc.dialect.metadata import DIALECT_KEY, FORM_KEY, LAYER_KEY, VERSION_KEY
from vitc.dialect.ops import DOMAIN, VERSION
from vitc.dialect.packing import packed_width

__all__ = ["DOCUMENTS", "QUERY", "SCORES", "scan_graph"]

QUERY, DOCUMENTS, SCORES = "query", "documents", "scores"
"""Names of its ports."""


def scan_graph(queries: int, documents: int, width: int, *, texts: int | None = None) -> ir.Model:
    """Return the model of a scan.

    Its inputs are `query` uint8 [a, P] and `documents` uint8 [n, b, P], and its output is `scores`
    int32 [n]; with texts [t, a, P], and [n, t]. The axis n is the extent of a run.

    Args:
        queries: a, vectors of a text.
        documents: b, vectors of a document.
        width: d, bits of a vector.
        texts: How many are scored at once; None for one, without an axis.
    """
    row, lead = packed_width(width), [] if texts is None else [texts]
    value, byte = helper.make_tensor_value_info, onnx.TensorProto.UINT8
    node = helper.make_node(
        "MaxSimHamming",
        [QUERY, DOCUMENTS],
        [SCORES],
        "scores/MaxSimHamming",
        domain=DOMAIN,
        k=width,
    )
    node.metadata_props.add(key=LAYER_KEY, value=SCORES)
    graph = helper.make_graph(
        [node],
        "scan",
        [value(QUERY, byte, [*lead, queries, row]), value(DOCUMENTS, byte, ["n", documents, row])],
        [value(SCORES, onnx.TensorProto.INT32, ["n", *lead])],
    )
    model = ir.from_proto(helper.make_model(graph, producer_name="vitc"))
    set_functions(model)
    version = importlib.metadata.version("vitc")
    model.producer_version = version
    model.metadata_props.update(
        {VERSION_KEY: version, DIALECT_KEY: str(VERSION), FORM_KEY: "packed"}
    )
    return model
