"""The operators of domain `dev.vitc`, version 1, as a table."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DOMAIN", "IR_VERSION", "OPS", "OPSET", "VERSION", "DialectOp"]

DOMAIN = "dev.vitc"
VERSION = 1
OPSET = 21
IR_VERSION = 10


@dataclass(frozen=True)
class DialectOp:
    """One operator of the dialect.

    Attributes:
        name: Operator type, unique across domains.
        inputs: Input names in order.
        output: Output name.
        attributes: Attribute name and type ("int" or "float"), in order; all are required.
        doc: Shapes and formula.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: tuple[tuple[str, str], ...]
    doc: str


_K = (("k", "int"),)

OPS: dict[str, DialectOp] = {
    spec.name: spec
    for spec in (
        DialectOp(
            "PackBits", ("bits",), "packed", _K,
            "bits uint8 [..,K] -> uint8 [..,P(K)], first bit lowest, pad bits 0.",
        ),
        DialectOp(
            "UnpackBits", ("packed",), "bits", _K,
            "packed uint8 [..,P(K)] -> uint8 {0,1} [..,K].",
        ),
        DialectOp(
            "Binarize", ("x", "threshold", "flip"), "bits", (),
            "x float, threshold float, flip bool (both broadcast) -> (x >= threshold) XOR flip.",
        ),
        DialectOp(
            "BinaryLinear", ("x", "weight"), "integers", _K,
            "x [..,P(K)], weight [O,P(K)] -> int32 [..,O]: K - 2 popcount(x XOR weight).",
        ),
        DialectOp(
            "ByteLinear", ("x", "weight"), "integers", (),
            "x uint8 [..,N,K], weight int8 [S,O,K] -> int32 [..,N,O]: the sum over k of x[..,k] "
            "W[o,k], W the sum over s of weight[s] 128^(S-1-s); S is 1 or 2.",
        ),
        DialectOp(
            "BinaryLinearThreshold",
            ("x", "weight", "scale", "offset", "upper", "lower"), "bits", _K,
            "x [..,N,P(K)], weight [O,P(K)], scale and offset [O], upper and lower [1|N,1|G] -> "
            "bits [..,N,O]: (scale[o] I >= offset[o] + upper[n,g]) OR "
            "(scale[o] I <= offset[o] + lower[n,g]), g = o / (O/G), fp32.",
        ),
        DialectOp(
            "BinaryLinearResidual",
            ("x", "weight", "scale", "bias", "gain", "residual"), "sum",
            (("k", "int"), ("transposed", "int")),
            "x [..,N,P(K)], weight [O,P(K)], scale and bias [O], gain [1|N,1], residual [..,N,O] "
            "(transposed: [..,O,N]) -> residual + gain[n] (scale[o] I + bias[o]), fp32.",
        ),
        DialectOp(
            "BinaryScores", ("query", "key"), "scores", _K,
            "query [..,N,P(K)], key [..,M,P(K)] -> int32 [..,N,M]: K - 2 popcount(XOR).",
        ),
        DialectOp(
            "MaxSimHamming", ("query", "documents"), "scores", _K,
            "query [..,A,P(K)], documents [N,B,P(K)] -> int32 [N,..]: the sum over a of the "
            "largest K - 2 popcount(query[..,a] XOR documents[n,b]) over b.",
        ),
        DialectOp(
            "SoftmaxMask", ("p",), "mask", (("ratio", "float"),),
            "p float [..,N] -> bits: p >= ratio * rowmax.",
        ),
        DialectOp(
            "RowBestMask", ("scores",), "mask", (("slack", "int"),),
            "scores int32 [..,N] -> bits: scores >= rowmax - 2 slack.",
        ),
        DialectOp(
            "BiasedBestMask", ("scores", "bias", "excluded"), "mask", (("cut", "float"),),
            "scores int32 [..,G,H,N,M], bias fp32 [H,N,M], excluded bool [1|G,1,1|N,1|M] -> bits: "
            "t >= rowmax(t) - cut, t = scores + bias, -inf where excluded, fp32.",
        ),
        DialectOp(
            "ElasticMask", ("scores", "terms", "least"), "mask", (),
            "scores int32 [..,N,M], terms and least int64 [S] -> bits: least[h] > sum of the row's "
            "terms[h], h = (rowmax - scores) / 2, below S.",
        ),
        DialectOp(
            "MaskSignMatMul", ("mask", "value"), "integers", _K,
            "mask [..,N,P(K)], value packed along tokens [..,D,P(K)] -> int32 [..,N,D]: "
            "2 popcount(mask AND value) - popcount(mask).",
        ),
        DialectOp(
            "IntegerThreshold", ("x", "threshold"), "bits", (),
            "x int32, threshold int32 (broadcast) -> bits: x >= threshold.",
        ),
        DialectOp(
            "SumThreshold", ("x", "first", "second"), "bits", (),
            "x int32, first and second fp32 (all broadcast) -> bits: x >= first + second, fp32.",
        ),
    )
}  # fmt: skip
