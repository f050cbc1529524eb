"""Damage to bytes, as Hypothesis draws and shrinks it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

__all__ = ["Edit", "damaged", "edits"]

_INTERESTING = (*(bytes([b]) for b in (0, 127, 128, 255)), b"\xff" * 4, b"\xff" * 8, bytes(8))


@dataclass(frozen=True)
class Edit:
    """One change.

    Attributes:
        where: Position as a share of the length, in millionths.
        kind: flip, set, insert, delete, repeat or cut.
        data: Bytes to set or insert.
        size: Bytes to delete or repeat.
    """

    where: int
    kind: str
    data: bytes
    size: int


def edits(most: int = 4) -> st.SearchStrategy[list[Edit]]:
    """Up to `most` changes."""
    return st.lists(
        st.builds(
            Edit,
            where=st.integers(0, 999_999),
            kind=st.sampled_from(["flip", "set", "set", "insert", "delete", "repeat", "cut"]),
            data=st.one_of(st.sampled_from(_INTERESTING), st.binary(min_size=1, max_size=8)),
            size=st.integers(1, 64),
        ),
        min_size=1,
        max_size=most,
    )


def damaged(data: bytes, changes: list[Edit], first: int = 0, last: int | None = None) -> bytes:
    """Apply changes within `data[first:last]`."""
    head, tail = data[:first], data[first:]
    rest = b"" if last is None else tail[last - first :]
    body = bytearray(tail if last is None else tail[: last - first])
    for change in changes:
        at = change.where * len(body) // 1_000_000
        if change.kind == "flip" and body:
            body[at] ^= 1 << (change.size % 8)
        elif change.kind == "set":
            body[at : at + len(change.data)] = change.data
        elif change.kind == "insert":
            body[at:at] = change.data
        elif change.kind == "delete":
            del body[at : at + change.size]
        elif change.kind == "repeat":
            body[at:at] = body[at : at + change.size] * 3
        elif change.kind == "cut" and last is None:
            del body[at:]
    return head + bytes(body) + rest
