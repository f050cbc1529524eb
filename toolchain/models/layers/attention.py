"""Binary attention: signs of q, k and v, a thresholded softmax, an integer context."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models import ops
from vitc.models.binary_linear import BinaryLinear, LinearOutput
from vitc.models.layers.groups import Grouping
from vitc.models.layers.mask import BiasedBestMask
from vitc.models.layers.named import Settled
from vitc.models.layers.shift import Shift
from vitc.models.layers.signs import masked_sum, products
from vitc.models.schemes import Scheme, find_scheme
from vitc.models.taps import tap

__all__ = ["BinaryAttention"]


def relative_positions(rows: int, columns: int) -> NDArray[np.int64]:
    """Row of the bias table for each query and key of a window: [n, n], places row-major."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    down = row[:, None] - row + rows - 1
    right = column[:, None] - column + columns - 1
    return np.asarray(down * (2 * columns - 1) + right, np.int64)


class BinaryAttention(Settled):
    """Binary attention (SI-BiViT, section 3): ``proj(sgn(A v + movefc))``.

    ``q = sgn(linear(sgn(u)) + moveq)``, k and v likewise; A is 1 where a key's softmax of
    ``q . k / sqrt(d)`` is at least a quarter of the row's largest (or what the scheme has for that,
    `vitc.models.layers.mask`). Tokens may stand in groups
    (windows), which attend inside themselves; shifts belong to the places in a group.

    Args:
        width: C, channels.
        heads: h; the head width is C / h.
        tokens: n, queries of a group.
        keys: m, keys of a group, where keys and values come from another input than queries; then
            ``q`` and ``kv`` are two linears. None for one input, and one linear ``qkv``.
        scheme: Binarization scheme, or its name.
        weight_bits: 1 or 32.
        name: First part of the tap names; empty for the name of the module.
        window: Rows and columns of a group whose scores have a bias of relative positions.
        excluded: Pairs that never attend, bool [G, 1, n, n]; needs `window`.

    Attributes:
        relative_position_bias_table: [(2 rows - 1) (2 columns - 1), h], if there is a window.

    Raises:
        VitcError: If the width is not a multiple of the heads.
    """

    relative: Tensor
    excluded: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        tokens: int,
        *,
        keys: int | None = None,
        scheme: Scheme | str = "bibert",
        weight_bits: int = 1,
        name: str = "",
        window: tuple[int, int] | None = None,
        excluded: NDArray[np.bool_] | None = None,
    ) -> None:
        super().__init__(name)
        if width % heads:
            raise VitcError(f"The width {width} is not a multiple of {heads} heads.")
        rules = find_scheme(scheme)
        self.heads = heads
        self.head_width = width // heads
        self.scheme = rules
        if keys is None:
            self.qkv = BinaryLinear(width, 3 * width, rules, weight_bits, parts=3)
        else:
            self.q = BinaryLinear(width, width, rules, weight_bits)
            self.kv = BinaryLinear(width, 2 * width, rules, weight_bits, parts=2)
        self.crossed = keys is not None
        self.proj = BinaryLinear(width, width, rules, weight_bits)
        held = tokens if keys is None else keys
        self.moveq = Shift(1, heads, tokens, 1)
        self.movek = Shift(1, heads, held, 1)
        self.movev = Shift(1, heads, held, 1)
        self.movefc = Shift(1, tokens, 1)
        self.window = window
        if window is not None:
            rows, columns = window
            self.relative_position_bias_table = nn.Parameter(
                torch.zeros((2 * rows - 1) * (2 * columns - 1), heads)
            )
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
            # Constants of the sizes: made by NumPy, they have values on the meta device, too.
            apart = np.zeros((1, 1, 1, 1), bool) if excluded is None else excluded
            self.register_buffer("excluded", torch.from_numpy(apart), persistent=False)
            index = torch.from_numpy(relative_positions(rows, columns))
            self.register_buffer("relative", index, persistent=False)
        self.mask_rule: nn.Module | None = None
        self.context_rule: nn.Module | None = None
        rules.equip_attention(self)

    def settle(self) -> None:
        """Hold the rules of masks and context as constants."""
        self.mask_rule = self._rule()
        self.context_rule = self.scheme.context(self)

    def _by_head(self, output: LinearOutput, move: Shift, name: str) -> Tensor:
        """[.., n, C] to signs [.., h, n, d]."""
        heads = (self.heads, self.head_width)
        shift = move.bias.transpose(1, 2)
        pre = torch.unflatten(output.value(), -1, heads) + shift
        signs = self.scheme.attended(self, pre, name) if self.training else ops.binarize(pre)
        return tap(f"{self.name}.{name}", signs.transpose(-3, -2), "bits")

    def forward(
        self,
        u: Tensor,
        keys: Tensor | None = None,
        groups: Grouping | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            u: Normalised queries [B, n, C], or [B, groups, n, C].
            keys: Normalised input of keys and values [B, m, C] (or with groups), if the layer was
                made with `keys`.
            groups: Of the tokens; then `u` is [B, N, C], and its signs are split.

        Returns:
            The projected context, fp32 in the shape of `u`, or in groups.

        Raises:
            VitcError: If there are keys and the layer was made without, or the other way round.
        """
        if (keys is not None) != self.crossed:
            raise VitcError(
                f"The attention {self.name} was made for "
                + (
                    "keys of another input, and got none."
                    if self.crossed
                    else "one input, got two."
                ),
                "Make it with keys=, the number of keys, if they come from another input.",
            )
        first = self.qkv if keys is None else self.q
        bits = first.binarize(u)
        bits = bits if groups is None else groups.split(bits)
        bits = tap(f"{self.name}.input", bits, "bits")
        if keys is None:
            query, key, value = self.qkv.sections(bits)
        else:
            others = tap(f"{self.name}.keys", self.kv.binarize(keys), "bits")
            (query,) = self.q.sections(bits)
            key, value = self.kv.sections(others)
        q = self._by_head(query, self.moveq, "query")
        k = self._by_head(key, self.movek, "key")
        v = self._by_head(value, self.movev, "value")
        scores = tap(f"{self.name}.scores", products(q, k), "int")
        mask = tap(f"{self.name}.mask", self._mask(scores), "bits")
        out: Tensor = self.proj(tap(f"{self.name}.context", self._context(mask, v), "bits"))
        return out

    def _mask(self, scores: Tensor) -> Tensor:
        if self.training:
            scaled = scores * self.head_width**-0.5
            if self.window is not None:
                scaled = (scaled + self._bias()).masked_fill(self.excluded, -torch.inf)
            return self.scheme.masked(self, F.softmax(scaled, dim=-1))
        mask: Tensor = (self.mask_rule or self._rule())(scores)
        return mask

    def _bias(self) -> Tensor:
        """Of relative positions, [h, n, n]."""
        tokens = self.relative.shape[0]
        rows = self.relative_position_bias_table.index_select(0, self.relative.flatten())
        return torch.unflatten(rows, 0, (tokens, tokens)).permute(2, 0, 1)

    def _rule(self) -> nn.Module:
        if self.window is None:
            return self.scheme.mask(self)
        if getattr(self.scheme, "elastic", False):
            raise VitcError(
                f"The attention {self.name} has a bias of scores, and an elastic mask is for "
                "integers.",
                "Leave --elastic away.",
            )
        with torch.no_grad():
            bias = self._bias()
        return BiasedBestMask(self.scheme.temperature(self), bias, self.excluded)

    def _context(self, mask: Tensor, v: Tensor) -> Tensor:
        """What the last linear reads, [.., n, C]."""
        context = masked_sum(mask, v)
        rule = None if self.training else self.context_rule or self.scheme.context(self)
        if rule is not None:
            bits: Tensor = rule(context)
            return bits.transpose(-3, -2).flatten(-2)
        joined = context.transpose(-3, -2).flatten(-2)
        return self.proj.binarize(self.movefc(joined.to(self.movefc.bias.dtype)))
