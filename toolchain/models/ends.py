"""Ends of a network in int8: products of floats whose operands become integers.

A binarized network keeps some products in fp32 (patch embedding, merging, reduction, convolutions,
head), which are few, but take a good part of its time. `with_ends` puts int8 in their place: a
weight is an integer of one scale an output, an input a code

    c = clamp(round(x / s) + z, 0, 255),  x ~ s (c - z)

whose scale s and zero z are those of the values that calibration saw. Sums are exact integers, the
same ones on every machine; scale and bias follow in fp32. The network that comes of it is another
one: what is exported is held to it bit for bit, and its distance to the first is measured (`vitc
check`). Ours (issue of the method: the paper keeps these products in fp32).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models import ops
from vitc.models.binary_linear import binary_modules
from vitc.models.network import Network
from vitc.models.taps import tap

__all__ = ["CodedConv2d", "CodedLinear", "Codes", "calibrated", "end_layers", "with_ends"]

_Model = TypeVar("_Model", bound=nn.Module)

_LEVELS: Final = 255
_LARGEST: Final = 127
_LEAST_STEP: Final = 2.0**-100
"""Products are then no denormals, which some processors take for zero."""

_MATRIX: Final = 2
_MOST_TERMS: Final = (2**31 - 1) // (_LEVELS * _LARGEST)
"""Terms of a sum that certainly fits into 32 bits."""


@dataclass(frozen=True)
class Codes:
    """How floats become codes.

    Attributes:
        scale: What a step of a code is worth, an fp32 value.
        zero: Code of 0.0.
    """

    scale: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> Codes:
        """Those over a range, which is widened to hold 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = max((high - low) / _LEVELS, _LEAST_STEP)
        scale = float(torch.tensor(step, dtype=torch.float32))
        return cls(scale, min(max(round(-low / scale), 0), _LEVELS))

    def __post_init__(self) -> None:
        fits = isinstance(self.scale, float) and math.isfinite(self.scale) and self.scale > 0
        if not fits or type(self.zero) is not int or not 0 <= self.zero <= _LEVELS:
            raise VitcError(
                f"Codes have a positive scale and a zero of 0 to 255, found {self.scale} and "
                f"{self.zero}."
            )


class _CodedProduct(nn.Module):
    """What both products share.

    Args:
        source: The product of floats.
        weight: Its weight [O, K], in the order of a row's inputs.
        codes: Of its input.
        name: Of the layer.

    Attributes:
        weight: int8 [1, O, K].
        shift: int32 [O], what the zeros of the codes add to a sum.
        scale: fp32 [O].
        bias: fp32 [O].
    """

    weight: Tensor
    shift: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(
        self, source: nn.Linear | nn.Conv2d, weight: Tensor, codes: Codes, name: str
    ) -> None:
        super().__init__()
        self.codes, self.name = codes, name
        wide = weight.detach().to(torch.float64)
        step = (wide.abs().amax(1) / _LARGEST).clamp(min=_LEAST_STEP).to(torch.float32)
        rounded = (wide / step.double()[:, None]).round().clamp(-_LARGEST, _LARGEST)
        bias = torch.zeros(len(wide)) if source.bias is None else source.bias.detach().clone()
        self.register_buffer("weight", rounded.to(torch.int8)[None].contiguous())
        self.register_buffer("shift", (codes.zero * rounded.sum(1)).to(torch.int32))
        self.register_buffer("scale", (step.double() * codes.scale).to(torch.float32))
        self.register_buffer("bias", bias.to(torch.float32))

    def coded(self, x: Tensor) -> Tensor:
        """Floats as codes uint8, tapped."""
        codes = ops.quantize(x, self.codes.scale, self.codes.zero)
        return tap(f"{self.name}.codes", codes, "codes")

    def product(self, rows: Tensor) -> Tensor:
        """Codes [.., N, K] to floats [.., N, O]."""
        sums = ops.byte_linear(rows, self.weight) - self.shift
        scaled: Tensor = sums.to(self.scale.dtype) * self.scale + self.bias
        return scaled


class CodedLinear(_CodedProduct):
    """A linear of codes: floats [.., K] to floats [.., O]."""

    def __init__(self, source: nn.Linear, codes: Codes, name: str) -> None:
        super().__init__(source, source.weight, codes, name)

    def forward(self, x: Tensor) -> Tensor:
        """Compute it."""
        codes = self.coded(x)
        if codes.dim() > _MATRIX:
            return self.product(codes)
        return self.product(codes.unsqueeze(1)).squeeze(1)


class CodedConv2d(_CodedProduct):
    """A convolution of codes: floats [B, C, H, W] to floats [B, O, H', W']; around them is 0.0."""

    def __init__(self, source: nn.Conv2d, codes: Codes, name: str) -> None:
        by_place = source.weight.permute(0, 2, 3, 1).flatten(1)
        super().__init__(source, by_place, codes, name)
        self.sides, self.stride, self.padding = (
            (int(pair[0]), int(pair[1]))
            for pair in (source.kernel_size, source.stride, source.padding)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute it."""
        by_row = x.permute(0, 2, 3, 1)
        if any(self.padding):
            down, along = self.padding
            by_row = F.pad(by_row, (0, 0, along, along, down, down))
        codes = self.coded(by_row)
        high, wide = (
            (size - side) // step + 1
            for size, side, step in zip(codes.shape[1:3], self.sides, self.stride, strict=True)
        )
        if self.sides == self.stride:
            rows, columns = self.sides
            cut = codes[:, : high * rows, : wide * columns]
            cut = torch.unflatten(torch.unflatten(cut, 2, (wide, columns)), 1, (high, rows))
            windows = cut.permute(0, 1, 3, 2, 4, 5).flatten(3, 5)
        else:
            down, along = self.stride
            places = [
                codes[:, row : row + (high - 1) * down + 1 : down]
                [:, :, column : column + (wide - 1) * along + 1 : along]
                for row in range(self.sides[0])
                for column in range(self.sides[1])
            ]
            windows = torch.cat(places, dim=-1)
        made = torch.unflatten(self.product(windows.flatten(1, 2)), 1, (high, wide))
        return made.permute(0, 3, 1, 2)


def end_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Products of floats that can be in int8, by name, in the order of the model's modules.

    Those are linears and dense convolutions with zeros around the picture, of at most 66,311 terms
    a sum.
    """
    inside = tuple(f"{name}." for name in binary_modules(model))
    return {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or _is_dense(module))
        and module.weight[0].numel() <= _MOST_TERMS
        and not name.startswith(inside)
    }


def _is_dense(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and set(module.dilation) == {1}
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    )


@torch.no_grad()
def calibrated(model: nn.Module, batches: Iterable[Any]) -> dict[str, Codes]:
    """Codes for the inputs of the layers of `end_layers`, over what these batches show.

    What reads the images themselves is left out. Their pixels are bytes, so a grid of codes meets
    that of normalised bytes half-way between two codes, or never: an embedding of bytes rounds
    nothing (`vitc.models.embedding`).

    Args:
        model: In any mode; it is run in that of evaluation, and left as it was.
        batches: Inputs of the model.

    Raises:
        VitcError: If there is no batch, no such layer, or a value that is no number.
    """
    layers = end_layers(model)
    if not layers:
        raise VitcError(
            f"A {type(model).__name__} has no product of floats that could be in int8.",
            "Export it with --ends fp32.",
        )
    seen: dict[str, tuple[float, float]] = {}

    ran, current = False, cast(Any, None)

    def watch(name: str) -> Any:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            if given[0] is current:
                return
            low, high = (float(value) for value in torch.aminmax(given[0]))
            if not (math.isfinite(low) and math.isfinite(high)):
                raise VitcError(
                    f"The input of {name} is not finite on the images that it is calibrated on.",
                    "Look at the checkpoint and at those images.",
                )
            before = seen.get(name, (0.0, 0.0))
            seen[name] = min(before[0], low), max(before[1], high)

        return hook

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in layers.items()]
    before = model.training
    try:
        model.eval()
        for batch in batches:
            current = batch
            model(batch)
            ran = True
    finally:
        model.train(before)
        for hook in hooks:
            hook.remove()
    if not ran:
        raise VitcError("There are no images to calibrate on.", "Name some with --calibrate.")
    return {name: Codes.over(*seen[name]) for name in layers if name in seen}


def with_ends(model: _Model, codes: Mapping[str, Codes]) -> _Model:
    """The network with some products in int8; the model itself is not changed.

    The configuration of a `Network` says so. It cannot be trained or saved.

    Args:
        model: Any model of vitc's layers.
        codes: By the name of a layer, how its input becomes codes, as `calibrated` finds them.

    Raises:
        VitcError: If a name is that of no such layer, or the network has int8 ends already.
    """
    layers = end_layers(model)
    unknown = sorted(codes.keys() - layers.keys())
    if unknown:
        raise VitcError(
            f"The network has no product of floats {unknown[0]}, whose codes are named.",
            "Export it again.",
        )
    if isinstance(model, Network) and model.config.ends:
        raise VitcError(
            "The network has int8 ends already.", "Start from the checkpoint that it was made from."
        )
    changed = copy.deepcopy(model)
    for name, chosen in codes.items():
        source = layers[name]
        made = (
            CodedLinear(source, chosen, name)
            if isinstance(source, nn.Linear)
            else CodedConv2d(source, chosen, name)
        )
        changed.set_submodule(name, made)
    if isinstance(changed, Network):
        ends = tuple((name, chosen.scale, chosen.zero) for name, chosen in codes.items())
        changed.config = dataclasses.replace(changed.config, ends=ends)
    return changed
