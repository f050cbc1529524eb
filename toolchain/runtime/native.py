"""A compiled model loaded into this process, through the C interface of vitc_model.h."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError
from vitc.runtime.arrays import Bound, bind_inputs
from vitc.runtime.manifest import EntryFacts
from vitc.runtime.port import DTYPES, MOST_AXES, Port
from vitc.runtime.sealed_library import SealedLibrary
from vitc.runtime.trace import decode_trace

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


_ABI_VERSION = 2
_FUNCTIONS = (
    "vitc_create_with",
    "vitc_destroy",
    "vitc_get_entry",
    "vitc_get_info",
    "vitc_get_port",
    "vitc_run_ports",
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


class _Entry(ctypes.Structure):
    """`vitc_entry` of vitc_model.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("ports", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("steps", ctypes.c_int32),
    )


class _Port(ctypes.Structure):
    """`vitc_port` of vitc_model.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int32),
        ("per_image", ctypes.c_int32),
        ("limit", ctypes.c_int32),
        ("axes", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MOST_AXES),
    )


class _Array(ctypes.Structure):
    """`vitc_array` of vitc_model.h."""

    _fields_ = (
        ("port", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
    )


class _Call(ctypes.Structure):
    """`vitc_call` of vitc_model.h."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("entry", ctypes.c_char_p),
        ("arrays", ctypes.POINTER(_Array)),
        ("count", ctypes.c_int32),
        ("n", ctypes.c_int64),
        ("observer", _OBSERVER),
        ("user", ctypes.c_void_p),
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
                artefact.where_else(),
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
        manifest = artefact.manifest
        if info.abi_version != _ABI_VERSION:
            raise VitcError(
                f"{artefact.library} has interface version {info.abi_version}, this vitc knows "
                f"{_ABI_VERSION}.",
                "Compile the model again.",
            )
        differing = []
        if (info.batch, info.entries) != (manifest.batch, len(manifest.entries)):
            wanted = f"batch {manifest.batch}, {len(manifest.entries)} entries"
            differing = [f"batch {info.batch}, {info.entries} entries (not {wanted})"]
        for number, entry in enumerate(manifest.entries if not differing else ()):
            differing += [
                f"{one} (not {other})"
                for one, other in zip_longest(self._described(number), _described(entry))
                if one != other
            ]
        if differing:
            raise VitcError(
                f"{artefact.library} is not the library of its manifest: {', '.join(differing)}.",
                "Compile the model again, or copy the whole folder again.",
            )

    def _described(self, number: int) -> list[str]:
        """An entry of the library and its ports, in the words of `_described`."""
        entry, port = _Entry(), _Port()
        self._check(self._library.vitc_get_entry(number, ctypes.byref(entry)))
        said = [f"{entry.name.decode()} with {entry.inputs} inputs and {entry.steps} steps"]
        for i in range(entry.ports):
            self._check(self._library.vitc_get_port(number, i, ctypes.byref(port)))
            try:
                said.append(str(_read(port)))
            except (ValueError, IndexError) as error:
                said.append(f"port {i}, which is none: {error}")
        return said

    def _check(self, status: int) -> None:
        if status:
            text = self._library.vitc_status_text(status).decode()
            raise VitcError(text, f"{self.artefact.library}, {self.threads} threads.")

    @property
    def functions(self) -> ctypes.CDLL:
        """The library, for what is in its headers and not here."""
        return self._library

    @property
    def handle(self) -> ctypes.c_void_p:
        """What its functions take for the model.

        Raises:
            VitcError: If the model was closed.
        """
        if not self._handle:
            raise VitcError("The model was closed.", "Load the artefact again.")
        return self._handle

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
        """Run images through a network of one input and one output.

        Args:
            images: [any number, channels, height, width], float, normalised, or bytes with an
                integer embedding: an array, a tensor or nested lists.

        Returns:
            Logits, fp32 [number, classes].

        Raises:
            VitcError: If they are no such images, the network has other ports, or it was closed.
        """
        entry = self.artefact.entry
        if len(entry.outputs) != 1:
            raise VitcError(
                f"{self.artefact.path} has several outputs: "
                f"{', '.join(port.name for port in entry.outputs)}.",
                "Call `run`, which gives each by its name.",
            )
        outputs = self._run(entry, bind_inputs(images, entry.inputs), None)
        result: npt.NDArray[np.float32] = outputs[entry.outputs[0].name]
        return result

    def run(self, inputs: object, entry: str | None = None) -> dict[str, npt.NDArray[Any]]:
        """Run an entry.

        Args:
            inputs: Arrays by the names of the input ports, or for an entry of one input its array.
                Those that each image has are of one number of images, which is any.
            entry: Its name; None for the one that the artefact was opened at, which is the first.

        Returns:
            Arrays by the names of the output ports.

        Raises:
            VitcError: If there is no such entry, an input does not fit, or the model was closed.
        """
        chosen = self._entry(entry)
        return self._run(chosen, bind_inputs(inputs, chosen.inputs), None)

    def trace(self, inputs: object, entry: str | None = None) -> dict[str, npt.NDArray[np.generic]]:
        """Run an entry and return every tap: name to array [number, ...], bits as uint8."""
        chosen = self._entry(entry)
        bound = bind_inputs(inputs, chosen.inputs)
        chunks: list[bytes] = []
        batch = self.artefact.manifest.batch
        state = {"start": 0, "calls": 0}
        calls = sum(len(step.writes) for step in chosen.steps) * batch

        def observe(_user: int, image: int, _step: int, _name: bytes, data: int, size: int) -> None:
            if state["start"] + image < bound.images:
                chunks.append(ctypes.string_at(data, size))
            state["calls"] += 1
            if state["calls"] % calls == 0:
                state["start"] += batch

        self._run(chosen, bound, _OBSERVER(observe))
        return decode_trace(chosen, b"".join(chunks), bound.images, bound.n)

    def _entry(self, name: str | None) -> EntryFacts:
        return (self.artefact if name is None else self.artefact.at(name)).entry

    def _run(self, entry: EntryFacts, bound: Bound, observer: Any) -> dict[str, npt.NDArray[Any]]:
        batch = self.artefact.manifest.batch
        total = -(-bound.images // batch) * batch
        outputs = {p.name: np.empty(p.sizes(total, bound.n), p.dtype) for p in entry.outputs}
        for start in range(0, total, batch):
            arrays: dict[str, npt.NDArray[Any]] = bound.part(entry.inputs, start, batch)
            for port in entry.outputs:
                whole = outputs[port.name]
                arrays[port.name] = whole[start : start + batch] if port.per_image else whole
            self._call(entry.name, arrays, bound.n, observer)
        return {
            port.name: outputs[port.name][: bound.images] if port.per_image else outputs[port.name]
            for port in entry.outputs
        }

    def _call(
        self, entry: str, arrays: Mapping[str, npt.NDArray[Any]], n: int, observer: Any
    ) -> None:
        made = (_Array * len(arrays))(
            *(_Array(name.encode(), a.ctypes.data, a.nbytes) for name, a in arrays.items())
        )
        call = _Call(
            ctypes.sizeof(_Call), entry.encode(), made, len(made), n, observer or _OBSERVER(), None
        )
        self._check(self._library.vitc_run_ports(self.handle, ctypes.byref(call)))


def _described(entry: EntryFacts) -> list[str]:
    """An entry of the manifest and its ports, in words."""
    said = [f"{entry.name} with {len(entry.inputs)} inputs and {len(entry.steps)} steps"]
    return said + [str(port) for port in entry.ports]


def _read(port: _Port) -> Port:
    """A port of the library.

    Raises:
        ValueError: If it is none.
        IndexError: If its type has no name.
    """
    shape = tuple(None if size < 0 else int(size) for size in port.shape[: port.axes])
    limit = int(port.limit) or None
    return Port((port.name or b"").decode(), DTYPES[port.dtype], shape, bool(port.per_image), limit)


def _destroy(library: SealedLibrary, handle: ctypes.c_void_p) -> None:
    library.functions.vitc_destroy(handle)


def _load(artefact: Artefact, threads: int, pin: bool) -> NativeModel:
    return NativeModel(artefact, threads, pin=pin)
