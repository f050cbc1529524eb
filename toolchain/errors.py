"""The one exception type that reaches a user, and the command line's exit codes."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode", "VitcError"]


class ExitCode(IntEnum):
    """Exit codes of every vitc command."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_EQUAL = 3


class VitcError(Exception):
    """An error that vitc explains: what was found, what was wanted, and what to do next.

    Args:
        message: One sentence that says what was found and what was wanted.
        hint: The next step, usually a command.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()
