"""Becomes zig, and ends when the process that started it ends, however that happens.

A script, run with the number of that process, zig's path and its arguments.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of Linux."""

if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the process that wanted zig is gone")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted
