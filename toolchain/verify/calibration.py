"""What a network is calibrated on when its products of floats become integers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.models.network import Network
from vitc.models.preprocessing import colours_first
from vitc.names import DATA
from vitc.runtime.port import Port
from vitc.verify.inputs import probe_ports

if TYPE_CHECKING:
    from vitc.training.data import Dataset

__all__ = ["calibration"]

_BATCH: Final = 16


def calibration(model: nn.Module, data: str | None, count: int) -> Iterator[Tensor]:
    """Batches of what a network takes, to find the ranges of its values.

    Args:
        model: A `Network`.
        data: ``digits``, or a folder of class folders or of images, of which those to learn from
            are taken; None for `probe_inputs`.
        count: How many images at most, spread evenly.

    Raises:
        VitcError: If it is no `Network`, or the pictures cannot be read.
    """
    if not isinstance(model, Network):
        raise VitcError(
            f"A {type(model).__name__} does not say how pictures become its input.",
            "Give what `vitc.models.ends.calibrated` finds to `with_ends`.",
        )
    if hasattr(model, "example"):
        raise VitcError(
            f"A network of {model.config.arch} takes more than pictures, so it is not calibrated "
            "on those.",
            "Export it with --ends fp32.",
        )
    of_bytes = model.config.takes_bytes
    if data is None:
        port = Port("input", "uint8" if of_bytes else "float32", model.config.input_shape)
        made = probe_ports([port], min(count, _BATCH))["input"]
        return iter([torch.from_numpy(made)])
    # The training package is slow to import and only wanted with data.
    from vitc.training.data import load_dataset

    folder = Path(data)
    parted = data == DATA or ((folder / "train").is_dir())
    found = load_dataset(data, model.preprocessing, "train" if parted else "all", limit=count)
    return _batches(found, of_bytes=of_bytes)


def _batches(found: Dataset, *, of_bytes: bool) -> Iterator[Tensor]:
    for start in range(0, len(found), _BATCH):
        numbers = range(start, min(start + _BATCH, len(found)))
        if of_bytes:
            pixels = np.stack([found.pixels(number) for number in numbers])
            yield torch.from_numpy(colours_first(pixels))
        else:
            yield found.__getitems__(numbers)[0]
