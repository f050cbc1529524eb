"""The index: packed bits of every image in one file, checksummed, read through the page cache.

    magic "VITCIDX1" | length of the header, u64 | header, JSON | its CRC-32, u32 | sections

The header names the model, the sizes and the sections: where each begins, its bytes, and a CRC-32 a
block of 1 MiB. Numbers are little-endian and sections begin at multiples of 64 bytes, so that a
scan reads aligned rows of the mapped file. A section is checked where it is read. An index is
written whole and gets its name then: no reader ever sees half of one.

| section | holds |
|---|---|
| `first` | the first vector of each image, uint8 [images, P(d)]: what a scan of all reads |
| `tokens` | all vectors of each image, uint8 [images, n, P(d)]: what re-ranking reads |
| `ids` | the names of the images, UTF-8, each ended by a zero byte |
| `stamps` | bytes and time of each picture file, int64 [images, 2]: what has changed since |
"""

from __future__ import annotations

import json
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from vitc.dialect.packing import packed_width
from vitc.errors import VitcError
from vitc.outputs import FileOutput, explained

__all__ = ["Index", "IndexFacts", "Packed", "Vectors", "write_index"]

Packed = NDArray[np.uint8]

_MAGIC: Final = b"VITCIDX1"
_FAMILY: Final = b"VITCIDX"
_ALIGNMENT: Final = 64
_BLOCK: Final = 1 << 20
_LONGEST_HEADER: Final = 1 << 26
_STAMP: Final = 16
_AGAIN: Final = "Build it again: `vitc index build`."


@dataclass(frozen=True)
class IndexFacts:
    """What an index is of.

    Attributes:
        model: SHA-256 of the model that encoded the images, in hexadecimal.
        width: d, bits of a vector.
        tokens: n, vectors of an image.
        made_by: Path of that model as the index was built; empty if it is not known.
        photos: Folder that names are paths in; empty if it is not known.
    """

    model: str
    width: int
    tokens: int
    made_by: str = ""
    photos: str = ""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Encoded images.

    Attributes:
        ids: Their names, each once.
        tokens: Packed vectors, uint8 [images, n, P(d)]; the first of each is what a scan reads.
        stamps: Bytes and time in ns of each picture file, int64 [images, 2]; None for zeros.
    """

    ids: Sequence[str]
    tokens: Packed
    stamps: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class _Section:
    start: int
    size: int
    checksums: tuple[int, ...]


def write_index(output: FileOutput, facts: IndexFacts, vectors: Vectors) -> None:
    """Write an index of some images.

    Args:
        output: The claimed file.
        facts: What it is of.
        vectors: Its images.

    Raises:
        VitcError: If two images have one name or a name has a zero byte, the vectors are not of
            those sizes, or the file cannot be written.
    """
    wanted = (len(vectors.ids), facts.tokens, packed_width(facts.width))
    if vectors.tokens.shape != wanted or vectors.tokens.dtype != np.uint8:
        raise VitcError(
            f"Vectors of {vectors.tokens.dtype} {list(vectors.tokens.shape)} were given for an "
            f"index of uint8 {list(wanted)}."
        )
    twice = _first_twice(vectors.ids)
    if twice is not None:
        raise VitcError(f"Two images are called {twice!r}.", "Index each of them once.")
    if any("\0" in name for name in vectors.ids):
        raise VitcError("A name with a zero byte is no name of a file.")
    parts = {
        "first": np.ascontiguousarray(vectors.tokens[:, 0]).reshape(-1).data,
        "tokens": np.ascontiguousarray(vectors.tokens).reshape(-1).data,
        "ids": memoryview(
            b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in vectors.ids)
        ),
        "stamps": np.ascontiguousarray(_stamps(vectors), "<i8").reshape(-1).view(np.uint8).data,
    }
    header = _header(facts, len(vectors.ids), parts)
    with output.aside() as part, explained(output.named), part.open("wb") as file:
        file.write(_MAGIC + struct.pack("<Q", len(header)) + header)
        file.write(struct.pack("<I", zlib.crc32(header)))
        for data in parts.values():
            _pad(file)
            file.write(data)


def _stamps(vectors: Vectors) -> NDArray[np.int64]:
    wanted = (len(vectors.ids), 2)
    if vectors.stamps is None:
        return np.zeros(wanted, np.int64)
    if vectors.stamps.shape != wanted:
        raise VitcError(
            f"Stamps {list(vectors.stamps.shape)} were given for {len(vectors.ids)} images."
        )
    return vectors.stamps


def _header(facts: IndexFacts, images: int, parts: Mapping[str, memoryview]) -> bytes:
    """The header; sections are counted from its end, whose place depends on its own length."""
    sections, start = {}, 0
    for name, data in parts.items():
        checksums = [zlib.crc32(data[at : at + _BLOCK]) for at in range(0, len(data), _BLOCK)]
        sections[name] = {"start": start, "size": len(data), "checksums": checksums}
        start += -(-len(data) // _ALIGNMENT) * _ALIGNMENT
    stated = {**asdict(facts), "images": images, "block": _BLOCK, "sections": sections}
    return json.dumps(stated, sort_keys=True).encode()


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))


def _first_twice(names: Sequence[str]) -> str | None:
    if len(set(names)) == len(names):
        return None
    return next(one for one, other in pairwise(sorted(names)) if one == other)


class Index:
    """An index that is open for reading; close it, or use it in a `with` block.

    Attributes:
        path: Its file.
        facts: What it is of.
        images: How many there are.
    """

    def __init__(self, path: Path, mapped: _Mapped, stated: Mapping[str, Any], base: int) -> None:
        self.path = path
        self.facts = IndexFacts(**{field.name: stated[field.name] for field in fields(IndexFacts)})
        self.images: int = stated["images"]
        self._data = mapped.data
        self._identity = mapped.identity
        self._base = base
        self._sections = {
            name: _Section(each["start"], each["size"], tuple(each["checksums"]))
            for name, each in stated["sections"].items()
        }
        self._checked: set[tuple[str, int]] = set()
        self._ids: tuple[str, ...] | None = None
        self._ends: NDArray[np.int64] | None = None
        self._numbers: dict[str, int] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, model: str | None = None) -> Self:
        """Open an index; what stands in the file later is not seen.

        Args:
            path: The file.
            model: SHA-256 of the model that queries come from; None for any.

        Raises:
            VitcError: If it is no index, is cut off or damaged, is of a newer vitc, or of another
                model.
        """
        file = Path(path)
        mapped = _map(file)
        if mapped is None or mapped.data[: len(_FAMILY)] != _FAMILY:
            raise VitcError(f"{file} is no index of vitc.", "Make one: `vitc index build`.")
        data = mapped.data
        try:
            stated, base = _read_header(data)
            found = cls(file, mapped, stated, base)
            found._check_sizes()
        except ValueError as error:
            data.close()
            raise VitcError(f"{file} is damaged: {error}.", _AGAIN) from None
        if model is not None:
            try:
                found.refuse_other(model)
            except VitcError:
                found.close()
                raise
        return found

    def refuse_other(self, model: str) -> None:
        """Hold a model against the one that the index is of.

        Args:
            model: Its SHA-256.

        Raises:
            VitcError: If it is another.
        """
        if model != self.facts.model:
            raise VitcError(
                f"{self.path} was built with another model ({self.facts.model[:12]}, and this is "
                f"{model[:12]}): their vectors mean different things.",
                "Search with that model, or build the index again with this one.",
            )

    def _check_sizes(self) -> None:
        facts, bytes_of_one = self.facts, packed_width(self.facts.width)
        if not facts.width or not facts.tokens:
            raise ValueError("its header has no sensible sizes")
        wanted = {
            "first": self.images * bytes_of_one,
            "tokens": self.images * facts.tokens * bytes_of_one,
            "stamps": self.images * _STAMP,
        }
        for name, section in self._sections.items():
            blocks = -(-section.size // _BLOCK)
            if section.size != wanted.get(name, section.size) or blocks != len(section.checksums):
                raise ValueError(f"its section {name} is not of the size that its header says")
            if self._base + section.start + section.size > len(self._data):
                raise ValueError("it is cut off")
        if set(self._sections) != {*wanted, "ids"}:
            raise ValueError("its sections are not those of an index")

    def _section(self, name: str, start: int, size: int) -> memoryview:
        """Some bytes of a section, whose blocks are checked the first time.

        Raises:
            VitcError: If a block is not what was written.
        """
        section = self._sections[name]
        at = self._base + section.start
        whole = memoryview(self._data)[at : at + section.size]
        for block in range(start // _BLOCK, -(-(start + size) // _BLOCK) if size else 0):
            if (name, block) in self._checked:
                continue
            if zlib.crc32(whole[block * _BLOCK : (block + 1) * _BLOCK]) != section.checksums[block]:
                raise VitcError(
                    f"{self.path} is damaged: block {block} of its {name} is not what was written.",
                    _AGAIN,
                )
            self._checked.add((name, block))
        return whole[start : start + size]

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the images.

        Raises:
            VitcError: If they are damaged.
        """
        if self._ids is None:
            data = bytes(self._section("ids", 0, self._sections["ids"].size))
            names = data.decode("utf-8", "surrogateescape").split("\0")[:-1]
            self._check_names(len(names))
            self._ids = tuple(names)
        return self._ids

    def name(self, number: int) -> str:
        """The name of an image: of a few much faster than `ids`, which reads all.

        Raises:
            VitcError: If the names are damaged.
        """
        if self._ids is not None:
            return self._ids[number]
        data = self._section("ids", 0, self._sections["ids"].size)
        if self._ends is None:
            ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0)
            self._check_names(len(ends))
            self._ends = ends
        start = int(self._ends[number - 1]) + 1 if number else 0
        return str(data[start : int(self._ends[number])], "utf-8", "surrogateescape")

    def _check_names(self, count: int) -> None:
        if count != self.images:
            raise VitcError(
                f"{self.path} is damaged: it names {count} of {self.images} images.", _AGAIN
            )

    def number(self, name: str) -> int | None:
        """Which image has a name, counted from 0; None if none has it.

        Raises:
            VitcError: If the names are damaged.
        """
        if not self._numbers:
            self._numbers = {each: number for number, each in enumerate(self.ids)}
        return self._numbers.get(name)

    def first(self, start: int = 0, stop: int | None = None) -> Packed:
        """The first vectors of images `start` to `stop`, uint8 [images, P(d)]; not copied.

        Raises:
            VitcError: If they are damaged.
        """
        rows = self._rows("first", start, stop, packed_width(self.facts.width))
        return rows.reshape(-1, packed_width(self.facts.width))

    def tokens(self, start: int = 0, stop: int | None = None) -> Packed:
        """All vectors of images `start` to `stop`, uint8 [images, n, P(d)]; not copied.

        Raises:
            VitcError: If they are damaged.
        """
        count, size = self.facts.tokens, packed_width(self.facts.width)
        return self._rows("tokens", start, stop, count * size).reshape(-1, count, size)

    def _rows(self, name: str, start: int, stop: int | None, size: int) -> Packed:
        start, end, _ = slice(start, stop).indices(self.images)
        data = self._section(name, start * size, max(end - start, 0) * size)
        return np.frombuffer(data, np.uint8)

    def vectors(self) -> Vectors:
        """Everything, checked.

        Raises:
            VitcError: If something is damaged.
        """
        self.first()
        return Vectors(self.ids, self.tokens(), self.stamps())

    def stamps(self) -> NDArray[np.int64]:
        """Bytes and time in ns of each picture file as it was encoded, int64 [images, 2].

        Raises:
            VitcError: If they are damaged.
        """
        rows = self._rows("stamps", 0, None, _STAMP)
        return rows.view("<i8").astype(np.int64).reshape(-1, 2)

    @contextmanager
    def named(self) -> Iterator[str | None]:
        """A path of the very file that is read here, as long as the block lasts.

        Yields:
            The path; None if another file has its name by now, or none has.
        """
        try:
            file = self.path.open("rb")
        except OSError:
            yield None
            return
        with file:
            same = _identity(file) == self._identity
            yield f"/proc/self/fd/{file.fileno()}" if same else None

    def close(self) -> None:
        """Let the file go; arrays that were read from it keep it open."""
        with suppress(BufferError):  # there is such an array
            self._data.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


@dataclass(frozen=True)
class _Mapped:
    """A file in memory, and which it is: its device and inode."""

    data: mmap.mmap
    identity: tuple[int, int]


def _map(file: Path) -> _Mapped | None:
    """The file in memory; None for what is empty, or no regular file."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return None
        with file.open("rb") as opened:
            if not os.fstat(opened.fileno()).st_size:
                return None
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            return _Mapped(data, _identity(opened))
    except OSError as error:
        raise VitcError(
            f"{file} cannot be read: {error.strerror or error}.", "Make one: `vitc index build`."
        ) from error


def _identity(file: BinaryIO) -> tuple[int, int]:
    facts = os.fstat(file.fileno())
    return facts.st_dev, facts.st_ino


def _read_header(data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header, and where its sections are counted from.

    Raises:
        ValueError: If it is damaged, or of another version.
    """
    start = len(_MAGIC) + 8
    if len(data) < start:
        raise ValueError("it is cut off")
    if data[: len(_MAGIC)] != _MAGIC:
        raise ValueError(f"it is of another version, {data[len(_FAMILY) : len(_MAGIC)]!r}")
    (length,) = struct.unpack_from("<Q", data, len(_MAGIC))
    if length > min(_LONGEST_HEADER, len(data) - start - 4):
        raise ValueError("it is cut off")
    header = data[start : start + length]
    (checksum,) = struct.unpack_from("<I", data, start + length)
    if zlib.crc32(header) != checksum:
        raise ValueError("its header is not what was written")
    end = start + length + 4
    try:
        stated = json.loads(header)
    except (ValueError, RecursionError):
        stated = None
    if not _states_an_index(stated):
        raise ValueError("its header is not that of an index")
    if stated["block"] != _BLOCK:
        raise ValueError(f"its blocks are of {stated['block']} bytes")
    return stated, -(-end // _ALIGNMENT) * _ALIGNMENT


def _states_an_index(stated: object) -> TypeGuard[dict[str, Any]]:
    """Whether a header has all values, each of its kind; what they come to is not looked at."""

    def counts(values: object) -> bool:
        return isinstance(values, list) and all(type(one) is int and one >= 0 for one in values)

    if not isinstance(stated, dict):
        return False
    sections = stated.get("sections")
    return (
        counts([stated.get(name) for name in ("width", "tokens", "images", "block")])
        and all(isinstance(stated.get(name), str) for name in ("model", "made_by", "photos"))
        and isinstance(sections, dict)
        and all(
            isinstance(each, dict)
            and counts([each.get("start"), each.get("size")])
            and counts(each.get("checksums"))
            for each in sections.values()
        )
    )
