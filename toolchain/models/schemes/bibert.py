"""BiBERT linears: signs of row-centred weights, one scale a row, no activation scale."""

from __future__ import annotations

from torch import Tensor

from vitc.models.schemes.scheme import Scheme

__all__ = ["BIBERT"]


def _centre(weight: Tensor) -> Tensor:
    return weight - weight.mean(dim=-1, keepdim=True)


def _scale(weight: Tensor) -> Tensor:
    return weight.abs().mean(dim=-1)


BIBERT = Scheme(
    name="bibert",
    source="BiBERT: Accurate Fully Binarized BERT, ICLR 2022, section 2; SI-BiViT, section 3",
    centre=_centre,
    scale=_scale,
    weight_window=1.0,
    activation_window=1.0,
)
