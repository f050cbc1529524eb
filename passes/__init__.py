"""Rewrites of the ONNX graph, one a file; `vitc.passes.pipeline` lists them in order."""

from __future__ import annotations

from vitc.passes.pipeline import LOWERINGS, PHASES, PassReport, Phase, run_phases

__all__ = ["LOWERINGS", "PHASES", "PassReport", "Phase", "run_phases"]
