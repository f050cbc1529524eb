"""The artefact folder: what `vitc compile` writes and everything after it reads."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vitc.errors import VitcError
from vitc.runtime.manifest import FORMAT, EntryFacts, Manifest
from vitc.runtime.native import NativeModel
from vitc.runtime.sealed_library import SealedLibrary
from vitc.runtime.trace import decode_trace
from vitc.targets.table import TARGETS, Target, host_features
from vitc.targets.tiles import Tile

if TYPE_CHECKING:
    from vitc.models.preprocessing import Picture, Preprocessing

__all__ = ["FORMAT", "MANIFEST", "Artefact", "file_sha256", "own_files"]

MANIFEST = "manifest.json"
_MAX_MANIFEST = 16 << 20


def _identity(manifest: Manifest) -> str:
    """SHA-256 of a manifest, and so of everything that it has the SHA-256 of."""
    return hashlib.sha256(json.dumps(manifest.to_dict(), sort_keys=True).encode()).hexdigest()


def _reopen(path: str, identity: str, chosen: str | None) -> Artefact:
    """Open the folder of an artefact that was copied or pickled."""
    artefact = replace(Artefact.open(path), chosen=chosen)
    if _identity(artefact.manifest) != identity:
        raise VitcError(
            f"{path} holds another artefact than the one that was copied or pickled.",
            "Open the folder itself, in the process that is to run it.",
        )
    return artefact


def own_files(folder: Path) -> set[str]:
    """Names of the files of an artefact, of any version, damaged or not."""
    names = {MANIFEST, "libvitc_model.so", "model.onnx", "vitc-run", "vitc_model.h"}
    names |= {"vitc_search.h", "vitc_detect.h"}
    names |= {"libvitc_model.a", "vitc_model.hpp", "vitc_model.pc", "vitcConfig.cmake"}
    for test in ("self_test.*", "*.self_test.*"):
        names |= {path.name for path in folder.glob(test)}
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        return names | set(map(str, files))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return names


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
        chosen: Name of the entry that is run where none is named; None for the first.
    """

    path: Path
    manifest: Manifest
    chosen: str | None = None

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
            values = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise VitcError(f"{file} cannot be read: {error.strerror or error}.", hint) from error
        except (ValueError, RecursionError) as error:
            raise VitcError(
                f"{file} is not valid JSON ({error}).", "Compile the model again."
            ) from error
        if not isinstance(values, dict) or "format" not in values:
            raise VitcError(f"{file} is not a vitc manifest.", "Compile the model again.")
        version = values["format"]
        if type(version) is not int or version != FORMAT:
            raise VitcError(
                f"{file} has format {version!r}, this vitc reads {FORMAT}.",
                "Compile the model again, or install the vitc that wrote it.",
            )
        try:
            manifest = Manifest.from_dict(values)
        except ValueError as error:
            raise VitcError(
                f"{file} is not a vitc manifest; this does not hold: {error}.",
                "Compile the model again; `vitc targets` lists the known targets.",
            ) from error
        artefact = cls(folder, manifest)
        if verify:
            changed = artefact.changed_files()
            if changed:
                raise VitcError(
                    f"{folder}: missing or changed since it was made: {', '.join(changed)}.",
                    "Compile the model again, or copy the whole folder again.",
                )
        return artefact

    @property
    def entry(self) -> EntryFacts:
        """The entry that is run where none is named."""
        found = self.manifest.entry(self.chosen)
        if found is None:
            raise self._no_entry(self.chosen)
        return found

    def at(self, entry: str | None) -> Artefact:
        """The same artefact, whose runs are those of an entry; None for the first.

        Raises:
            VitcError: If there is no such entry.
        """
        if self.manifest.entry(entry) is None:
            raise self._no_entry(entry)
        other = replace(self, chosen=entry)
        if "sealed" in self.__dict__:
            other.__dict__["sealed"] = self.sealed
        return other

    def _no_entry(self, name: str | None) -> VitcError:
        known = ", ".join(entry.name for entry in self.manifest.entries)
        return VitcError(f"There is no entry {name!r}; there is {known}.", "Name one of them.")

    def changed_files(self) -> list[str]:
        """Return the files that are missing or whose sha256 is not the manifest's."""
        files = self.manifest.digests
        if self.library.name not in files:
            return [MANIFEST]
        return [name for name, digest in files.items() if self._changed(name, digest)]

    def _changed(self, name: str, digest: object) -> bool:
        try:
            inside = Path(name).name == name and (self.path / name).is_file()
            return not inside or file_sha256(self.path / name) != digest
        except (OSError, ValueError):  # unreadable, or no name that a file can have
            return True

    def __repr__(self) -> str:
        facts = self.manifest
        ports = "; ".join(map(str, facts.entries[0].ports))
        return f"Artefact({str(self.path)!r}, {facts.target.name}, batch {facts.batch}: {ports})"

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become inputs.

        Raises:
            VitcError: If the network does not say.
        """
        from vitc.models.preprocessing import Preprocessing

        if not self.manifest.preprocessing:
            raise VitcError(
                f"{self.path} does not say how pictures become its input.",
                "Give it arrays, float32 and normalised.",
            )
        return Preprocessing.from_dict(self.manifest.preprocessing)

    def preprocess(self, pictures: Picture | Sequence[Picture]) -> npt.NDArray[Any]:
        """Make of pictures what the network takes: upright RGB, resized, cropped, normalised.

        With an integer embedding it takes bytes, which are not normalised.

        Args:
            pictures: A path, an image of Pillow, or pixels uint8 [H, W, 3] or [H, W]; or several.

        Returns:
            float32 [number, 3, height, width], or uint8 of bytes: of one picture too, since that is
            what is run.

        Raises:
            VitcError: If one is no picture or is refused (docs/pictures.md), there is none, or the
                network does not say how.
        """
        from vitc.models.preprocessing import is_picture

        several: Any = [pictures] if is_picture(pictures) else pictures
        given = list(several)
        if not given:
            raise VitcError("There is no picture to preprocess.", "Give one, or several.")
        shown = self.preprocessing
        apply = shown.crop_bytes if self.entry.inputs[0].of_pixels else shown.apply
        return np.stack([apply(picture) for picture in given])

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
        """The ONNX file that the entry was compiled from: one of its name, or that of all."""
        own = f"{self.entry.name}.onnx"
        return self.path / (own if own in self.manifest.digests else "model.onnx")

    @property
    def source(self) -> Path | dict[str, Path]:
        """What it was compiled from: a file, or the file of each entry."""
        whole = self.path / "model.onnx"
        if whole.name in self.manifest.digests or not self.manifest.digests:
            return whole
        return {entry.name: self.at(entry.name).onnx for entry in self.manifest.entries}

    @property
    def target(self) -> Target:
        """The target it was compiled for."""
        return TARGETS[self.manifest.target.name]

    @property
    def tiles(self) -> Mapping[str, Tile]:
        """Register tiles of the kernels that do not have the target's, by what they do."""
        return self.manifest.tiles

    @property
    def batch(self) -> int:
        """Images of one run."""
        return self.manifest.batch

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image.

        Raises:
            VitcError: If the artefact takes other inputs than one image.
        """
        return self._classifier[0]

    @property
    def classes(self) -> int:
        """Logits of an image.

        Raises:
            VitcError: If the artefact takes other inputs than one image, or gives other outputs.
        """
        return self._classifier[1]

    @property
    def _classifier(self) -> tuple[tuple[int, int, int], int]:
        found = self.entry.classifier
        if found is None:
            ports = self.entry.ports
            raise VitcError(
                f"{self.path} is no classifier of one image; its ports: "
                f"{'; '.join(map(str, ports))}.",
                "Give each input by its name.",
            )
        return found

    def missing_features(self) -> list[str]:
        """What the library needs and this machine lacks: CPU features, or the machine itself."""
        if platform.machine() not in self.target.machine:
            return [f"{self.target.machine[0]} processor"]
        return sorted(set(self.target.features) - host_features())

    def where_else(self) -> str:
        """What to do where this machine does not run the artefact."""
        beyond, native = self.target.not_emulated, "compile with `--target native`"
        if beyond:
            return f"Run it on a machine that has {', '.join(beyond)}, or {native}."
        return f"Run it with `--device qemu`, or {native}."

    @cached_property
    def sealed(self) -> SealedLibrary:
        """This process's own copy of the library, made when it is first asked for.

        Raises:
            VitcError: If the library is no longer the one that the manifest describes.
        """
        return SealedLibrary(self.library, str(self.manifest.digests.get(self.library.name)))

    def load(self, threads: int = 1, *, pin: bool = False) -> NativeModel:
        """Load the library into this process.

        Args:
            threads: Threads of one run, 1 to 64, but no more than there are processors.
            pin: Whether to bind each thread but the caller's to a processor of its own.

        Raises:
            VitcError: If this machine cannot run it; what is missing is named.
        """
        return NativeModel(self, threads, pin=pin)

    @cached_property
    def _single(self) -> NativeModel:
        # Its own artefact does not know the model: a cycle would keep the copy until it is found.
        own = Artefact(self.path, self.manifest, self.chosen)
        own.__dict__["sealed"] = self.sealed
        return own.load()

    def __call__(self, images: object) -> npt.NDArray[np.float32]:
        """Run images in this process on one thread.

        Args:
            images: [any number, channels, height, width], float, normalised, or bytes with an
                integer embedding: an array, a tensor or nested lists.

        Returns:
            Logits, fp32 [number, classes].

        Raises:
            VitcError: If they are no such images, or this machine cannot run the library.
        """
        return self._single(images)

    def __reduce__(
        self,
    ) -> tuple[Callable[[str, str, str | None], Artefact], tuple[str, str, str | None]]:
        return _reopen, (str(self.path.absolute()), _identity(self.manifest), self.chosen)

    def decode_trace(
        self, data: bytes, images: int, n: int = 0
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Decode what `vitc-run --trace` wrote: tap name to array [images, ...]."""
        return decode_trace(self.entry, data, images, n)
