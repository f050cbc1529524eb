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
                f"This machine cannot run {artefact.path}: it lacks {', '.join(missing)}.",
                "Run it with `--device qemu`, or compile with `--target native`.",
            )
        try:
            self._library = ctypes.CDLL(str(artefact.library.resolve()))
        except OSError as error:
            raise VitcError(
                f"{artefact.library} cannot be loaded: {error}.", "Compile the model again."
            ) from error
        self._library.vitc_status_text.restype = ctypes.c_char_p
        self._library.vitc_destroy.restype = None
        self._check(self._library.vitc_create(ctypes.c_int32(threads), ctypes.byref(self._handle)))

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
