"""Training of detection and segmentation: options to the objective that they ask for."""

from __future__ import annotations

from typing import Final

from vitc.training.loop import Note, Progress, Step, learn, silent
from vitc.training.objectives.detection import Detection
from vitc.training.objectives.maps import MapObjective
from vitc.training.objectives.segmentation import Segmentation
from vitc.training.tasks.options import TaskOptions, TaskResult

__all__ = ["OBJECTIVES", "train_task"]

OBJECTIVES: Final[dict[str, type[MapObjective]]] = {
    "detection": Detection,
    "segmentation": Segmentation,
}
"""Name to objective; `vitc.names.TASKS` has the names."""


def train_task(
    options: TaskOptions,
    progress: Progress | None = None,
    *,
    note: Note = silent,
    step: Step = silent,
) -> TaskResult:
    """Train a network that gives maps, and write the checkpoint of its best epoch.

    Args:
        options: What to do.
        progress: Called after each epoch.
        note: Told in a sentence what a person should know.
        step: Called after each step.

    Raises:
        VitcError: As `vitc.training.train`.
    """
    objective = OBJECTIVES[options.task]
    return learn(options, lambda told: objective(options, told), progress, note=note, step=step)
