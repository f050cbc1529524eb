"""The binary linear layer: latent weights while training, sign bits once frozen."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models import ops
from vitc.models.layers.groups import Grouping
from vitc.models.layers.named import Settled, settle_names
from vitc.models.layers.shift import Shift
from vitc.models.layers.signs import are_bits
from vitc.models.schemes import Scheme, find_scheme

__all__ = [
    "BinaryLinear",
    "FrozenBinaryLinear",
    "LinearOutput",
    "begin_epoch",
    "binary_modules",
    "freeze",
    "narrow",
]

_Model = TypeVar("_Model", bound=nn.Module)

_MATRIX: Final = 2


@dataclass(frozen=True, eq=False)
class LinearOutput:
    """What a linear adds up.

    Attributes:
        product: [.., O], scale times integer; with 32-bit weights a sum of floats.
        bias: [O]; None where it is in the product already.
    """

    product: Tensor
    bias: Tensor | None = None

    def value(self) -> Tensor:
        """The output [.., O]."""
        return self.product if self.bias is None else self.product + self.bias


def _scaled(bits: Tensor, sign_bits: Tensor, scale: Tensor, bias: Tensor) -> LinearOutput:
    return LinearOutput(ops.binary_linear(bits, sign_bits).to(scale.dtype) * scale, bias)


def _moved(x: Tensor, move: Shift | None, groups: Grouping | None) -> Tensor:
    if move is None:
        return x
    return move(x) if groups is None else x + groups.spread(move.bias)


def _bordered(x: Tensor, border: int, value: float) -> Tensor:
    return F.pad(x, (0, 0, border, border, border, border), value=value)


def _bits(pre: Tensor, border: int) -> Tensor:
    # Floats are padded, not bits: the writer of bits then serves any order of their rows.
    bits: Tensor = ops.binarize(_bordered(pre, border, 1.0) if border else pre)
    return bits


def _joined(outputs: list[LinearOutput]) -> Tensor:
    """The sections of a linear as one tensor [.., O]."""
    values = [output.value() for output in outputs]
    return values[0] if len(values) == 1 else torch.cat(values, dim=-1)


def _sections(rows: Tensor, parts: int) -> list[slice]:
    size = rows.shape[0] // parts
    return [slice(part * size, (part + 1) * size) for part in range(parts)]


class BinaryLinear(nn.Module):
    """Linear layer on signs with a latent weight, as its scheme binarizes it.

    Where the input is floats, as in training, gradients reach the latent weight; where it is bits,
    as in eval mode, the sum is an exact integer.

    Args:
        inputs: K.
        outputs: O.
        scheme: How weights and inputs are binarized, or the name of such a scheme.
        weight_bits: 1, or 32 to use the latent weight as it is (the 32W1A training step).
        parts: Into how many row sections the forward pass splits the layer (3 for q, k, v), which
            is how many binary linear ops it becomes.
        moved: Whether a move for each input channel is added before the sign; None for what the
            scheme does.
        kernel: Side R of a convolution, whose R x R places side by side are the K inputs, row after
            row, channels varying fastest (`vitc.models.layers.convolution`); `inputs` is then C, a
            place's channels. None for a linear.

    Attributes:
        weight: Latent weight [O, K]; [O, C, R, R] of a convolution.
        bias: [O].
        move: [K], of a convolution [C], if there is one.
        calls: How often a forward pass goes through it: a head may serve several levels.
    """

    alpha: nn.Parameter
    tau: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        scheme: Scheme | str = "bibert",
        weight_bits: int = 1,
        parts: int = 1,
        *,
        moved: bool | None = None,
        kernel: int | None = None,
    ) -> None:
        super().__init__()
        self.scheme = find_scheme(scheme)
        self.weight_bits = weight_bits
        self.parts = parts
        self.calls = 1
        places = () if kernel is None else (kernel, kernel)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *places))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.move = Shift(inputs) if (self.scheme.moves if moved is None else moved) else None
        self.scheme.equip(self)

    @property
    def matrix(self) -> Tensor:
        """The latent weight [O, K]."""
        if self.weight.ndim == _MATRIX:
            return self.weight
        return self.weight.permute(0, 2, 3, 1).flatten(1)

    @torch.no_grad()
    def centred(self) -> Tensor:
        """Float64 [O, K]: the values whose signs are the binary weight."""
        return self.scheme.centre(self.matrix.double(), self.parts)

    @torch.no_grad()
    def constants(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sign bits uint8 [O, K], scale [O] and bias [O], computed in float64 and rounded once.

        Raises:
            VitcError: If the weights are 32 bits wide.
        """
        if self.weight_bits != 1:
            raise VitcError(
                "This model has 32-bit weights (32W1A), so it has no sign bits.",
                "Load it with binary weights, or train the 1W1A step from it.",
            )
        sign_bits = (self.centred() >= 0).to(torch.uint8)
        scale, bias = self.scheme.affine(self)
        return sign_bits, scale.to(self.weight.dtype), bias.to(self.weight.dtype)

    def binarize(self, x: Tensor, groups: Grouping | None = None, border: int = 0) -> Tensor:
        """What this layer reads: bits in eval mode, quantized floats in training.

        Args:
            x: [B, .., K]; with `groups` of K tokens, [B, .., N] before they are split; of a
                convolution [B, .., C].
            groups: Of the tokens on the last axis; the moves are those of a group, for each.
            border: Places around a map [B, H, W, C] whose bits are +1.
        """
        pre = _moved(x, self.move, groups)
        if not self.training:
            return _bits(pre, border)
        values = self.scheme.inputs(self, pre)
        if not border:
            return values
        one = self.scheme.values(self, torch.ones((), dtype=torch.uint8, device=pre.device))
        return _bordered(values, border, one.item())

    def sections(self, bits: Tensor) -> list[LinearOutput]:
        """Bits or quantized floats [.., K] through each of the `parts` row sections."""
        rows = _sections(self.bias, self.parts)
        if not are_bits(bits):
            multiply = self.scheme.product if self.weight_bits == 1 else self.scheme.wide
            whole = multiply(self, bits)
            parts = [whole] if self.parts == 1 else whole.chunk(self.parts, dim=-1)
            return [LinearOutput(part) for part in parts]
        if self.weight_bits == 32:
            values = self.scheme.values(self, bits)
            matrix = self.matrix
            return [LinearOutput(F.linear(values, matrix[r]), self.bias[r]) for r in rows]
        sign_bits, scale, bias = self.constants()
        return [_scaled(bits, sign_bits[r], scale[r], bias[r]) for r in rows]

    def forward(self, signs: Tensor) -> Tensor:
        """Bits, or floats with straight-through gradients (`binarize`), [.., K] to [.., O]."""
        return _joined(self.sections(signs))


class FrozenBinaryLinear(nn.Module):
    """The inference form of a `BinaryLinear`: sign bits and scale instead of a latent weight.

    Attributes:
        sign_bits: uint8 [O, K].
        scale: [O], from float64 and rounded once to fp32; of any sign.
        bias: [O], the same.
        parts: As in `BinaryLinear`.
        calls: As in `BinaryLinear`.
    """

    sign_bits: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, linear: BinaryLinear) -> None:
        super().__init__()
        sign_bits, scale, bias = linear.constants()
        dtype = linear.weight.dtype
        self.parts = linear.parts
        self.calls = linear.calls
        self.move = copy.deepcopy(linear.move)
        self.register_buffer("sign_bits", sign_bits)
        self.register_buffer("scale", scale.to(torch.float32).to(dtype))
        self.register_buffer("bias", bias.to(torch.float32).to(dtype))
        self.training = False

    def binarize(self, x: Tensor, groups: Grouping | None = None, border: int = 0) -> Tensor:
        """Bits of what this layer reads; arguments are those of `BinaryLinear.binarize`."""
        return _bits(_moved(x, self.move, groups), border)

    def sections(self, bits: Tensor) -> list[LinearOutput]:
        """Bits [.., K] through each of the `parts` row sections."""
        if self.parts == 1:
            return [_scaled(bits, self.sign_bits, self.scale, self.bias)]
        rows = _sections(self.scale, self.parts)
        return [_scaled(bits, self.sign_bits[r], self.scale[r], self.bias[r]) for r in rows]

    def forward(self, bits: Tensor) -> Tensor:
        """Bits [.., K] to fp32 [.., O]."""
        return _joined(self.sections(bits))

    def train(self, mode: bool = True) -> FrozenBinaryLinear:
        """Stay in eval mode.

        Raises:
            VitcError: If `mode` is true: the latent weights are gone.
        """
        if mode:
            raise VitcError(
                "A frozen model cannot be trained: it has no latent weights.",
                "Train the model it was frozen from.",
            )
        return super().train(False)


def binary_modules(model: nn.Module) -> dict[str, BinaryLinear | FrozenBinaryLinear]:
    """Every binary linear of `model` by module name, in the order of computation.

    A module becomes ``module.parts`` binary linear ops in each of its `calls`, so the ops of an
    exported graph must number ``sum(m.parts * m.calls for m in binary_modules(model).values())``.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BinaryLinear | FrozenBinaryLinear)
    }


def begin_epoch(model: nn.Module, epoch: int, epochs: int) -> None:
    """Set what schemes schedule by epochs, in every binary linear of `model`.

    Args:
        model: A model in training.
        epoch: Counted from 0.
        epochs: Of how many.
    """
    for module in binary_modules(model).values():
        if isinstance(module, BinaryLinear):
            module.scheme.begin_epoch(module, epoch, epochs)


def narrow(model: nn.Module) -> None:
    """Prepare a model that was trained with 32-bit weights for binary ones: 32W1A to 1W1A."""
    for module in binary_modules(model).values():
        if isinstance(module, BinaryLinear):
            module.scheme.narrow(module)


def freeze(model: _Model, keep: Collection[str] = ()) -> _Model:
    """A deep copy in eval mode whose binary linears hold constants instead of latent weights.

    Args:
        model: The model.
        keep: Names of binary linears that stay as they are.

    Raises:
        VitcError: If the model has 32-bit weights, or two layers have one name.
    """
    frozen = copy.deepcopy(model).requires_grad_(False)
    for module in [*frozen.modules()]:
        if isinstance(module, Settled):
            module.settle()
    frozen.eval()
    for name, module in binary_modules(frozen).items():
        if isinstance(module, BinaryLinear) and name not in keep:
            frozen.set_submodule(name, FrozenBinaryLinear(module))
    settle_names(frozen)
    return frozen
