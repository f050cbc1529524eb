"""A compiled model loaded into this process, through the C interface of vitc_model.h."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact

__all__ = ["NativeModel"]

_OBSERVER = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.c_int32,
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
)


_ABI_VERSION = 1
_FUNCTIONS = (
    "vitc_create",
    "vitc_destroy",
    "vitc_get_info",
    "vitc_run",
    "vitc_run_observed",
    "vitc_status_text",
)


class _Info(ctypes.Structure):
    """`vitc_info` of vitc_model.h."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        ("batch", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("classes", ctypes.c_int32),
        ("steps", ctypes.c_int32),
        ("workspace_bytes", ctypes.c_size_t),
        ("target", ctypes.c_char_p),
    )


class NativeModel:
    """A handle of the library: workspace and threads. Not for two Python threads at once.

    Args:
        artefact: An opened artefact.
        threads: Threads of one run, 1 to 64.

    Raises:
        VitcError: If this machine cannot run the library, or the library cannot be loaded.
    """

    def __init__(self, artefact: Artefact, threads: int = 1) -> None:
        self._handle = ctypes.c_void_p()
        self.artefact = artefact
        self.threads = threads
        missing = artefact.missing_features()
        if missing:
            raise VitcError(
                f"This machine cannot run {artefact.path}; missing: {', '.join(missing)}.",
                "Run it with `--device qemu`, or compile with `--target native`.",
            )
        try:
            self._library = ctypes.CDLL(str(artefact.library.resolve()))
        except OSError as error:
            raise VitcError(
                f"{artefact.library} cannot be loaded: {error}.", "Compile the model again."
            ) from error
        absent = [name for name in _FUNCTIONS if not hasattr(self._library, name)]
        if absent:
            raise VitcError(
                f"{artefact.library} has no {', '.join(absent)}, so it was not made by vitc.",
                "Compile the model again.",
            )
        self._library.vitc_status_text.restype = ctypes.c_char_p
        self._library.vitc_get_info.restype = None
        self._library.vitc_destroy.restype = None
        self._check_info()
        self._check(self._library.vitc_create(ctypes.c_int32(threads), ctypes.byref(self._handle)))

    def _check_info(self) -> None:
        """Compare the library with the manifest, whose sizes say how much memory it may touch."""
        info = _Info()
        self._library.vitc_get_info(ctypes.byref(info))
        artefact = self.artefact
        own = (info.batch, info.channels, info.height, info.width, info.classes, info.steps)
        steps = len(artefact.manifest["steps"])
        stated = (artefact.batch, *artefact.image_shape, artefact.classes, steps)
        names = ("batch", "channels", "height", "width", "classes", "steps")
        if info.abi_version != _ABI_VERSION:
            raise VitcError(
                f"{artefact.library} has interface version {info.abi_version}, this vitc knows "
                f"{_ABI_VERSION}.",
                "Compile the model again.",
            )
        differing = [
            f"{name} {found} (not {wanted})"
            for name, found, wanted in zip(names, own, stated, strict=True)
            if found != wanted
        ]
        if differing:
            raise VitcError(
                f"{artefact.library} is not the library of its manifest: {', '.join(differing)}.",
                "Compile the model again, or copy the whole folder again.",
            )

    def _check(self, status: int) -> None:
        if status:
            text = self._library.vitc_status_text(status).decode()
            raise VitcError(text, f"{self.artefact.library}, {self.threads} threads.")

    def close(self) -> None:
        """Stop the threads and free the workspace."""
        if self._handle:
            self._library.vitc_destroy(self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> NativeModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_library", None) is not None:
            self.close()

    def __call__(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run images.

        Args:
            images: [any number, channels, height, width], float, normalised.

        Returns:
            Logits, fp32 [number, classes].
        """
        return self._run(images, None)

    def trace(self, images: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.generic]]:
        """Run images and return every tap: name to array [number, ...], bits as uint8."""
        chunks: list[bytes] = []
        batch = self.artefact.batch
        count = len(images)

        def observe(_user: int, image: int, _step: int, _name: bytes, data: int, size: int) -> None:
            if observe_state["start"] + image < count:
                chunks.append(ctypes.string_at(data, size))
            if _step == last and image == batch - 1:
                observe_state["start"] += batch

        observe_state = {"start": 0}
        last = len(self.artefact.manifest["steps"]) - 1
        self._run(images, _OBSERVER(observe))
        return self.artefact.decode_trace(b"".join(chunks), count)

    def _run(self, images: npt.NDArray[Any], observer: Any) -> npt.NDArray[np.float32]:
        checked = self.artefact.check_images(images)
        batch = self.artefact.batch
        padding = -len(checked) % batch
        if padding:
            checked = np.concatenate([checked, np.repeat(checked[-1:], padding, axis=0)])
        logits = np.empty((len(checked), self.artefact.classes), np.float32)
        for start in range(0, len(checked), batch):
            source = checked[start : start + batch].ctypes.data_as(ctypes.c_void_p)
            target = logits[start : start + batch].ctypes.data_as(ctypes.c_void_p)
            if observer is None:
                self._check(self._library.vitc_run(self._handle, source, target))
            else:
                self._check(
                    self._library.vitc_run_observed(self._handle, source, target, observer, None)
                )
        return logits[: len(images)]
