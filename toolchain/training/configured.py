"""The network of a run: that of its preset, with what its options say otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vitc.models.config import NetworkConfig
from vitc.models.described import Sides

if TYPE_CHECKING:
    from vitc.training.options import TrainOptions
    from vitc.training.tasks.options import TaskOptions

__all__ = ["configured"]


def configured(
    config: NetworkConfig,
    options: TrainOptions | TaskOptions,
    *,
    classes: int,
    image_size: Sides | None,
) -> NetworkConfig:
    """A preset's configuration, or its twin's, with sizes and rules as asked.

    Args:
        config: Of the preset; of its twin in a full-precision run.
        options: Of the run.
        classes: That its data have.
        image_size: If not the preset's.
    """
    if options.full_precision:
        return config.replace(
            image_size=image_size,
            classes=classes,
            depth=options.depth,
            mlp_ratio=options.mlp_ratio,
        )
    sized = config.replace(
        image_size=image_size,
        classes=classes,
        depth=options.depth,
        si=options.si,
        mlp_ratio=options.mlp_ratio,
        weight_bits=options.weight_bits,
        norm=options.norm,
        merge=options.merge,
    )
    return replace(sized, scheme=options.scheme, elastic=options.elastic)
