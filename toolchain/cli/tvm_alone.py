"""TVM without PyTorch, in a command that needs TVM alone.

tvm_ffi imports PyTorch wherever it is installed, to exchange tensors with it, which takes longer
than compiling a small network. A user's program may want that exchange, so only commands do this,
whose process is vitc's own.
"""

from __future__ import annotations

import sys

__all__ = ["import_tvm_alone"]

_TORCH = "torch"


def import_tvm_alone() -> None:
    """Import TVM as if there were no PyTorch, which can still be imported later."""
    if _TORCH in sys.modules:
        return
    sys.modules[_TORCH] = None  # type: ignore[assignment]
    try:
        import tvm  # noqa: F401
    finally:
        del sys.modules[_TORCH]
