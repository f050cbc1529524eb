"""Random weights that behave like trained ones, so that a network can be timed before training.

At PyTorch's own initialisation shifts are zero, norms are identities and SI is switched off, which
hides mistakes and lets compilers drop work. Here every parameter is non-trivial, some gains and
slopes are negative, and the norms are calibrated on random images so that bits stay balanced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from vitc.models.binary_linear import BinaryLinear
from vitc.models.build import build_network
from vitc.models.config import NetworkConfig
from vitc.models.layers.attention import BinaryAttention
from vitc.models.layers.mlp import BinaryMLP
from vitc.models.layers.norm import AxisNorm, ChannelNorm
from vitc.models.network import SPATIAL_SCALE, Network
from vitc.models.preprocessing import Preprocessing

__all__ = ["random_images", "random_model"]

_LATENT_STD: Final = 0.02
_EMBEDDINGS: Final = frozenset(("cls_token", "pos_embed"))
_CALIBRATION_IMAGES: Final = 4


def random_images(config: NetworkConfig, count: int, seed: int = 0) -> Tensor:
    """Normalised images [count, 3, H, W]: smooth random fields with some noise on top.

    Args:
        config: Gives the image size.
        count: B.
        seed: The same seed gives the same images.
    """
    generator = torch.Generator().manual_seed(seed)
    colours, height, width = config.input_shape
    coarse = torch.randn(count, colours, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return smooth + 0.3 * torch.randn(count, colours, height, width, generator=generator)


@torch.no_grad()
def random_model(
    config: NetworkConfig,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
) -> Network:
    """A model in eval mode with random, trained-like parameters.

    Args:
        config: Sizes and scheme.
        seed: The same seed gives the same parameters on the same machine.
        preprocessing: Stored with the model.
        labels: Stored with the model.

    Raises:
        VitcError: If the configuration does not hold.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_network(config, preprocessing, labels).eval()
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, mean: float, std: float) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    def uniform(tensor: Tensor, low: float, high: float, negative: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
        flip = torch.rand(tensor.shape, generator=generator) < negative
        tensor.mul_(torch.where(flip, -1.0, 1.0))

    modules = [*model.modules()]
    for module in modules:
        if isinstance(module, BinaryLinear):
            normal(module.weight, 0.0, _LATENT_STD)
            normal(module.bias, 0.0, 0.2 * _spread(module))
            module.scheme.randomise(module, generator)
            if module.move is not None and not module.scheme.moves:
                normal(module.move.bias, 0.0, 0.2)
        elif isinstance(module, AxisNorm | ChannelNorm):
            uniform(module.weight, 0.5, 1.5, negative=0.15)
            normal(module.bias, 0.0, 0.2)
        elif isinstance(module, nn.PReLU):
            normal(module.weight, 0.25, 0.2)
    for module in modules:
        if isinstance(module, BinaryAttention):
            linear = module.kv if module.crossed else module.qkv
            for shift in (module.moveq, module.movek, module.movev):
                normal(shift.bias, 0.0, 0.3 * _spread(linear))
            normal(module.movefc.bias, 0.0, 0.2 * module.movek.bias.shape[2] ** 0.5)
            module.scheme.randomise_attention(module, generator)
        elif isinstance(module, BinaryMLP):
            normal(module.movefc1.bias, 0.0, 0.2)
            for shift in (module.moveact1, module.moveact2, module.movefc2):
                normal(shift.bias, 0.0, 0.25 * _spread(module.fc1))
    for name, parameter in model.named_parameters():
        if name.endswith(SPATIAL_SCALE):
            uniform(parameter, 0.2, 0.8, negative=0.2)
    for module in modules:
        if isinstance(module, nn.Conv2d):
            normal(module.weight, 0.0, module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                normal(module.bias, 0.0, 0.1)
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] in _EMBEDDINGS:
            normal(parameter, 0.0, 0.1)
    for module in modules:
        if isinstance(module, nn.Linear):
            normal(module.weight, 0.0, 2 * module.weight.shape[1] ** -0.5)
            if module.bias is not None:
                normal(module.bias, 0.0, 0.1)
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table"):
            normal(parameter, 0.0, 0.5)
    _calibrate(model, random_images(config, _CALIBRATION_IMAGES, seed), generator)
    return model


def _spread(linear: BinaryLinear) -> float:
    """Standard deviation of scale * I for random signs; E|w| of a normal is std * sqrt(2/pi)."""
    return float(_LATENT_STD * 0.798 * linear.matrix.shape[1] ** 0.5)


def _calibrate(model: Network, images: Tensor, generator: torch.Generator) -> None:
    """Set each norm's statistics from what reaches it, off by a little as after training."""

    def measure(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Tensor = inputs[0]
        mean, var = x.mean(dim=(0, 2)), x.var(dim=(0, 2))
        noise = torch.randn(mean.shape, generator=generator)
        spread = 0.75 + 0.5 * torch.rand(var.shape, generator=generator)
        norm.running_mean = mean + 0.15 * noise * var.sqrt()
        norm.running_var = var * spread

    handles = [
        module.register_forward_pre_hook(measure)
        for module in model.modules()
        if isinstance(module, AxisNorm)
    ]
    model(images)
    for handle in handles:
        handle.remove()
