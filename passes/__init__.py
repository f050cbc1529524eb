"""Rewrites of the ONNX graph, one a file; `vitc.passes.pipeline` lists them in order.

Its names bring every rewrite and onnxscript, so they are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitc.passes.pipeline import LOWERINGS, PHASES, PassReport, Phase, run_phases

__all__ = ["LOWERINGS", "PHASES", "PassReport", "Phase", "run_phases"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from vitc.passes import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
