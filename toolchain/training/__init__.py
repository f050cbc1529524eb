"""Training of binarized vision transformers, and the data they are trained and checked on.

Names are looked up when they are used: options and outputs of a run need no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vitc.training.data import Dataset, load_dataset
    from vitc.training.options import EpochReport, TrainOptions, TrainResult
    from vitc.training.recipes import train

__all__ = ["Dataset", "EpochReport", "TrainOptions", "TrainResult", "load_dataset", "train"]

_HOMES: Final = {
    "Dataset": "data",
    "EpochReport": "options",
    "TrainOptions": "options",
    "TrainResult": "options",
    "load_dataset": "data",
    "train": "recipes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
