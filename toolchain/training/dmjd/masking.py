"""Which tokens each masked view of an image hides, so that the views hide different ones.

The views are drawn in sequence: the second hides what the first showed, as far as its number of
tokens reaches, so more tokens of an image become targets while each view hides its share. DMJD,
section III-B; orders and integer sizes are those of the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from vitc.errors import VitcError

__all__ = ["Masking", "Views"]

BLOCK: Final = 2
"""A block has 2 x 2 tokens."""


@dataclass(frozen=True)
class Views:
    """The masked views of a batch, one after the other: row k * B + i is view k of image i.

    Attributes:
        keep: Tokens that are visible, in the order in which the encoder reads them, int64
            [K * B, visible].
        restore: Place of each token in the visible ones followed by the masked ones, int64
            [K * B, tokens].
    """

    keep: Tensor
    restore: Tensor

    def of(self, images: slice, count: int) -> Views:
        """The views of some of the images.

        Args:
            images: Which.
            count: K.
        """
        keep, restore = (
            torch.unflatten(rows, 0, (count, -1))[:, images].flatten(0, 1)
            for rows in (self.keep, self.restore)
        )
        return Views(keep, restore)

    @property
    def mask(self) -> Tensor:
        """1 where a token is masked, fp32 [K * B, tokens]."""
        return (self.restore >= self.keep.shape[1]).to(torch.float32)


@dataclass(frozen=True)
class Masking:
    """How many tokens are masked, and which.

    Attributes:
        rows: Of the map of tokens.
        columns: Of the map of tokens.
        corruption: Share of a view that is masked.
        prediction: Share of an image that is masked in one of the views; at two views.
        views: K.
        blocks: Whether blocks of 2 x 2 tokens are masked, not single ones.
    """

    rows: int
    columns: int
    corruption: float = 0.6
    prediction: float = 1.0
    views: int = 2
    blocks: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.corruption < 1:
            raise VitcError(
                f"The corruption rate is {self.corruption}.",
                "It is the share of a view that is masked, between 0 and 1.",
            )
        if not self.corruption <= self.prediction <= 1:
            raise VitcError(
                f"The prediction rate is {self.prediction}, the corruption rate {self.corruption}.",
                "What is masked in any view is at least what is masked in one, and at most 1.",
            )
        if self.views < 1:
            raise VitcError(f"There are {self.views} views.", "Take one or more.")
        if self.views > BLOCK and self.prediction < 1:
            raise VitcError(
                f"A prediction rate of {self.prediction} is defined for two views, "
                f"not for {self.views}.",
                "Leave it at 1, or take two views.",
            )
        if self.blocks and (self.rows % BLOCK or self.columns % BLOCK):
            raise VitcError(
                f"A map of {self.rows} x {self.columns} tokens has no blocks of 2 x 2.",
                "Mask single tokens (--masking random), or take another image or patch size.",
            )
        if not 0 < self.kept < self.units:
            what = "blocks" if self.blocks else "tokens"
            raise VitcError(
                f"Of {self.units} {what}, a corruption rate of {self.corruption} leaves "
                f"{self.kept} visible.",
                "Some must be visible and some masked; change the rate.",
            )

    @property
    def units(self) -> int:
        """L: what is masked or not, tokens or blocks."""
        tokens = self.rows * self.columns
        return tokens // BLOCK**2 if self.blocks else tokens

    @property
    def kept(self) -> int:
        """Units that a view shows; the rounding is that of the authors' expression."""
        return int(self.units * (1 - self.corruption))

    @property
    def masked(self) -> int:
        """Units that a view hides."""
        return self.units - self.kept

    @property
    def fresh(self) -> int:
        """Units that the second view hides and the first did not."""
        return int(min(self.prediction - self.corruption, self.corruption) * self.units)

    @property
    def union(self) -> int:
        """Units that some view hides."""
        if self.views == 1:
            return self.masked
        if self.views == BLOCK:
            return self.masked + self.fresh
        return min(self.units, self.views * self.masked)

    def draw(self, images: int, generator: torch.Generator | None = None) -> Views:
        """Masks of the views of a batch.

        Args:
            images: B.
            generator: Where chance comes from.
        """
        noise = torch.rand(images, self.units, generator=generator)
        if self.views > BLOCK:
            orders = self._by_use(noise, generator)
        else:
            orders = [noise.argsort(dim=1)]
            if self.views == BLOCK:
                visible = torch.randperm(self.kept, generator=generator)
                masked = torch.randperm(self.masked, generator=generator)
                orders.append(self.second(orders[0], visible, masked))
        return self.of_units(torch.cat(orders))

    def second(self, first: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """The second view.

        Args:
            first: Units of the first view, what it shows before what it hides, [B, L].
            visible: A permutation of what it shows.
            masked: A permutation of what it hides.

        Returns:
            Units of the second view, what it shows before what it hides.
        """
        shown, hidden = first[:, : self.kept][:, visible], first[:, self.kept :][:, masked]
        again = self.masked - self.fresh
        keep = (shown[:, self.fresh :], hidden[:, again:])
        return torch.cat((*keep, shown[:, : self.fresh], hidden[:, :again]), dim=1)

    def _by_use(self, noise: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        """Each view hides what the ones before it hid least often; chance decides among equals."""
        count = torch.zeros_like(noise)
        orders = []
        for view in range(self.views):
            chance = noise if view == 0 else torch.rand(noise.shape, generator=generator)
            # Whole numbers and a chance below one: falling, so that the least used come last.
            order = (count + chance).argsort(dim=1, descending=True)
            orders.append(order)
            count.scatter_add_(1, order[:, self.kept :], torch.ones(1).expand(noise.shape))
        return orders

    def of_units(self, order: Tensor) -> Views:
        """Views of an order of units.

        Args:
            order: What a view shows before what it hides, [K * B, L].
        """
        if self.blocks:
            across = self.columns // BLOCK
            corner = (order // across) * BLOCK * self.columns + order % across * BLOCK
            places = [r * self.columns + c for r in range(BLOCK) for c in range(BLOCK)]
            parts = corner[:, : self.kept], corner[:, self.kept :]
            order = torch.cat([part + place for part in parts for place in places], dim=1)
        visible = self.kept * (BLOCK**2 if self.blocks else 1)
        return Views(order[:, :visible], order.argsort(dim=1))
