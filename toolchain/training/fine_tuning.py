"""How a twin that was pre-trained without labels goes on with labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vitc.errors import VitcError
from vitc.models.network import Network
from vitc.models.twins.deit import DeiTTwin
from vitc.training.options import TrainOptions
from vitc.training.twin_start import knows_classes

__all__ = ["FineTuning", "fine_tuning"]

_DECAY: Final = 0.65
_DROP: Final = 0.1


@dataclass(frozen=True)
class FineTuning:
    """Attributes say what is done.

    Attributes:
        layer_decay: Share of the learning rate of a layer that the one before it has.
        drop_path: Share of the images that the last block's branches are left out for.
    """

    layer_decay: float = 1.0
    drop_path: float = 0.0


def fine_tuning(options: TrainOptions, start: Network | None) -> FineTuning:
    """What is chosen, or usual (MAE, DMJD): .65 and .1 after a pre-training, else 1 and 0.

    Args:
        options: Of the run.
        start: What it begins with.

    Raises:
        VitcError: If layers that decay are asked of a network that is not a row of blocks.
    """
    tuned = options.full_precision and start is not None and not knows_classes(start)
    decay, drop = options.layer_decay, options.drop_path
    if decay not in (None, 1.0) and start is not None and not isinstance(start, DeiTTwin):
        raise VitcError(
            f"A decay by layers is defined for a row of blocks, not for {start.config.arch}.",
            "Leave --layer-decay away.",
        )
    return FineTuning(
        layer_decay=(_DECAY if tuned else 1.0) if decay is None else decay,
        drop_path=(_DROP if tuned else 0.0) if drop is None else drop,
    )
