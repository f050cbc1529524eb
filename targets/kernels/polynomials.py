"""exp, erf, tanh and sigmoid of fp32 vectors as polynomials: no symbol of a C library is left.

Instruction set: any with fp32 vectors. Tile: the caller's. Layout: none.

exp reduces its argument by multiples of ln 2 (Cody and Waite) and rounds with a large number that
is added and taken away, since ARMv7 rounds no vectors. erf and tanh are quotients of polynomials
in x^2 (those of Eigen, Eigen/src/Core/MathFunctionsImpl.h).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tvm.script.ir_builder import tirx as T

from vitc.targets.kernels.emitter import Emitter

__all__ = ["POLYNOMIALS", "exp_below_zero"]

_ROUND = 12582912.0
"""1.5 * 2^23: added to a number of less than 2^22, it leaves no place for a fraction."""
_ROUND_BITS = 0x4B400000
_LOG2_E = 1.44269504088896341
_LN2 = (0.693359375, -2.12194440e-4)
_LEAST, _MOST = -105.0, 89.0
"""Beyond, results are 0 and infinite, and so they are at these ends."""
_BIAS, _MANTISSA = 127, 23
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_LEAST_NORMAL = -87.0
"""Of whose exponential no place is lost."""
_EXP2 = (
    1.5461447463e-4, 1.3390867351e-3, 9.6180566699e-3, 5.5503571043e-2,
    2.4022650922e-1, 6.9314718803e-1,
)  # fmt: skip
"""Of (2^f - 1) / f, from f = -1/2 to 1/2, at the nodes of Chebyshev."""
_ERF_END = 4.0
_ERF = (
    (
        -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
        -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
    ),
    (
        -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03,
        -7.37332916720468e-03, -1.42647390514189e-02,
    ),
)  # fmt: skip
_TANH_END = 7.90531110763549805
_TANH = (
    (
        -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
        1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
    ),
    (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
)  # fmt: skip


def _horner(e: Emitter, x: Any, factors: Sequence[float], lanes: int) -> Any:
    result = e.constant("float32", factors[0], lanes)
    for factor in factors[1:]:
        result = e.let(result * x + e.constant("float32", factor, lanes))
    return result


def _within(e: Emitter, x: Any, least: float, most: float, lanes: int) -> Any:
    """x, or the end that it is beyond; no number stays none: of two, the second is taken then."""
    low, high = (e.constant("float32", end, lanes) for end in (least, most))
    return e.let(T.min(high, T.max(low, x)))


def _exp(e: Emitter, x: Any, lanes: int) -> Any:
    def constant(value: float) -> Any:
        return e.constant("float32", value, lanes)

    x = _within(e, x, _LEAST, _MOST, lanes)
    shifted = e.let(x * constant(_LOG2_E) + constant(_ROUND))
    kind, single = (t if lanes == 1 else f"{t}x{lanes}" for t in ("int32", "float32"))
    whole = T.call_intrin(kind, "tirx.reinterpret", shifted)
    number = e.let(whole - e.constant("int32", _ROUND_BITS, lanes))
    # Not the large number taken away from the sum: TVM would see that nothing is left of the two.
    turns = e.let(e.cast("float32", number, lanes))
    rest = e.let(x - turns * constant(_LN2[0]))
    rest = e.let(rest - turns * constant(_LN2[1]))
    value = _horner(e, rest, _EXP, lanes)
    value = e.let(value * (rest * rest) + (rest + constant(1.0)))
    # 2^n in two factors: n has places below the least exponent and above the greatest.
    first = e.let(T.shift_right(number, e.constant("int32", 1, lanes)))

    def power(exponent: Any) -> Any:
        biased = exponent + e.constant("int32", _BIAS, lanes)
        bits = T.shift_left(biased, e.constant("int32", _MANTISSA, lanes))
        return T.call_intrin(single, "tirx.reinterpret", bits)

    return value * power(first) * power(number - first)


def exp_below_zero(e: Emitter, x: Any, lanes: int) -> Any:
    """Emit exp of what is not above zero, to a relative error of 2^-24 (1 + |x|); at least 2^-126.

    It is 2^n times a polynomial of what x log2(e) has beside n: fewer operations than any x takes.

    Args:
        e: Emitter.
        x: A vector of fp32.
        lanes: Of the vector.
    """

    def constant(value: float) -> Any:
        return e.constant("float32", value, lanes)

    kind, single = (t if lanes == 1 else f"{t}x{lanes}" for t in ("int32", "float32"))
    turns = e.let(T.max(constant(_LEAST_NORMAL), x) * constant(_LOG2_E))
    whole = e.let(T.call_intrin(kind, "tirx.reinterpret", turns + constant(_ROUND)))
    # By way of integers, or TVM would see that nothing is left of the large number.
    number = T.call_intrin(single, "tirx.reinterpret", whole) - constant(_ROUND)
    value = _horner(e, e.let(turns - number), (*_EXP2, 1.0), lanes)
    bits = T.call_intrin(kind, "tirx.reinterpret", value)
    power = T.shift_left(whole, e.constant("int32", _MANTISSA, lanes))
    return T.call_intrin(single, "tirx.reinterpret", bits + power)


def _quotient(
    e: Emitter, x: Any, lanes: int, end: float, factors: tuple[Sequence[float], Sequence[float]]
) -> Any:
    x = _within(e, x, -end, end, lanes)
    square = e.let(x * x)
    above, below = (_horner(e, square, part, lanes) for part in factors)
    return x * above / below


def _erf(e: Emitter, x: Any, lanes: int) -> Any:
    return _quotient(e, x, lanes, _ERF_END, _ERF)


def _tanh(e: Emitter, x: Any, lanes: int) -> Any:
    return _quotient(e, x, lanes, _TANH_END, _TANH)


def _sigmoid(e: Emitter, x: Any, lanes: int) -> Any:
    one = e.constant("float32", 1.0, lanes)
    return one / (one + _exp(e, e.constant("float32", 0.0, lanes) - x, lanes))


Polynomial = Callable[[Emitter, Any, int], Any]

POLYNOMIALS: Final[Mapping[str, Polynomial]] = {
    "erf": _erf,
    "exp": _exp,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
}
"""By the name of TVM's operator: what emits the result of a vector of so many lanes."""
