"""What a check is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vitc.errors import VitcError
from vitc.models.picture import Colour
from vitc.paths import settle_paths

__all__ = ["DIGITS", "CheckOptions"]

DIGITS: Final = "digits"


@dataclass(frozen=True)
class CheckOptions:
    """How to check.

    Attributes:
        data: Labelled images: ``digits``, or a folder of class folders; None for probe images. Of
            digits, and of a folder with a test part, only the test images are taken.
        background: Colour below their transparent pixels, if not what the network was trained with.
        device: Where an artefact runs, as behind ``--device``.
        images: How many images are compared layer by layer.
        seed: Of the probe images.
        threads: Threads of the artefact.
        allow_external_data: Whether an ONNX file keeps data in other files of its folder.
        rebuild: Whether an artefact's ONNX file is compiled again, to compare every byte.
        ema: Whether the candidate has the averaged weights of the reference.
        entry: Name of the entry of an artefact that is compared with the reference; None for all
            that were compiled from one file.
    """

    data: str | None = None
    background: Colour | None = None
    device: str = "local"
    images: int = 4
    seed: int = 0
    threads: int = 1
    allow_external_data: bool = False
    rebuild: bool = True
    ema: bool = False
    entry: str | None = None

    def __post_init__(self) -> None:
        settle_paths(self)
        if self.images < 1 or self.threads < 1:
            raise VitcError(
                f"A check needs at least one image and one thread, found {self.images} and "
                f"{self.threads}."
            )
        if self.background is not None and self.data in (None, DIGITS):
            raise VitcError(
                "A background is for pictures, and neither probe images nor the digits are any.",
                "Name pictures with --data, or leave --background away.",
            )
