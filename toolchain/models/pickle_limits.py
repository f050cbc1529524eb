"""What a pickle would cost, found by reading its operations without obeying any.

An operation takes a byte or two of a file and can make objects of a hundred. And tuples that hold
an earlier tuple twice, again and again, are a short file, but a key whose hash takes for ever:
tuples do not remember theirs.
"""

from __future__ import annotations

import pickletools
from typing import IO, Final

__all__ = ["MAX_ENTRIES", "MAX_OPERATIONS", "excess"]

MAX_OPERATIONS: Final = 1_000_000
"""Of all pickles of a file; deit-small with averaged weights and an optimizer has 22,000."""

MAX_ENTRIES: Final = 100_000
"""Entries of one tuple, those of tuples in it included each time that they appear."""

_MARK: Final = -1
_GET: Final = frozenset(("GET", "BINGET", "LONG_BINGET"))
_PUT: Final = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_UNHASHABLE: Final = frozenset(
    ("LIST", "APPEND", "APPENDS", "DICT", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
)


def excess(streams: list[IO[bytes]]) -> str | None:
    """What of the pickles in streams is beyond the limits, in words; None if nothing is."""
    count = 0
    for stream in streams:
        sizes = _Sizes()
        operations = pickletools.genops(stream)
        while True:
            try:
                operation, argument, _ = next(operations)
            except Exception:  # its end, or damage that ends the unpickler as well
                break
            count += 1
            if count > MAX_OPERATIONS:
                return f"describes its tensors in more than {MAX_OPERATIONS} steps"
            try:
                size = sizes.after(operation, argument)
            except (IndexError, KeyError):
                return "is damaged: its pickle takes what it never put"
            if size > MAX_ENTRIES:
                return f"nests tuples beyond {MAX_ENTRIES} entries"
    return None


class _Sizes:
    """The stack and memo of an unpickler, with the size of each value in place of it."""

    def __init__(self) -> None:
        self._stack: list[int] = []
        self._memo: dict[int, int] = {}

    def after(self, operation: pickletools.OpcodeInfo, argument: object) -> int:
        """Follow an operation; returns the size of what lies on top of the stack then."""
        name, stack = operation.name, self._stack
        if name in _GET:
            stack.append(self._memo[int(str(argument))])
        elif name in _PUT:
            place = len(self._memo) if name == "MEMOIZE" else int(str(argument))
            self._memo[place] = stack[-1]
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "MARK":
            stack.append(_MARK)
        else:
            # What can be no key is one entry of whatever holds it.
            size = 1 + self._taken(operation)
            size = 1 if name in _UNHASHABLE else size
            stack.extend(size for _ in operation.stack_after)
        return stack[-1] if stack else 0

    def _taken(self, operation: pickletools.OpcodeInfo) -> int:
        """Pop what an operation takes; returns the sum of the sizes."""
        before, total = operation.stack_before, 0
        if pickletools.markobject in before:
            while (size := self._stack.pop()) != _MARK:
                total += size
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            total += self._stack.pop()
        return total
