"""One rule an operator, and the table of them.

To add a rule, add a file and an entry of `RULES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vitc.compiler.fuse import ATTENTION, BYTE_PRODUCT, FLOAT_LINEAR, LINEAR_FLOAT
from vitc.compiler.relax_ops import RELAX_OPS
from vitc.compiler.rules.attention import Attention
from vitc.compiler.rules.binarize import Binarize
from vitc.compiler.rules.byte_linear import ByteLinear
from vitc.compiler.rules.embedding import Embedding
from vitc.compiler.rules.float_linear import FloatLinear
from vitc.compiler.rules.float_ops import FloatOps
from vitc.compiler.rules.layer_norm import LayerNorm
from vitc.compiler.rules.linear_float import LinearFloat
from vitc.compiler.rules.linear_residual import LinearResidual
from vitc.compiler.rules.linear_threshold import LinearThreshold
from vitc.compiler.rules.lines import LINES, Lines
from vitc.compiler.rules.max_sim import MaxSim
from vitc.compiler.rules.quantize import Quantize
from vitc.compiler.rules.rule import Rule
from vitc.compiler.rules.softmax import Softmax
from vitc.dialect.ops import DOMAIN

__all__ = ["RULES"]

_FLOATS: Final = FloatOps()

RULES: Final[Mapping[tuple[str, str], Rule]] = {
    **{("", kind): _FLOATS for kind in RELAX_OPS},
    ("", "Gather"): Embedding(),
    ("", "LayerNormalization"): LayerNorm(),
    ("", FLOAT_LINEAR): FloatLinear(),
    ("", LINES): Lines(),
    ("", "QuantizeLinear"): Quantize(),
    ("", "Softmax"): Softmax(),
    (DOMAIN, ATTENTION): Attention(),
    (DOMAIN, BYTE_PRODUCT): ByteLinear(),
    (DOMAIN, LINEAR_FLOAT): LinearFloat(),
    (DOMAIN, "Binarize"): Binarize(),
    (DOMAIN, "BinaryLinearResidual"): LinearResidual(),
    (DOMAIN, "BinaryLinearThreshold"): LinearThreshold(),
    (DOMAIN, "MaxSimHamming"): MaxSim(),
}
"""By domain and type of an operator."""
