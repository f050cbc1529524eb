"""A compiled model loaded into this process, through the C interface of vitc_model.h."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.runtime.artefact import Artefact
    from vitc.runtime.sealed_library import SealedLibrary

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


_ABI_VERSION = 2
_FUNCTIONS = (
    "vitc_create_with",
    "vitc_destroy",
    "vitc_get_info",
    "vitc_run",
    "vitc_run_observed",
    "vitc_status_text",
    "vitc_threads",
)
_PIN_THREADS = 1
_MAX_THREADS = 64


class _Options(ctypes.Structure):
    """`vitc_options` of vitc_model.h."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("threads", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    )


class _Info(ctypes.Structure):
    """`vitc_info` of vitc_model.h."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        ("batch", ctypes.c_int32),
        ("entries", ctypes.c_int32),
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

    The library is a private copy of the one that was opened: what happens to the folder meanwhile
    does not matter. A child of fork may go on with the model; it starts threads of its own. Copying
    or unpickling a model opens the artefact's folder again.

    Args:
        artefact: An opened artefact.
        threads: Threads of one run, 1 to 64; never more are made than this process may use
            processors.
        pin: Whether to bind each thread but the caller's to a processor of its own.

    Attributes:
        artefact: The artefact.
        threads: Threads that there are.

    Raises:
        VitcError: If this machine cannot run the library, or the library cannot be loaded.
    """

    def __init__(self, artefact: Artefact, threads: int = 1, *, pin: bool = False) -> None:
        self._handle = ctypes.c_void_p()
        self._asked = (threads, pin)
        self.artefact = artefact
        self.threads = threads
        if type(threads) is not int or not 1 <= threads <= _MAX_THREADS:
            raise VitcError(
                f"threads is {threads!r}, wanted a number from 1 to {_MAX_THREADS}.",
                "Ask for as many as there are processors, or fewer.",
            )
        missing = artefact.missing_features()
        if missing:
            raise VitcError(
                f"This machine cannot run {artefact.path}; missing: {', '.join(missing)}.",
                "Run it with `--device qemu`, or compile with `--target native`.",
            )
        self._library = artefact.sealed.functions
        absent = [name for name in _FUNCTIONS if not hasattr(self._library, name)]
        if absent:
            raise VitcError(
                f"{artefact.library} has no {', '.join(absent)}, so it was not made by this "
                "version of vitc.",
                "Compile the model again.",
            )
        self._library.vitc_status_text.restype = ctypes.c_char_p
        self._library.vitc_get_info.restype = None
        self._library.vitc_destroy.restype = None
        self._check_info()
        options = _Options(ctypes.sizeof(_Options), threads, _PIN_THREADS if pin else 0)
        self._check(
            self._library.vitc_create_with(ctypes.byref(options), ctypes.byref(self._handle))
        )
        # Not __del__: the collector of cycles may call it when the library is unmapped already,
        # which this call holds. Not at the end of the process, when a thread may still run it.
        self._destroy = weakref.finalize(self, _destroy, artefact.sealed, self._handle)
        self._destroy.atexit = False
        self.threads = int(self._library.vitc_threads(self._handle))

    def __reduce__(self) -> tuple[Callable[..., NativeModel], tuple[Artefact, int, bool]]:
        return _load, (self.artefact, *self._asked)

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
            self._handle = ctypes.c_void_p()
            self._destroy()

    def __enter__(self) -> NativeModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, images: object) -> npt.NDArray[np.float32]:
        """Run images.

        Args:
            images: [any number, channels, height, width], float, normalised: an array, a tensor or
                nested lists.

        Returns:
            Logits, fp32 [number, classes].

        Raises:
            VitcError: If they are no such images, or the model was closed.
        """
        return self._run(self.artefact.check_images(images), None)

    def trace(self, images: object) -> dict[str, npt.NDArray[np.generic]]:
        """Run images and return every tap: name to array [number, ...], bits as uint8."""
        checked = self.artefact.check_images(images)
        chunks: list[bytes] = []
        batch = self.artefact.batch
        count = len(checked)

        def observe(_user: int, image: int, _step: int, _name: bytes, data: int, size: int) -> None:
            if observe_state["start"] + image < count:
                chunks.append(ctypes.string_at(data, size))
            if _step == last and image == batch - 1:
                observe_state["start"] += batch

        observe_state = {"start": 0}
        last = len(self.artefact.manifest["steps"]) - 1
        self._run(checked, _OBSERVER(observe))
        return self.artefact.decode_trace(b"".join(chunks), count)

    def _run(self, images: npt.NDArray[np.float32], observer: Any) -> npt.NDArray[np.float32]:
        if not self._handle:
            raise VitcError("The model was closed.", "Load the artefact again.")
        batch = self.artefact.batch
        padding = -len(images) % batch
        padded = images
        if padding:
            padded = np.concatenate([images, np.repeat(images[-1:], padding, axis=0)])
        logits = np.empty((len(padded), self.artefact.classes), np.float32)
        for start in range(0, len(padded), batch):
            source = padded[start : start + batch].ctypes.data_as(ctypes.c_void_p)
            target = logits[start : start + batch].ctypes.data_as(ctypes.c_void_p)
            if observer is None:
                self._check(self._library.vitc_run(self._handle, source, target))
            else:
                self._check(
                    self._library.vitc_run_observed(self._handle, source, target, observer, None)
                )
        return logits[: len(images)]


def _destroy(library: SealedLibrary, handle: ctypes.c_void_p) -> None:
    library.functions.vitc_destroy(handle)


def _load(artefact: Artefact, threads: int, pin: bool) -> NativeModel:
    return NativeModel(artefact, threads, pin=pin)
