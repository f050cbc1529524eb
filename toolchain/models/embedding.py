"""The integer form of a network's patch embedding, of bytes instead of normalised floats."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Final

from torch import nn

from vitc.errors import VitcError
from vitc.models.backbones.table import TRUNK_NETWORKS
from vitc.models.layers.byte_projection import ByteProjection
from vitc.models.layers.patch_embed import PatchEmbed
from vitc.models.network import Network
from vitc.names import EMBEDDINGS

__all__ = ["with_embedding"]

_DIGITS: Final[Mapping[str, int]] = {"int15": 2, "int8": 1}


def with_embedding(model: nn.Module, embedding: str) -> Network:
    """The network with another patch embedding; the model itself is not changed.

    In an integer form images are bytes [B, 3, H, W], resized and cropped, not normalised: mean and
    std are folded into weights and biases, and the weights are rounded to integers of 15 bits
    (``int15``) or 8 (``int8``), with a scale an output. It cannot be trained or saved.

    Args:
        model: A classifier of vitc's backbones.
        embedding: ``fp32``, ``int15`` or ``int8``.

    Raises:
        VitcError: If the network has no such form, is in another one already, or sums could be
            beyond 32 bits.
    """
    EMBEDDINGS.check(embedding)
    if not isinstance(model, Network) or model.config.arch not in TRUNK_NETWORKS:
        what = model.config.arch if isinstance(model, Network) else type(model).__name__
        if isinstance(model, Network) and embedding == model.config.embedding:
            return model
        raise VitcError(
            f"An integer embedding is for classifiers on {', '.join(TRUNK_NETWORKS)}; a network "
            f"of {what} takes normalised floats.",
            "Export it without --embedding.",
        )
    if embedding == model.config.embedding:
        return model
    if model.config.embedding != "fp32":
        raise VitcError(
            f"The network has the embedding {model.config.embedding} already.",
            "Start from the checkpoint that it was made from.",
        )
    other = copy.deepcopy(model)
    name, patches = next(
        (name, module) for name, module in other.named_modules() if isinstance(module, PatchEmbed)
    )
    assert isinstance(patches.proj, nn.Conv2d)  # noqa: S101 - as its configuration says
    how = other.preprocessing
    patches.proj = ByteProjection(
        patches.proj, how.mean, how.std, digits=_DIGITS[embedding], name=name
    )
    other.config = dataclasses.replace(other.config, embedding=embedding)
    return other
