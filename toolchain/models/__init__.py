"""PyTorch models of binarized vision transformers: latent weights, taps and exact integer ops.

Names are looked up when they are used: presets and preprocessing need no PyTorch, and what reads
only those should not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vitc.models.binary_linear import binary_modules, freeze
    from vitc.models.checkpoint import load, save
    from vitc.models.config import PRESETS, ModelConfig, Preprocessing, Preset, preset
    from vitc.models.initialise import random_images, random_model
    from vitc.models.sibivit import LoadReport, SIBiViT
    from vitc.models.taps import TapEvent, observe

__all__ = [
    "PRESETS",
    "LoadReport",
    "ModelConfig",
    "Preprocessing",
    "Preset",
    "SIBiViT",
    "TapEvent",
    "binary_modules",
    "freeze",
    "load",
    "observe",
    "preset",
    "random_images",
    "random_model",
    "save",
]

_HOMES: Final = {
    "PRESETS": "config",
    "LoadReport": "sibivit",
    "ModelConfig": "config",
    "Preprocessing": "config",
    "Preset": "config",
    "SIBiViT": "sibivit",
    "TapEvent": "taps",
    "binary_modules": "binary_linear",
    "freeze": "binary_linear",
    "load": "checkpoint",
    "observe": "taps",
    "preset": "config",
    "random_images": "initialise",
    "random_model": "initialise",
    "save": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
