"""What a network is before its first step: parameters of its own, or those of another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from vitc.errors import VitcError
from vitc.models import Network, NetworkConfig, build_network
from vitc.models.binary_linear import narrow
from vitc.models.network import SPATIAL_SCALE
from vitc.training.data import Dataset
from vitc.training.twin_start import copy_twin, knows_classes

__all__ = ["fresh_scales", "initial"]

_SI_SCALE = 0.1


def fresh_scales(model: nn.Module) -> None:
    """Let the SI branches of a network with random parameters take part a little: scale 0.1."""
    for name, parameter in model.named_parameters():
        if name.endswith(SPATIAL_SCALE):
            nn.init.constant_(parameter, _SI_SCALE)


def initial(
    config: NetworkConfig,
    data: Dataset,
    start: Network | None,
    note: Callable[[str], None] = lambda _: None,
) -> Network:
    """A network for the classes of a data set.

    Args:
        config: Of the network.
        data: Gives preprocessing and labels.
        start: All of this is copied; SI branches that it lacks get scale 0 and so change nothing
            at first (SI-BiViT, section 3). Without it their scale is 0.1. Of a full-precision twin
            of a binarized network, and of one that was pre-trained without labels, what fits.
        note: Told what was copied where that is not all.

    Raises:
        VitcError: If `start` has another shape or scheme.
    """
    model = build_network(config, data.preprocessing, data.labels)
    fresh_scales(model)
    if start is None:
        return model
    twin = not start.config.binarized
    if twin and (model.config.binarized or not knows_classes(start)):
        note(copy_twin(start, model))
    else:
        _copy_matching(start, model)
    return model


@torch.no_grad()
def _copy_matching(source: Network, model: Network) -> None:
    wanted = model.state_dict()
    given = source.state_dict()
    new_classes = source.config.classes != model.config.classes
    misfits = [
        f"{name} is {tuple(tensor.shape)}, wanted {tuple(wanted[name].shape)}"
        if name in wanted
        else f"{name} has no place"
        for name, tensor in given.items()
        if (name not in wanted or wanted[name].shape != tensor.shape)
        and not (new_classes and name.startswith("head."))
    ]
    if misfits:
        raise VitcError(
            f"{source.source_path} does not fit the network to train: {'; '.join(misfits[:6])}.",
            "Start from a checkpoint of the same preset, depth and MLP ratio.",
        )
    if source.config.scheme != model.config.scheme:
        raise VitcError(
            f"{source.source_path} is of scheme {source.config.scheme}, and the network to train "
            f"of {model.config.scheme}.",
            f"Train with --scheme {source.config.scheme}, or start from another checkpoint.",
        )
    for name, slot in wanted.items():
        if name in given and given[name].shape == slot.shape:
            slot.copy_(given[name])
        elif name.endswith(SPATIAL_SCALE):
            slot.zero_()
    if source.config.weight_bits > model.config.weight_bits:
        narrow(model)
