"""The scans of an artefact: vitc_search.h, called with an index that is open here.

Lists are those of `vitc.retrieval.scan`, whose numpy is what they are compared with: the same
integers, equal scores in the order of the index.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from vitc.errors import VitcError
from vitc.retrieval.index_file import Index, Packed
from vitc.runtime.native import NativeModel

__all__ = ["CompiledScans", "Listed"]

Listed = tuple[NDArray[np.int64], NDArray[np.int32]]
"""Numbers of images, best first, and their scores."""

_FOUND: Final = np.dtype([("image", np.int64), ("score", np.int32)], align=True)
"""`vitc_found` of vitc_search.h."""
_FUNCTIONS: Final = (
    "vitc_index_close",
    "vitc_index_open",
    "vitc_rank",
    "vitc_search",
    "vitc_search_status_text",
    "vitc_search_texts",
)
_UNREADABLE: Final = 2
"""VITC_SEARCH_FILE."""


class CompiledScans:
    """Scans of a loaded artefact. Not for two Python threads at once, like the model.

    Args:
        model: With a library that has them; see `of`.
    """

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        functions = model.functions
        functions.vitc_search_status_text.restype = ctypes.c_char_p
        functions.vitc_index_close.argtypes = (ctypes.c_void_p,)
        functions.vitc_index_close.restype = None
        self._index: Index | None = None
        self._mapped = ctypes.c_void_p()
        self._close: Callable[[], object] = lambda: None

    @classmethod
    def of(cls, model: NativeModel) -> Self | None:
        """Those of a model; None if its library has none."""
        whole = all(hasattr(model.functions, name) for name in _FUNCTIONS)
        return cls(model) if whole else None

    def best(self, index: Index, query: Packed, vectors: int, count: int) -> Listed | None:
        """Find the images that fit a text best.

        Args:
            index: An open index.
            query: Packed vectors of the text, uint8 [a, P(d)].
            vectors: b, of each image: 1 for the first of each, or all that it has.
            count: How many to find, at most.

        Returns:
            What `vitc.retrieval.scan` finds; None if no entry compares a with b vectors.

        Raises:
            VitcError: If the index is damaged, or the model was closed.
        """
        lists = self._search("vitc_search", index, query, vectors, count)
        return None if lists is None else (lists[0]["image"], lists[0]["score"])

    def best_of_each(
        self, index: Index, queries: Packed, vectors: int, count: int
    ) -> list[Listed] | None:
        """The same of several texts at once, uint8 [texts, a, P(d)], by an entry that takes them.

        Returns:
            A list of each; None if no entry takes so many.

        Raises:
            VitcError: As `best`.
        """
        lists = self._search("vitc_search_texts", index, queries, vectors, count)
        return None if lists is None else [(each["image"], each["score"]) for each in lists]

    def order(self, index: Index, query: Packed, images: NDArray[np.int64]) -> Listed | None:
        """Order images by all their vectors.

        Args:
            index: An open index.
            query: As of `best`.
            images: Their numbers.

        Returns:
            The same images, best first, of equal ones the earlier in the index first, and their
            scores; None if no entry compares those vectors.

        Raises:
            VitcError: As `best`.
        """
        entry = self._entry(query.shape, index.facts.tokens)
        if entry is None or not self._open(index):
            return None
        packed = np.ascontiguousarray(query)
        found = np.zeros(len(images), _FOUND)
        found["image"] = images
        status = self._model.functions.vitc_rank(
            self._model.handle, self._mapped, entry.encode(), _address(packed),
            ctypes.c_size_t(packed.nbytes), _address(found), ctypes.c_int32(len(found)),
        )  # fmt: skip
        self._check(status, index)
        return found["image"], found["score"]

    def _search(
        self, function: str, index: Index, query: Packed, vectors: int, count: int
    ) -> list[NDArray[Any]] | None:
        entry = self._entry(query.shape, vectors)
        if entry is None or not self._open(index):
            return None
        packed = np.ascontiguousarray(query)
        texts = len(query) if query.ndim == 3 else 1
        count = min(count, index.images)
        found, held = np.empty((texts, count), _FOUND), ctypes.c_int32()
        status = getattr(self._model.functions, function)(
            self._model.handle, self._mapped, entry.encode(), _address(packed),
            ctypes.c_size_t(packed.nbytes), ctypes.c_int32(count), _address(found),
            ctypes.byref(held),
        )  # fmt: skip
        self._check(status, index)
        return list(found[:, : held.value])

    def _entry(self, query: tuple[int, ...], vectors: int) -> str | None:
        """The entry that scores such a query with so many vectors of each image."""
        wanted = [query, (None, vectors, query[-1])]
        for entry in self._model.artefact.manifest.entries:
            if [port.shape for port in entry.inputs] == wanted and not any(
                port.per_image or port.dtype != "uint8" for port in entry.inputs
            ):
                return entry.name
        return None

    def _open(self, index: Index) -> bool:
        """Map an index, once; whether its file is still there."""
        if index is self._index:
            return True
        self.close()
        functions, mapped = self._model.functions, ctypes.c_void_p()
        with index.named() as path:
            status = (
                _UNREADABLE
                if path is None
                else functions.vitc_index_open(path.encode(), None, ctypes.byref(mapped))
            )
        if status == _UNREADABLE:  # or /proc is not mounted
            return False
        self._check(status, index)
        self._index, self._mapped = index, mapped
        closing = weakref.finalize(self, _close, self._model, mapped)
        closing.atexit = False  # as of the model
        self._close = closing
        return True

    def _check(self, status: int, index: Index) -> None:
        if status:
            said = self._model.functions.vitc_search_status_text(status).decode()
            raise VitcError(f"{index.path}: {said}", "Build it again: `vitc index build`.")

    def close(self) -> None:
        """Let the index go."""
        self._close()
        self._index, self._mapped = None, ctypes.c_void_p()


def _close(model: NativeModel, mapped: ctypes.c_void_p) -> None:
    model.functions.vitc_index_close(mapped)


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
