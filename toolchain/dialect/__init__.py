"""The ONNX dialect `dev.vitc`: operators, function bodies, numpy reference, test vectors.

The constants, the table, packing and the reference need numpy only; `vitc.dialect.bodies` and
`vitc.dialect.vectors` need onnx and onnxscript and are imported by name.
"""

from __future__ import annotations

from vitc.dialect.ops import DOMAIN, IR_VERSION, OPS, OPSET, VERSION, DialectOp
from vitc.dialect.packing import pack_bits, packed_width, unpack_bits
from vitc.dialect.reference import evaluate

__all__ = [
    "DOMAIN",
    "IR_VERSION",
    "OPS",
    "OPSET",
    "VERSION",
    "DialectOp",
    "evaluate",
    "pack_bits",
    "packed_width",
    "unpack_bits",
]
