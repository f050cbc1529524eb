"""Work that is done beside other work, on another core where there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["beside"]

_Result = TypeVar("_Result")


class _LeftError(Exception):
    """Nobody waits for the work any more."""


@contextmanager
def beside(work: Callable[[Callable[[str], None]], _Result]) -> Iterator[Callable[[], _Result]]:
    """Do work beside what the block does.

    Args:
        work: Given a function that it calls with the name of each step; where the block was left
            by then without the result, that ends the work.

    Yields:
        A function that waits for the work, and returns what it returns or raises what it raises.
    """
    left = threading.Event()

    def step(_: str) -> None:
        if left.is_set():
            raise _LeftError

    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(work, step)
        try:
            yield doing.result
        finally:
            left.set()
