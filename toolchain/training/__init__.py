"""Training of binarized vision transformers, and the data they are trained and checked on."""

from __future__ import annotations

from vitc.training.data import Dataset, load_dataset
from vitc.training.loop import train
from vitc.training.options import EpochReport, TrainOptions, TrainResult

__all__ = ["Dataset", "EpochReport", "TrainOptions", "TrainResult", "load_dataset", "train"]
