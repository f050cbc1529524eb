"""How many parts an ONNX file has, counted before any is made.

An empty node takes two bytes of a file and a hundred of memory, so a file within the limit of size
could be parsed into a hundred times that. The encoding is walked without building anything: data of
tensors is one step, whatever its length.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import onnx

__all__ = ["has_more_parts"]

_VARINT, _WORD, _BYTES, _HALF_WORD = 0, 1, 2, 5


def has_more_parts(data: bytes, most: int) -> bool:
    """Whether an encoded `onnx.ModelProto` has more than `most` fields, its messages' included.

    Damaged encodings are walked as far as they go; the parser refuses them.
    """
    count = 0
    waiting: list[tuple[int, int, Any]] = [(0, len(data), onnx.ModelProto.DESCRIPTOR)]
    while waiting:
        at, end, kind = waiting.pop()
        inner = _messages(kind)
        try:
            while at < end:
                count += 1
                if count > most:
                    return True
                key, at = _varint(data, at)
                if key & 7 == _BYTES:
                    size, at = _varint(data, at)
                    if key >> 3 in inner:
                        waiting.append((at, min(at + size, end), inner[key >> 3]))
                    at += size
                elif key & 7 == _VARINT:
                    _, at = _varint(data, at)
                else:
                    at += {_WORD: 8, _HALF_WORD: 4}.get(key & 7, 0)
        except IndexError:
            continue
    return False


@cache
def _messages(kind: Any) -> dict[int, Any]:
    return {field.number: field.message_type for field in kind.fields if field.message_type}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError
