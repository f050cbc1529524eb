"""PyTorch models of binarized vision transformers: latent weights, taps and exact integer ops.

Names are looked up when they are used: presets and preprocessing need no PyTorch, and what reads
only those should not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vitc.models.architectures import (
        ARCHITECTURES,
        PRESETS,
        Architecture,
        architecture,
        config_from_dict,
        preset,
    )
    from vitc.models.architectures.deit import ModelConfig
    from vitc.models.binary_linear import binary_modules, freeze
    from vitc.models.build import build_network
    from vitc.models.checkpoint import load, save
    from vitc.models.config import NetworkConfig, Preset
    from vitc.models.initialise import random_images, random_model
    from vitc.models.network import LoadReport, Network
    from vitc.models.preprocessing import Preprocessing
    from vitc.models.sibivit import SIBiViT
    from vitc.models.taps import TapEvent, observe

__all__ = [
    "ARCHITECTURES",
    "PRESETS",
    "Architecture",
    "LoadReport",
    "ModelConfig",
    "Network",
    "NetworkConfig",
    "Preprocessing",
    "Preset",
    "SIBiViT",
    "TapEvent",
    "architecture",
    "binary_modules",
    "build_network",
    "config_from_dict",
    "freeze",
    "load",
    "observe",
    "preset",
    "random_images",
    "random_model",
    "save",
]

_HOMES: Final = {
    "ARCHITECTURES": "architectures",
    "PRESETS": "architectures",
    "Architecture": "architectures",
    "LoadReport": "network",
    "ModelConfig": "architectures.deit",
    "Network": "network",
    "NetworkConfig": "config",
    "Preprocessing": "preprocessing",
    "Preset": "config",
    "SIBiViT": "sibivit",
    "TapEvent": "taps",
    "architecture": "architectures",
    "binary_modules": "binary_linear",
    "build_network": "build",
    "config_from_dict": "architectures",
    "freeze": "binary_linear",
    "load": "checkpoint",
    "observe": "taps",
    "preset": "architectures",
    "random_images": "initialise",
    "random_model": "initialise",
    "save": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
