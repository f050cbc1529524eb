"""Training of classification networks: options to the objective that they ask for."""

from __future__ import annotations

from typing import Final

from vitc.training.loop import Note, Progress, Step, learn, silent
from vitc.training.objectives.classification import Classification
from vitc.training.objectives.decoupled import Decoupled
from vitc.training.options import TrainOptions, TrainResult

__all__ = ["RECIPES", "train"]

RECIPES: Final[dict[str, type[Classification]]] = {"joint": Classification, "decoupled": Decoupled}
"""Name to objective; `vitc.names.RECIPES` has the names."""


def train(
    options: TrainOptions,
    progress: Progress | None = None,
    *,
    note: Note = silent,
    step: Step = silent,
) -> TrainResult:
    """Train a network and write the checkpoint of its best epoch.

    Args:
        options: What to do.
        progress: Called after each epoch.
        note: Told in a sentence what a person should know before it begins.
        step: Called after each step.

    Raises:
        VitcError: If the data, the preset, the teacher or the state to resume from do not fit, if
            there is too little memory, or if the loss stops being finite.
    """
    objective = RECIPES[options.recipe]
    return learn(options, lambda told: objective(options, told), progress, note=note, step=step)
