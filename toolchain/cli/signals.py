"""Ctrl-C, `kill` and a closed terminal end a command alike: it unwinds, nothing half done stays."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

__all__ = ["Interrupted", "interruptible"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SOON_S: Final = 0.05


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end."""


class _Handlers:
    """What is installed while a command runs."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook
        self._forking = threading.local()

    def install(self) -> None:
        # A signal that the caller has ignored, as nohup does, stays ignored.
        wanted = [s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        for number in (*wanted, signal.SIGALRM):
            self._before[number] = signal.signal(number, self._raise)
        sys.unraisablehook = self._raise_again

    def remove(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        sys.unraisablehook = self._hook

    # The interpreter drops what a child is sent before it has begun, so that waits until then.

    def before_fork(self) -> None:
        self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._before)

    def after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.mask)

    def begin_child(self) -> None:
        self.remove()
        self.after_fork()

    def _raise(self, number: int, _: FrameType | None) -> None:
        if self.received is None and number != signal.SIGALRM:
            self.received = number
        raise Interrupted

    def _raise_again(self, lost: Any) -> None:
        """Where it was raised nothing could catch it, such as in a callback: a moment later."""
        if isinstance(lost.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, _SOON_S)
        else:
            self._hook(lost)


_handlers: Final = _Handlers()
os.register_at_fork(
    before=_handlers.before_fork,
    after_in_parent=_handlers.after_fork,
    after_in_child=_handlers.begin_child,
)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let signals unwind the block; the exit code is 128 and the number of the first one."""
    _handlers.received = None
    _handlers.install()
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        if _handlers.received is None:
            raise
        sys.exit(128 + _handlers.received)
    finally:
        _handlers.remove()
