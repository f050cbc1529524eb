"""Files that a command writes itself, claimed from its start to its end."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from typing import Final

from vitc.outputs import FileOutput, claim_file

__all__ = ["claimed", "release_claims"]

_held: Final = ExitStack()
atexit.register(_held.close)


def claimed(path: str | os.PathLike[str], *, force: bool) -> FileOutput:
    """Claim a file until the command ends.

    Raises:
        VitcError: As `claim_file`.
    """
    return _held.enter_context(claim_file(path, force=force))


def release_claims() -> None:
    """Let go what was claimed; the command is over."""
    _held.close()
