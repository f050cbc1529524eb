"""What a call of the dialect's operators has to be: types, ranks, sizes, and ranges of attributes.

The table says it in letters: an axis has one length wherever its letter stands. `..` is any number
of leading axes, K the attribute k, P the bytes that k bits take, `1|N` an axis of length 1 or N.
G groups split O rows, so G divides O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from vitc.dialect.ops import OPS
from vitc.dialect.packing import packed_width
from vitc.errors import VitcError

__all__ = ["TensorType", "call_type", "check_attributes"]

Size = int | str | None
"""Length of an axis; a name for one that is open, None for one that is not known."""

_RANGES: Final[dict[str, tuple[float, float]]] = {
    # Sums of k signs, doubled, and slacks, doubled, stay int32.
    "k": (1, (1 << 30) - 1),
    "slack": (0, (1 << 30) - 1),
    "transposed": (0, 1),
    "ratio": (0.0, 1.0),
    # Differences of scores and a cut are then no denormals, which some processors flush.
    "cut": (2.0**-100, float(np.finfo(np.float32).max)),
}


@dataclass(frozen=True)
class TensorType:
    """Type of a value.

    Attributes:
        dtype: As numpy calls it; empty if not known.
        shape: Lengths of the axes; None if not even their number is known.
        bits: How many bits are packed along the last axis; None if that is not known.
    """

    dtype: str = ""
    shape: tuple[Size, ...] | None = None
    bits: int | None = None


@dataclass(frozen=True)
class _Signature:
    inputs: tuple[tuple[str, str], ...]
    output: tuple[str, str]


def _signature(output: tuple[str, str], *inputs: tuple[str, str]) -> _Signature:
    return _Signature(inputs, output)


_LINEAR: Final = (("uint8", ".. N P"), ("uint8", "O P"))
_ROWS: Final = ("float32", "O")
_BOUND: Final = ("float32", "1|N 1|G")

_SIGNATURES: Final[dict[str, _Signature]] = {
    "PackBits": _signature(("uint8", ".. P"), ("uint8", ".. K")),
    "UnpackBits": _signature(("uint8", ".. K"), ("uint8", ".. P")),
    "Binarize": _signature(("uint8", "*"), ("float32", "*"), ("float32", "*"), ("bool", "*")),
    "BinaryLinear": _signature(("int32", ".. O"), ("uint8", ".. P"), ("uint8", "O P")),
    "ByteLinear": _signature(("int32", ".. N O"), ("uint8", ".. N K"), ("int8", "S O K")),
    "BinaryLinearThreshold": _signature(
        ("uint8", ".. N O"), *_LINEAR, _ROWS, _ROWS, _BOUND, _BOUND
    ),
    "BinaryLinearResidual": _signature(
        ("float32", ".. N O"), *_LINEAR, _ROWS, _ROWS, ("float32", "1|N 1"), ("float32", ".. N O")
    ),
    "BinaryScores": _signature(("int32", ".. N M"), ("uint8", ".. N P"), ("uint8", ".. M P")),
    "MaxSimHamming": _signature(("int32", "N .."), ("uint8", ".. A P"), ("uint8", "N B P")),
    "SoftmaxMask": _signature(("uint8", ".. N"), ("float32", ".. N")),
    "RowBestMask": _signature(("uint8", ".. N"), ("int32", ".. N")),
    "BiasedBestMask": _signature(
        ("uint8", ".. G H N M"),
        ("int32", ".. G H N M"),
        ("float32", "H N M"),
        ("bool", "1|G 1 1|N 1|M"),
    ),
    "ElasticMask": _signature(
        ("uint8", ".. N M"), ("int32", ".. N M"), ("int64", "S"), ("int64", "S")
    ),
    "MaskSignMatMul": _signature(("int32", ".. N D"), ("uint8", ".. N P"), ("uint8", ".. D P")),
    "IntegerThreshold": _signature(("uint8", "*"), ("int32", "*"), ("int32", "*")),
    "SumThreshold": _signature(("uint8", "*"), ("int32", "*"), ("float32", "*"), ("float32", "*")),
}
"""Of each operator; `*` are shapes that are broadcast."""


def check_attributes(operator: str, attributes: Mapping[str, Any]) -> None:
    """Refuse attributes that the operator does not have, lacks, or that are out of range.

    Args:
        operator: A key of `vitc.dialect.OPS`.
        attributes: Values by name; None for one of a type that no operator takes.

    Raises:
        VitcError: The message says of the attribute what is wrong, not where.
    """
    declared = dict(OPS[operator].attributes)
    for name in sorted({*declared, *attributes}):
        if name not in attributes:
            raise VitcError(f"it has no {name}")
        value = attributes[name]
        if name not in declared:
            raise VitcError(f"it has an attribute {name}, which {operator} does not know")
        if type(value).__name__ != declared[name]:
            raise VitcError(f"its {name} is no {declared[name]}")
        low, high = _RANGES[name]
        if not low <= value <= high:
            raise VitcError(f"its {name} is {value}, which is not within {low} to {high}")


def call_type(
    operator: str, attributes: Mapping[str, Any], inputs: Sequence[TensorType | None]
) -> TensorType:
    """Check a call and return the type of its result.

    Args:
        operator: A key of `vitc.dialect.OPS`.
        attributes: As `check_attributes` accepts.
        inputs: Types of the inputs, as far as they are known; None for one that is not given.

    Raises:
        VitcError: The inputs do not fit the operator, its attributes or each other; as above.
    """
    names, signature = OPS[operator].inputs, _SIGNATURES[operator]
    if len(inputs) != len(names):
        raise VitcError(f"it has {len(inputs)} inputs, not {len(names)}")
    axes = _Axes(attributes)
    shapes: list[tuple[Size, ...] | None] = []
    for name, given, (dtype, pattern) in zip(names, inputs, signature.inputs, strict=True):
        if given is None:
            raise VitcError(f"it has no {name}")
        if given.dtype and given.dtype != dtype:
            raise VitcError(f"its {name} is {given.dtype}, not {dtype}")
        if pattern.endswith("P") and given.bits not in (None, attributes["k"]):
            raise VitcError(
                f"its {name} holds {given.bits} bits, not the {attributes['k']} of its k"
            )
        shapes.append(given.shape)
        if pattern == "*" or given.shape is None:
            continue
        if attributes.get("transposed") and name == "residual":
            pattern = ".. O N"
        axes.match(name, given.shape, pattern.split())
    dtype, pattern = signature.output
    if pattern == "*":
        return TensorType(dtype, _broadcast(shapes))
    if "residual" in names:
        # It is reshaped to the residual, whatever its leading axes are.
        return TensorType(dtype, shapes[names.index("residual")])
    bits = attributes["k"] if pattern.endswith("P") else None
    first = signature.inputs[0][1].split()
    return TensorType(dtype, axes.shape(pattern.split(), first, shapes[0]), bits)


class _Axes:
    """Lengths of the axes of a call, by their letters."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self._sizes: dict[str, Size] = {}
        if "k" in attributes:
            self._sizes = {"K": attributes["k"], "P": packed_width(attributes["k"])}

    def match(self, name: str, shape: tuple[Size, ...], pattern: list[str]) -> None:
        letters = [letter for letter in pattern if letter != ".."]
        if len(shape) < len(letters) or (len(letters) == len(pattern) != len(shape)):
            wanted = f"{len(letters)}{' or more' if len(letters) < len(pattern) else ''}"
            raise VitcError(f"its {name} has {len(shape)} axes, not {wanted}")
        for size, letter in zip(shape[-len(letters) :], letters, strict=True):
            if not self._fits(size, letter):
                length = self._sizes.get(letter.removeprefix("1|"), letter)
                bits = f" for {self._sizes['K']} bits" if letter == "P" else ""
                one = "1 or " if letter.startswith("1|") else ""
                raise VitcError(
                    f"its {name} is {list(shape)}, where {size} should be {one}{length}{bits}"
                )

    def _fits(self, size: Size, letter: str) -> bool:
        if not isinstance(size, int):
            if size is not None:
                self._sizes.setdefault(letter, size)
            return True
        if letter.startswith("1|") and size == 1:
            return True
        letter = letter.removeprefix("1|")
        if letter == "1":
            return size == 1
        known = self._sizes.setdefault(letter, size)
        if not isinstance(known, int):
            self._sizes[letter] = known = size
        rows = self._sizes.get("O")
        divides = letter != "G" or not isinstance(rows, int) or (size > 0 and rows % size == 0)
        return known == size and divides

    def shape(
        self, pattern: list[str], first: list[str], sizes: tuple[Size, ...] | None
    ) -> tuple[Size, ...] | None:
        """Shape of the result: leading axes and what no letter tells as in the first input."""
        if sizes is None:
            return None
        if pattern[-1] == "..":
            return (*map(self._sizes.get, pattern[:-1]), *sizes[: len(sizes) - len(first) + 1])
        letters = pattern[1:]
        lead = sizes[: len(sizes) - len(letters)]
        inner = sizes[len(sizes) - len(letters) :]
        return (
            *lead,
            *(
                self._sizes.get(letter, size if letter == own else None)
                for letter, own, size in zip(letters, first[-len(letters) :], inner, strict=True)
            ),
        )


def _broadcast(shapes: Sequence[tuple[Size, ...] | None]) -> tuple[Size, ...] | None:
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes):
        return None
    rank = max(len(shape) for shape in known)
    padded = [(1,) * (rank - len(shape)) + shape for shape in known]
    result: list[Size] = []
    for sizes in zip(*padded, strict=True):
        wide = {size for size in sizes if isinstance(size, int) and size != 1}
        if len(wide) > 1:
            raise VitcError(f"its inputs {', '.join(str(list(s)) for s in known)} do not broadcast")
        result.append(next(iter(wide), next((s for s in sizes if s != 1), 1)))
    return tuple(result)
