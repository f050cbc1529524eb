"""The artefact folder: what `vitc compile` writes and everything after it reads."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError
from vitc.runtime.images import as_images
from vitc.runtime.sealed_library import SealedLibrary
from vitc.runtime.trace import decode_trace
from vitc.targets.table import TARGETS, Target, host_features
from vitc.targets.tiles import Tile

if TYPE_CHECKING:
    from vitc.runtime.native import NativeModel

__all__ = ["FORMAT", "MANIFEST", "Artefact", "file_sha256"]

FORMAT = 2
"""Version of the manifest; a reader refuses any other."""

MANIFEST = "manifest.json"
_MAX_MANIFEST = 16 << 20
_MAX_BATCH = 64
_MAX_SIZE = 1 << 40
_REQUIRED = (
    "format",
    "vitc",
    "target",
    "batch",
    "image",
    "classes",
    "steps",
    "files",
    "workspace_bytes",
)


def _expectations(manifest: dict[str, Any]) -> dict[str, bool]:
    """What has to hold of the entries that are read without another look, in words."""
    image, steps, config = manifest["image"], manifest["steps"], manifest.get("config")
    sizes = isinstance(image, list) and len(image) == 3 and all(_size(s) for s in image)
    names = config if isinstance(config, dict) else {}
    return {
        "batch is from 1 to 64": _size(manifest["batch"]) and manifest["batch"] <= _MAX_BATCH,
        "image is channels, height and width": sizes,
        "image and classes are those of config": not sizes
        or (
            names.get("image_size", image[1]) == image[1] == names.get("image_size", image[2])
            and names.get("classes", manifest["classes"]) == manifest["classes"]
        ),
        "classes is a size": _size(manifest["classes"]),
        "workspace_bytes is a size": _size(manifest["workspace_bytes"]),
        "tiles are numbers that kernels can have": _tiles(manifest) is not None,
        "steps are named, with bytes, a layout and taps": isinstance(steps, list)
        and bool(steps)
        and all(_step(step) for step in steps),
    }


def _tiles(manifest: dict[str, Any]) -> dict[str, Tile] | None:
    try:
        return {name: Tile.from_dict(tile) for name, tile in manifest.get("tiles", {}).items()}
    except (AttributeError, TypeError, ValueError):
        return None


def _size(value: object) -> bool:
    return type(value) is int and 0 < value < _MAX_SIZE


def _step(step: object) -> bool:
    return (
        isinstance(step, dict)
        and isinstance(step.get("tap"), str)
        and isinstance(step.get("layout"), dict)
        and isinstance(step.get("taps"), list)
        and all(isinstance(tap, dict) and isinstance(tap.get("name"), str) for tap in step["taps"])
        and _size(step.get("bytes"))
    )


def _identity(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest, and so of everything that it has the SHA-256 of."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _reopen(path: str, identity: str) -> Artefact:
    """Open the folder of an artefact that was copied or pickled."""
    artefact = Artefact.open(path)
    if _identity(artefact.manifest) != identity:
        raise VitcError(
            f"{path} holds another artefact than the one that was copied or pickled.",
            "Open the folder itself, in the process that is to run it.",
        )
    return artefact


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artefact:
    """A compiled model on disk. Open one with `Artefact.open`.

    Attributes:
        path: Folder.
        manifest: Contents of manifest.json.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Artefact:
        """Open an artefact folder.

        Args:
            path: Folder that `vitc compile` wrote.
            verify: Whether to compare every file with its sha256 in the manifest.

        Raises:
            VitcError: If the manifest is missing, foreign, damaged or newer than this vitc, or a
                file was changed.
        """
        folder = Path(path)
        file = folder / MANIFEST
        hint = "Give the folder that `vitc compile --out` wrote."
        if not folder.is_dir():
            raise VitcError(f"There is no folder {folder}.", hint)
        if not file.is_file():
            raise VitcError(f"{folder} has no {MANIFEST}, so it is no vitc artefact.", hint)
        if file.stat().st_size > _MAX_MANIFEST:
            raise VitcError(f"{file} is too large to be a vitc manifest.", hint)
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise VitcError(f"{file} cannot be read: {error.strerror or error}.", hint) from error
        except (ValueError, RecursionError) as error:
            raise VitcError(
                f"{file} is not valid JSON ({error}).", "Compile the model again."
            ) from error
        if not isinstance(manifest, dict) or not all(key in manifest for key in _REQUIRED):
            raise VitcError(f"{file} is not a vitc manifest.", "Compile the model again.")
        version = manifest["format"]
        if type(version) is not int or version != FORMAT:
            raise VitcError(
                f"{file} has format {version!r}, this vitc reads {FORMAT}.",
                "Compile the model again, or install the vitc that wrote it.",
            )
        name = manifest["target"].get("name") if isinstance(manifest["target"], dict) else None
        if not isinstance(name, str) or name not in TARGETS:
            raise VitcError(
                f"{file} is for the unknown target {name!r}.",
                "`vitc targets` lists the known ones.",
            )
        wrong = [what for what, holds in _expectations(manifest).items() if not holds]
        if wrong:
            raise VitcError(
                f"{file} is not a vitc manifest; this does not hold: {'; '.join(wrong)}.",
                "Compile the model again.",
            )
        artefact = cls(folder, manifest)
        if verify:
            changed = artefact.changed_files()
            if changed:
                raise VitcError(
                    f"{folder}: missing or changed since it was made: {', '.join(changed)}.",
                    "Compile the model again, or copy the whole folder again.",
                )
        return artefact

    def changed_files(self) -> list[str]:
        """Return the files that are missing or whose sha256 is not the manifest's."""
        files = self.manifest["files"]
        if not isinstance(files, dict) or self.library.name not in files:
            return [MANIFEST]
        return [name for name, digest in files.items() if self._changed(name, digest)]

    def _changed(self, name: str, digest: object) -> bool:
        try:
            inside = Path(name).name == name and (self.path / name).is_file()
            return not inside or file_sha256(self.path / name) != digest
        except (OSError, ValueError):  # unreadable, or no name that a file can have
            return True

    @property
    def library(self) -> Path:
        """The standalone library."""
        return self.path / "libvitc_model.so"

    @property
    def runner(self) -> Path:
        """The static runner for the target."""
        return self.path / "vitc-run"

    @property
    def onnx(self) -> Path:
        """The ONNX file that was compiled."""
        return self.path / "model.onnx"

    @property
    def target(self) -> Target:
        """The target it was compiled for."""
        return TARGETS[self.manifest["target"]["name"]]

    @property
    def tiles(self) -> dict[str, Tile]:
        """Register tiles of the kernels that do not have the target's, by what they do."""
        return _tiles(self.manifest) or {}

    @property
    def batch(self) -> int:
        """Images of one run."""
        return int(self.manifest["batch"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.manifest["image"]
        return channels, height, width

    @property
    def classes(self) -> int:
        """Logits of an image."""
        return int(self.manifest["classes"])

    def missing_features(self) -> list[str]:
        """What the library needs and this machine lacks: CPU features, or the machine itself."""
        if platform.machine() not in self.target.machine:
            return [f"{self.target.machine[0]} processor"]
        return sorted(set(self.target.features) - host_features())

    def check_images(self, images: object, name: str = "The input") -> npt.NDArray[np.float32]:
        """Return images as fp32 in C order; see `vitc.runtime.images.as_images`."""
        return as_images(images, self.image_shape, name)

    @cached_property
    def sealed(self) -> SealedLibrary:
        """This process's own copy of the library, made when it is first asked for.

        Raises:
            VitcError: If the library is no longer the one that the manifest describes.
        """
        return SealedLibrary(self.library, str(self.manifest["files"].get(self.library.name)))

    def load(self, threads: int = 1, *, pin: bool = False) -> NativeModel:
        """Load the library into this process.

        Args:
            threads: Threads of one run, 1 to 64, but no more than there are processors.
            pin: Whether to bind each thread but the caller's to a processor of its own.

        Raises:
            VitcError: If this machine cannot run it; what is missing is named.
        """
        from vitc.runtime.native import NativeModel

        return NativeModel(self, threads, pin=pin)

    @cached_property
    def _single(self) -> NativeModel:
        # Its own artefact does not know the model: a cycle would keep the copy until it is found.
        own = Artefact(self.path, self.manifest)
        own.__dict__["sealed"] = self.sealed
        return own.load()

    def __call__(self, images: object) -> npt.NDArray[np.float32]:
        """Run images in this process on one thread.

        Args:
            images: [any number, channels, height, width], float, normalised: an array, a tensor or
                nested lists.

        Returns:
            Logits, fp32 [number, classes].

        Raises:
            VitcError: If they are no such images, or this machine cannot run the library.
        """
        return self._single(images)

    def __reduce__(self) -> tuple[Callable[[str, str], Artefact], tuple[str, str]]:
        return _reopen, (str(self.path.absolute()), _identity(self.manifest))

    def decode_trace(self, data: bytes, images: int) -> dict[str, npt.NDArray[np.generic]]:
        """Decode what `vitc-run --trace` wrote: tap name to array [images, ...]."""
        return decode_trace(self.manifest["steps"], data, images)
