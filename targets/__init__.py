"""Targets, microkernel shapes, memory layouts and the TIR kernels themselves."""

from vitc.targets.table import TARGETS, Target, find

__all__ = ["TARGETS", "Target", "find"]
