"""Pre-training of a twin: options to the one training loop."""

from __future__ import annotations

from vitc.training.dmjd.options import PretrainOptions, PretrainResult
from vitc.training.loop import Note, Progress, Step, learn, silent
from vitc.training.objectives.pretraining import Pretraining

__all__ = ["pretrain"]


def pretrain(
    options: PretrainOptions,
    progress: Progress | None = None,
    *,
    note: Note = silent,
    step: Step = silent,
) -> PretrainResult:
    """Pre-train a twin without labels and write it after each epoch.

    Args:
        options: What to do.
        progress: Called after each epoch.
        note: Told in a sentence what a person should know before it begins.
        step: Called after each step.

    Raises:
        VitcError: If data, preset, masks, target, teacher or the state to resume from do not fit,
            or if the loss stops being finite.
    """
    return learn(options, lambda told: Pretraining(options, told), progress, note=note, step=step)
