"""Twins with random parameters, and their checkpoints as other programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vitc.models import Network, build_network
from vitc.models.architectures.float_deit import DeiTTwinConfig
from vitc.models.architectures.float_nest import NesTTwinConfig
from vitc.models.architectures.float_pvt import PVTTwinConfig
from vitc.models.architectures.float_swin import SwinTwinConfig
from vitc.models.architectures.twin import TwinConfig
from vitc.models.twins.sources import SOURCES, Source

DEIT = DeiTTwinConfig(image_size=12, patch_size=4, width=21, depth=2, heads=3, hidden=37, classes=5)
SWIN = SwinTwinConfig(
    image_size=24,
    patch_size=2,
    widths=(12, 18),
    depths=(2, 1),
    heads=(2, 3),
    hidden=(20, 31),
    window=(3, 3),
    classes=5,
)
PVT = PVTTwinConfig(
    image_size=24,
    patch_sizes=(2, 2, 1, 2),
    widths=(6, 10, 12, 14),
    depths=(1, 1, 1, 2),
    heads=(1, 2, 3, 2),
    hidden=(12, 30, 13, 17),
    reductions=(4, 3, 2, 1),
    classes=5,
)
NEST = NesTTwinConfig(
    image_size=24,
    patch_size=2,
    widths=(12, 15, 18),
    depths=(1, 2, 1),
    heads=(2, 3, 6),
    hidden=(24, 17, 36),
    classes=5,
)
CONFIGS: dict[str, TwinConfig] = {c.arch: c for c in (DEIT, SWIN, PVT, NEST)}


def random_twin(config: TwinConfig, seed: int = 0) -> Network:
    """A twin in eval mode in which every parameter matters, norms and biases too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_network(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
                if parameter.ndim == 1:
                    parameter.add_(0.5)
    return model


def theirs(model: Network, source: Source) -> dict[str, Tensor]:
    """The state dict of a twin, as a source would name, cut and order it."""
    written: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if source.heads_last and name.endswith("attn.proj.weight"):
            heads = model.config.heads[int(name.split(".")[1])]
            d = tensor.shape[1] // heads
            columns = [h * d + j for j in range(d) for h in range(heads)]
            tensor = tensor[:, columns]
        entries = [e for e in source.names if e.backward(name) is not None]
        first = entries[0]
        parts = tensor.chunk(first.parts) if first.parts > 1 else [tensor]
        for entry in entries[: first.parts]:
            written[entry.backward(name)] = parts[entry.part].contiguous()
    return written


STATED: dict[str, dict[str, Any]] = {
    "Hugging Face ViT": {"num_attention_heads": 3, "layer_norm_eps": 1e-3},
    "Hugging Face DeiT": {"num_attention_heads": 3, "layer_norm_eps": 1e-3},
    "Hugging Face Swin": {"num_heads": [2, 3], "image_size": 24, "layer_norm_eps": 1e-3},
    "Hugging Face PVT": {"num_attention_heads": [1, 2, 3, 2], "layer_norm_eps": 1e-3},
    "PVT's authors": {"num_heads": [1, 2, 3, 2], "norm_layer_eps": 1e-3},
    "timm DeiT or ViT": {"num_heads": 3, "norm_layer_eps": 1e-3},
    "timm Swin": {"img_size": 24, "norm_layer_eps": 1e-3},
    "Swin's authors": {"img_size": 24, "norm_layer_eps": 1e-3},
    "timm NesT": {"num_heads": [2, 3, 6], "norm_layer_eps": 1e-3},
}
"""What a configuration file has to say of `CONFIGS`, with a constant of norms that shows."""


def written(folder: Path, source: str, tensors: dict[str, Tensor], **stated: Any) -> Path:
    """A file of a source, its configuration beside it."""
    file = folder / "theirs.safetensors"
    save_file(tensors, file)
    file.with_suffix(".json").write_text(json.dumps({**STATED[source], **stated}))
    return file


__all__ = ["CONFIGS", "SOURCES", "STATED", "random_twin", "theirs", "written"]
