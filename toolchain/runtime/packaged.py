"""What a wheel of `vitc package` has for its ``__init__.py``: a compiled classifier, and NumPy.

    import cats
    cats.predict("x.jpg")[0].label              # a path needs Pillow; pixels uint8 [H, W, 3] do not
    cats.Model(threads=4).logits(images)        # float32 [B, 3, H, W], normalised, to [B, classes]

In the wheel this file stands beside the library, and what it imports of vitc stands beside it too.
"""

from __future__ import annotations

import ctypes
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError

__all__ = ["Model", "Ranked", "VitcError", "facts", "labels", "predict"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ranked:
    """One class of a picture: its number, its name, and how probable it is."""

    index: int
    label: str
    probability: float


class _Info(ctypes.Structure):
    """`vitc_info` of vitc_model.h."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        *((name, ctypes.c_int32) for name in ("batch", "entries", "channels", "height", "width")),
        *((name, ctypes.c_int32) for name in ("classes", "steps")),
        ("workspace_bytes", ctypes.c_size_t),
        ("target", ctypes.c_char_p),
    )


def facts() -> dict[str, Any]:
    """What the artefact says of itself: labels, preprocessing, target, versions."""
    found: dict[str, Any] = json.loads((_HERE / "model.json").read_text(encoding="utf-8"))
    return found


def labels() -> tuple[str, ...]:
    """Names of the classes; numbers where it has none."""
    return tuple(facts()["labels"])


class Model:
    """The network, for one thread at a time.

    Args:
        threads: Of one run, 1 to 64; no more than there are processors.

    Raises:
        VitcError: If this processor lacks a feature that the library needs; it is named.
    """

    def __init__(self, threads: int = 1) -> None:
        self._library = ctypes.CDLL(str(_HERE / "libvitc_model.so"))
        self._library.vitc_status_text.restype = ctypes.c_char_p
        self._library.vitc_destroy.restype = None
        self._handle = ctypes.c_void_p()
        self._dtype = np.dtype(facts()["images"])
        self.info = _Info()
        self._library.vitc_get_info(ctypes.byref(self.info))
        self._check(self._library.vitc_create(ctypes.c_int32(threads), ctypes.byref(self._handle)))

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.vitc_destroy(self._handle)

    def _check(self, status: int) -> None:
        if status:
            raise VitcError(self._library.vitc_status_text(status).decode())

    def preprocess(self, picture: object) -> npt.NDArray[Any]:
        """What the network takes of a picture: resized, cropped, normalised.

        Args:
            picture: Upright pixels, uint8 [H, W, 3]; or with Pillow a path, or an image of Pillow.

        Returns:
            float32 [3, H, W]; uint8, not normalised, with an integer embedding.

        Raises:
            VitcError: If it is no picture, or Pillow is not installed and it is no array.
        """
        pixels = picture if isinstance(picture, np.ndarray) else _pixels(picture)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise VitcError(f"A picture is uint8 [H, W, 3], found {pixels.dtype} {pixels.shape}.")
        dense = np.ascontiguousarray(pixels)
        made = np.zeros((3, self.info.height, self.info.width), self._dtype)
        height, width, _ = dense.shape
        self._check(
            self._of_type("vitc_preprocess")(
                dense.ctypes.data_as(ctypes.c_void_p),
                ctypes.c_int32(height),
                ctypes.c_int32(width),
                ctypes.c_size_t(0),
                made.ctypes.data_as(ctypes.c_void_p),
            )
        )
        return made

    def _of_type(self, name: str) -> Any:
        """The function of the library for the type of its images."""
        return getattr(self._library, name if self._dtype == np.float32 else f"{name}_u8")

    def logits(self, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Run images, float32 [any number, 3, H, W], normalised, to logits [number, classes].

        With an integer embedding they are uint8, not normalised.

        Raises:
            VitcError: If they are of another shape, or no bytes where those are wanted.
        """
        given = np.asarray(images)
        if self._dtype == np.uint8 != given.dtype:
            raise VitcError(f"Images are uint8, from 0 to 255, found {given.dtype}.")
        given = given.astype(self._dtype)
        wanted = (self.info.channels, self.info.height, self.info.width)
        if given.ndim != 4 or given.shape[1:] != wanted:
            raise VitcError(f"Images are [number, {wanted}], found {given.shape}.")
        count, batch = len(given), self.info.batch
        found = np.zeros((-(-count // batch) * batch, self.info.classes), np.float32)
        block = np.zeros((batch, *wanted), self._dtype)
        for start in range(0, count, batch):
            part = given[start : start + batch]
            block[: len(part)] = part
            rows = found[start : start + batch]
            self._check(
                self._of_type("vitc_run")(
                    self._handle,
                    block.ctypes.data_as(ctypes.c_void_p),
                    rows.ctypes.data_as(ctypes.c_void_p),
                )
            )
        return found[:count]

    def predict(self, picture: object, top: int = 5) -> list[Ranked]:
        """The most probable classes of a picture, best first; see `preprocess`."""
        logits = self.logits(self.preprocess(picture)[None])[0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        names = labels()
        return [
            Ranked(int(i), names[i], float(weights[i] / weights.sum()))
            for i in np.argsort(-logits, kind="stable")[:top]
        ]


def _pixels(picture: object) -> npt.NDArray[np.uint8]:
    try:
        from PIL import Image

        from vitc.models.picture import read_picture, upright_rgb
    except ModuleNotFoundError as error:
        raise VitcError(
            "Pictures of files need Pillow, which is not installed.",
            "python -m pip install pillow; or give pixels, uint8 [H, W, 3].",
        ) from error
    red, green, blue = facts()["background"]
    if isinstance(picture, str | os.PathLike):
        return np.asarray(read_picture(picture, (red, green, blue)))
    if isinstance(picture, Image.Image):
        return np.asarray(upright_rgb(picture, (red, green, blue)))
    raise VitcError(f"A {type(picture).__name__} is no picture.")


def predict(picture: object, top: int = 5) -> list[Ranked]:
    """The most probable classes of one picture, by a model of one thread; see `Model`."""
    return Model().predict(picture, top)
