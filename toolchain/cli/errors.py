"""The one place where an exception becomes a sentence, a hint and an exit code."""

from __future__ import annotations

import os
import resource
import sys
import traceback
from collections.abc import Callable
from typing import Final

from vitc.cli.output import Loudness, loudness
from vitc.cli.streams import printable
from vitc.errors import ExitCode, VitcError
from vitc.extras import explained

__all__ = ["INTERRUPTED", "guarded"]

INTERRUPTED = 130
_DEBUG: Final = "VITC_DEBUG"
_ALLOCATION: Final = "DefaultCPUAllocator: can't allocate memory"
"""Of PyTorch, which has no exception of its own for it."""

_ENOUGH_MEMORY: Final = 4 << 30
"""Bytes of address space; with less, a framework fails to load in ways that say nothing of it."""


def guarded(command: Callable[[], None]) -> int:
    """Run `command`; whatever it raises is explained on stderr.

    Returns:
        The exit code: that of an explained error, that with which the command line parser leaves,
        1 for an unknown error, 130 for Ctrl-C.
    """
    code = _outcome(command)
    try:
        sys.stdout.flush()
    except OSError as error:
        # Without this the interpreter complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code == ExitCode.OK:
            code = int(ExitCode.ERROR)
            if not isinstance(error, BrokenPipeError):  # a reader that went away wants no word
                _explain(
                    f"Standard output cannot be written: {error.strerror or error}.",
                    "Check the space of the disk it goes to.",
                )
    return code


def _outcome(command: Callable[[], None]) -> int:
    try:
        command()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except VitcError as error:
        _explain(error.message, error.hint)
        return int(getattr(error, "exit_code", ExitCode.ERROR))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return int(ExitCode.ERROR)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _explain(f"{error.strerror or error}{where}.", "Check the path, its permissions and space.")
        return int(ExitCode.ERROR)
    except Exception as error:
        missing = explained(error) if isinstance(error, ModuleNotFoundError) else None
        if missing is not None:
            _explain(missing.message, missing.hint)
            return int(ExitCode.ERROR)
        limit = _scarce_memory()
        if limit or isinstance(error, MemoryError) or _ALLOCATION in str(error):
            _explain(
                "There is not enough memory"
                + (f": the address space is limited to {limit / 1e9:.1f} GB." if limit else "."),
                "Raise the limit, such as with `ulimit -v unlimited`."
                if limit
                else "Take a smaller batch, or a machine with more.",
            )
            return int(ExitCode.ERROR)
        first = str(error).strip().partition("\n")[0] or "no message"
        _explain(
            f"{type(error).__name__}: {first}",
            f"This is a fault in vitc. Set {_DEBUG}=1 for the traceback, and report it.",
        )
        return int(ExitCode.ERROR)
    return int(ExitCode.OK)


def _scarce_memory() -> int:
    """The limit of this process's address space in bytes, if frameworks may not fit; else 0."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return limit if 0 <= limit < _ENOUGH_MEMORY else 0


def _explain(message: str, hint: str) -> None:
    asked = os.environ.get(_DEBUG, "") not in ("", "0") or loudness() is Loudness.VERBOSE
    if asked and sys.exc_info()[0] is not None:
        traceback.print_exc()
    lines = [f"error: {message}"] + ([f"hint: {hint}"] if hint else [])
    sys.stderr.write(printable("\n".join(lines), keep="\n\t") + "\n")
