"""A network that begins with what fits it of a full-precision twin.

Patches, tokens, positions, and the linears of both, whose weights become the latent ones: what has
the same name, shape and meaning. Norms do not pass over where one is of channels and the other of
tokens. A head is taken where it was trained for the same classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import torch
from torch import nn

from vitc.errors import VitcError
from vitc.models.network import Network
from vitc.training.dmjd.options import PRETRAINING

__all__ = ["copy_twin", "knows_classes"]

_NUMBER: Final = re.compile(r"\b\d+\b")


def knows_classes(network: Network) -> bool:
    """Whether its head has learnt anything: one that was pre-trained without labels has not."""
    return PRETRAINING not in network.history


@torch.no_grad()
def copy_twin(twin: Network, model: Network) -> str:
    """Copy what fits.

    Args:
        twin: A full-precision network.
        model: The network to train, in place.

    Returns:
        What was copied and what is new, in words.

    Raises:
        VitcError: If nothing of its blocks fits.
    """
    given = twin.state_dict()
    wanted = dict(model.named_parameters())
    owners = dict(model.named_modules()), dict(twin.named_modules())
    same = twin.config.classes == model.config.classes and twin.labels == model.labels
    unfit = set() if same and knows_classes(twin) else {"head"}
    for name, tensor in given.items():
        owner = _owner(name)
        own, theirs = (modules.get(owner) for modules in owners)
        norm = isinstance(theirs, nn.LayerNorm) and not isinstance(own, nn.LayerNorm)
        # A bias says nothing without its weight.
        if norm or name not in wanted or wanted[name].shape != tensor.shape:
            unfit.add(owner or name)
    copied = [name for name in wanted if name in given and (_owner(name) or name) not in unfit]
    for name in copied:
        wanted[name].copy_(given[name])
    if not any("blocks." in name for name in copied):
        raise VitcError(
            f"No block of {twin.source_path}, {twin.config.shape()}, fits the network to train, "
            f"{model.config.shape()}.",
            "Start from a twin of the same preset.",
        )
    new = [name for name in wanted if name not in copied]
    share = sum(wanted[name].numel() for name in copied) / sum(p.numel() for p in wanted.values())
    return (
        f"copied from {twin.source_path}, {share:.0%} of the parameters: {_kinds(copied)}; "
        f"new: {_kinds(new)}"
    )


def _owner(name: str) -> str:
    """The module of a parameter; empty if that is the network itself."""
    return name.rpartition(".")[0]


def _kinds(names: Iterable[str]) -> str:
    """Names with their numbers left out, each once."""
    owned = (_owner(name) or name for name in names)
    return ", ".join(dict.fromkeys(_NUMBER.sub("*", owner) for owner in owned)) or "nothing"
