"""The images of a check: probes, or pictures of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vitc.errors import VitcError
from vitc.models.architectures import TASKS
from vitc.models.network import Network
from vitc.models.picture_files import counted
from vitc.models.preprocessing import colours_first
from vitc.runtime.port import Port
from vitc.verify.check_options import DIGITS, CheckOptions
from vitc.verify.comparison import Given, Images
from vitc.verify.inputs import probe_ports

if TYPE_CHECKING:
    from vitc.training.data import Dataset, Split

__all__ = ["few", "images_for"]


@dataclass(frozen=True)
class _Pictures:
    """Pictures of a data set, read when they are asked for; bytes, or normalised."""

    data: Dataset
    of_bytes: bool

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, numbers: list[int], /) -> dict[str, NDArray[Any]]:
        if self.of_bytes:
            pixels = np.stack([self.data.pixels(number) for number in numbers])
            return {"input": colours_first(pixels)}
        return {"input": self.data.__getitems__(numbers)[0].numpy()}


def images_for(
    model: nn.Module,
    inputs: Sequence[Port],
    options: CheckOptions,
    note: Callable[[str], None] = lambda _: None,
) -> Images:
    """What a check runs on: probe images, or those of a data set.

    Args:
        model: What is checked against; of pictures it says how they become its input.
        inputs: What the candidate takes.
        options: How many, and of which data set.
        note: Told in a sentence what was left out of it.

    Raises:
        VitcError: If the data cannot be read, or is none for this model.
    """
    if options.data is None:
        probes = probe_ports(inputs, options.images, seed=options.seed)
        return Images(Given(probes), options.images)
    if not isinstance(model, Network):
        raise VitcError(
            f"A {type(model).__name__} does not say how pictures become its input.",
            "Leave --data away.",
        )
    # The training package is slow to import and only wanted with data.
    if model.config.arch in TASKS:
        from vitc.verify.tasks import labelled

        return labelled(model, options.data, options.background, options.images, note)
    from vitc.training.data import load_dataset

    shown = model.preprocessing.on(options.background)
    data = load_dataset(options.data, shown, _split(options.data), model.labels)
    if data.left:
        note(f"left out of {options.data}: {counted(data.left)}")
    targets = data.targets.numpy()
    unknown = targets.max(initial=-1) >= model.config.classes
    if unknown:
        raise VitcError(
            f"{options.data} has {len(data.labels)} classes, the network {model.config.classes}.",
            "Give images of the classes that it was trained on.",
        )
    data.in_memory = False  # each is looked at once or twice
    return Images(
        _Pictures(data, model.config.takes_bytes),
        min(options.images, len(data)),
        labels=None if (targets < 0).any() else targets,
        classes=data.labels,
        names=data.names,
    )


def _split(data: str) -> Split:
    folder = Path(data)
    parted = (folder / "train").is_dir() and any((folder / n).is_dir() for n in ("test", "val"))
    return "test" if data == DIGITS or parted else "all"


def few(images: Images) -> Images:
    """Only those that are compared layer by layer."""
    count = images.layer_images
    return Images(Given(images.inputs[list(range(count))]), count, names=images.names[:count])
