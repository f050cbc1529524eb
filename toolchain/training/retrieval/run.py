"""Runs of retrieval: towers learn, or shrink."""

from __future__ import annotations

from vitc.training.loop import Note, Progress, Step, learn, silent
from vitc.training.objectives.retrieval import Ranking, Shrinking
from vitc.training.retrieval.options import RetrievalOptions, RetrievalResult, ShrinkOptions

__all__ = ["shrink", "train"]


def train(
    options: RetrievalOptions,
    progress: Progress | None = None,
    *,
    note: Note = silent,
    step: Step = silent,
) -> RetrievalResult:
    """Train towers by the ranking loss; arguments and errors are those of `learn`."""
    return learn(options, lambda told: Ranking(options, told), progress, note=note, step=step)


def shrink(
    options: ShrinkOptions,
    progress: Progress | None = None,
    *,
    note: Note = silent,
    step: Step = silent,
) -> RetrievalResult:
    """Shrink towers by their scores; arguments and errors are those of `learn`."""
    return learn(options, lambda told: Shrinking(options, told), progress, note=note, step=step)
