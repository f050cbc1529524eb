"""ONNX file to artefact: lowering, memory planning, code generation and linking.

Compiling brings TVM, which what only reads generated code does without, so it is imported when it
is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitc.compiler.compile import MAX_BATCH, compile_model

__all__ = ["MAX_BATCH", "compile_model"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from vitc.compiler import compile as compiling

        return getattr(compiling, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
