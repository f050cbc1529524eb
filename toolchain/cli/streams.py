"""Standard streams that take any text, and stay silent where the caller closed them."""

from __future__ import annotations

import io
import logging
import os
import sys
import unicodedata
import warnings
from typing import Final

__all__ = ["prepare_streams", "printable", "quiet_libraries"]

_UNSEEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of Unicode that a terminal obeys, or that no encoding has: controls, surrogates, and
separators of lines and paragraphs."""
_TURNED: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of the text behind it, so that gnp.exe is read as exe.png."""


def prepare_streams() -> None:
    """Make text of any kind printable on this process's standard streams.

    What an encoding lacks is written as an escape, as Python does on stderr. A stream that the
    caller closed is replaced by one that takes everything: its number would go to the next file
    that is opened, and whatever a library then prints would land there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number: those below it are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def quiet_libraries() -> None:
    """Keep warnings and log records of other people's code off stderr, save those asked for.

    They speak to who wrote the code that calls them. `VITC_DEBUG` or Python's own `-W` and
    `PYTHONWARNINGS` bring them back.
    """
    if os.environ.get("VITC_DEBUG", "") in ("", "0"):
        if not logging.getLogger().handlers:
            logging.getLogger().addHandler(logging.NullHandler())
        if not sys.warnoptions:
            warnings.simplefilter("ignore")


def printable(text: str, keep: str = "") -> str:
    """Text whose control characters and surrogates are written as escapes, save those to keep.

    A file name or a label may hold anything; on a terminal it must be seen, not obeyed.
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if (character in _TURNED or unicodedata.category(character) in _UNSEEN)
        and character not in keep
        else character
        for character in text
    )
