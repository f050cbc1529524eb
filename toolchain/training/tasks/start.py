"""What a network of a task is before its first step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from vitc.errors import VitcError
from vitc.models.build import build_network
from vitc.models.network import SPATIAL_SCALE, Network
from vitc.models.tasks.network import TaskNetwork
from vitc.training.start import fresh_scales
from vitc.training.tasks.examples import TaskExamples

__all__ = ["task_network"]


def task_network(
    config: object, data: TaskExamples, start: Network | None, note: Callable[[str], None]
) -> TaskNetwork:
    """A network for the classes of a data set.

    Args:
        config: Of the network.
        data: Gives preprocessing and labels.
        start: What has the same name and shape, and the same meaning, is copied: of a network of a
            task all that fits, of a classifier its trunk. SI branches that it lacks get scale 0.
        note: Told what was copied.

    Raises:
        VitcError: If nothing of `start` fits.
    """
    model = build_network(config, data.preprocessing, data.labels)  # type: ignore[arg-type]
    assert isinstance(model, TaskNetwork)  # noqa: S101 - of a configuration of a task
    fresh_scales(model)
    if start is not None:
        note(_copy(start, model))
    return model


@torch.no_grad()
def _copy(start: Network, model: TaskNetwork) -> str:
    prefix = "" if isinstance(start, TaskNetwork) else "trunk."
    given = {f"{prefix}{name}": tensor for name, tensor in start.state_dict().items()}
    owners = {f"{prefix}{name}": module for name, module in start.named_modules()}
    own = dict(model.named_modules())
    wanted = model.state_dict()
    copied = 0
    other = start.config.binarized != model.config.binarized
    for name, slot in wanted.items():
        tensor, owner = given.get(name), name.rpartition(".")[0]
        fits = tensor is not None and tensor.shape == slot.shape
        norms = isinstance(owners.get(owner), nn.LayerNorm) != isinstance(
            own.get(owner), nn.LayerNorm
        )
        if fits and tensor is not None and not (other and norms):
            slot.copy_(tensor)
            copied += slot.numel()
        elif name.endswith(SPATIAL_SCALE):
            slot.zero_()
    if not copied:
        raise VitcError(
            f"Nothing of {start.source_path}, {start.config.shape()}, fits the network to train, "
            f"{model.config.shape()}.",
            "Start from a checkpoint of the same preset and image size.",
        )
    share = copied / sum(slot.numel() for slot in wanted.values())
    return f"copied from {start.source_path}: {share:.0%} of the values"
