"""Constants that an ONNX file keeps in other files, read into the model by nobody but this module.

onnx, onnx-ir and ONNX Runtime each follow such references in their own way. Here they are followed
before any of them sees the model, and what goes on is a model that holds everything itself. A
reference can name a regular file in the model's folder or below it, and nothing else: each step of
the way is opened relative to the one before, without following links, and judged by its descriptor,
so there is no moment between a check and a use.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from vitc.errors import VitcError
from vitc.onnx_files.limits import LARGEST_FILE

__all__ = ["embed_external_data", "is_external", "tensors"]

_KEYS = frozenset({"location", "offset", "length"})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK opening a pipe would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HINT = "Write the model as one file: onnx.save(onnx.load(FILE), FILE)."


class _Refused(Exception):  # noqa: N818 - a reason, which gets its sentence where it is caught
    pass


def tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor in a message, in whatever field: a reader follows references in all of them."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if isinstance(value, Message) else value:
            if isinstance(part, onnx.TensorProto):
                yield part
            else:
                yield from tensors(part)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether a constant says that its data is elsewhere."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data)


def embed_external_data(file: Path, proto: onnx.ModelProto) -> None:
    """Read what constants keep in other files into the constants.

    Args:
        file: Where the model is; its folder holds the other files.
        proto: The model, changed in place.

    Raises:
        VitcError: If a reference is not to a part of a regular file in the model's folder or below
            it, reached without links and with no second name, or all of them are beyond 2 GB.
    """
    left = LARGEST_FILE - file.stat().st_size
    for tensor in tensors(proto):
        if not is_external(tensor):
            continue
        try:
            data = _read(file.parent, tensor, left)
        except _Refused as reason:
            raise VitcError(f"{file}: the data of {tensor.name} {reason}.", _HINT) from None
        left -= len(data)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data


def _read(folder: Path, tensor: onnx.TensorProto, most: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    unknown = sorted(set(entries) - _KEYS)
    if unknown or len(entries) != len(tensor.external_data):
        raise _Refused(f"is described by {', '.join(unknown) or 'a key that is given twice'}")
    if tensor.data_location != onnx.TensorProto.EXTERNAL or tensor.raw_data:
        raise _Refused("is said to be both in the file and elsewhere")
    offset = _number(entries.get("offset", "0"))
    parts = _parts(entries.get("location", ""))
    with ExitStack() as opened:
        handle = _opened(folder, parts, opened)
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise _Refused(f"is in {'/'.join(parts)}, which is no regular file")
        if facts.st_nlink != 1:
            raise _Refused(f"is in {'/'.join(parts)}, which is a hard link: it has another name")
        rest = facts.st_size - offset
        length = _number(entries["length"]) if "length" in entries else rest
        if rest < 0 or length > rest:
            raise _Refused(f"ends beyond {'/'.join(parts)}, which has {facts.st_size} bytes")
        if length > most:
            raise _Refused("makes the model larger than 2 GB")
        data = b"".join(_chunks(handle, offset, length))
    if len(data) != length:
        raise _Refused(f"is in {'/'.join(parts)}, which shrank while it was read")
    return data


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise _Refused(f"has the offset or length {text[:40]!r}")
    return int(text)


def _parts(location: str) -> list[str]:
    parts = location.split("/")
    if "\0" in location or any(part in ("", ".", "..") for part in parts):
        raise _Refused(f"is at {location[:80]!r}, which is no plain path below the model's folder")
    return parts


def _opened(folder: Path, parts: Sequence[str], opened: ExitStack) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, handle)
    for depth, part in enumerate(parts, 1):
        flags = _FOLDER if depth < len(parts) else _FILE
        try:
            handle = os.open(part, flags, dir_fd=handle)
        except OSError as error:
            where = "/".join(parts[:depth])
            link = _is_link(part, handle)
            why = "is a symbolic link" if link else f"cannot be opened: {error.strerror}"
            raise _Refused(f"is in {'/'.join(parts)}, but {where} {why}") from error
        opened.callback(os.close, handle)
    return handle


def _is_link(part: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _chunks(handle: int, offset: int, length: int) -> Iterator[bytes]:
    while length and (chunk := os.pread(handle, min(length, 1 << 26), offset)):
        yield chunk
        offset, length = offset + len(chunk), length - len(chunk)
