"""PyTorch models of binarized vision transformers: latent weights, taps and exact integer ops."""

from __future__ import annotations

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
