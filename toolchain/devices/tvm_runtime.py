"""TVM's runtime without its compiler and PyTorch, for processes that do RPC and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vitc.places import scratch_folder

__all__ = ["choose_runtime", "runtime_alone"]

_TORCH = "torch"
_PATH = "PYTHONPATH"


def choose_runtime() -> None:
    """Make `import tvm` load the runtime alone, in the process of which this is called.

    That takes half the time and a third of the memory; and TVM imports PyTorch wherever it is
    installed, which takes three quarters of what is left. A TVM that is imported already stays.
    """
    os.environ["TVM_USE_RUNTIME_LIB"] = "1"
    sys.modules.setdefault(_TORCH, None)  # type: ignore[arg-type]


@contextmanager
def runtime_alone() -> Iterator[None]:
    """`choose_runtime`, and the same for Python processes that are started in the block."""
    choose_runtime()
    before = os.environ.get(_PATH)
    with scratch_folder("serve") as folder:
        (folder / f"{_TORCH}.py").write_text("raise ImportError('RPC needs no PyTorch')\n")
        os.environ[_PATH] = os.pathsep.join([str(folder), *filter(None, [before])])
        try:
            yield
        finally:
            if before is None:
                del os.environ[_PATH]
            else:
                os.environ[_PATH] = before
