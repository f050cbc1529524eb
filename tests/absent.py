"""What a user's machine may lack: a test is skipped for it in words, or fails where it must not."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from typing import NoReturn

import pytest

__all__ = ["absent", "need_gcc", "unrandomised"]


def absent(what: str, variable: str) -> NoReturn:
    """Skip a test for want of something, or fail if a variable of the environment asks for it."""
    if os.environ.get(variable):
        pytest.fail(f"{what}, but {variable} is set")
    pytest.skip(what)


def need_gcc() -> str:
    """Path of gcc, whose sanitizers the tests of C sources use; zig's compiler has none."""
    compiler = shutil.which("gcc")
    if compiler is None:
        absent(
            "no gcc, `apt install gcc libc6-dev` brings it and its sanitizers", "VITC_REQUIRE_GCC"
        )
    return compiler


@cache
def unrandomised() -> tuple[str, ...]:
    """What to start a sanitized program by: some kernels place memory where its shadow must be."""
    command = ("setarch", "-R")
    try:
        done = subprocess.run([*command, "true"], capture_output=True, check=False)
    except OSError:
        return ()
    return () if done.returncode else command
