"""Pictures and words to packed vectors, by a checkpoint (PyTorch) or a compiled artefact."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vitc.dialect.packing import pack_bits
from vitc.errors import VitcError
from vitc.extras import need
from vitc.models.architectures.retrieval import RetrievalConfig
from vitc.models.preprocessing import Preprocessing
from vitc.retrieval.index_file import Packed

if TYPE_CHECKING:
    from vitc.models.retrieval.word_pieces import WordPieces
    from vitc.retrieval.compiled_scan import CompiledScans
    from vitc.runtime.native import NativeModel

__all__ = ["Encoder", "open_encoder"]

_IMAGE: Final = "image"
_TEXT: Final = "text"
_PIXELS: Final = "pixels"
_WORDS: Final = "words"
"""Ports of both towers; see docs/retrieval.md."""


class _Towers(Protocol):
    """What computes."""

    def __call__(self, output: str, name: str, array: NDArray[Any]) -> NDArray[np.uint8]:
        """One output of one input, bits {0, 1} [B, vectors, d]."""


class Encoder:
    """Both towers, and what makes their inputs.

    Args:
        path: Where they come from.
        model: SHA-256 of the checkpoint.
        config: Of the towers.
        preprocessing: How pictures become inputs.
        towers: What computes.
        scans: What searches an index of it; None for numpy.

    Raises:
        VitcError: If the vectors are no bits.
    """

    def __init__(
        self,
        path: Path,
        model: str,
        config: RetrievalConfig,
        preprocessing: Preprocessing,
        towers: _Towers,
        scans: CompiledScans | None = None,
    ) -> None:
        if not config.packed:
            raise VitcError(
                f"The vectors of {path} are floats, and an index holds bits.",
                "Train without --floats.",
            )
        self.path = path
        self.model = model
        self.config = config
        self.preprocessing = preprocessing
        self.scans = scans
        self._towers = towers
        self._pieces: WordPieces | None = None

    def images(self, pixels: NDArray[np.uint8]) -> Packed:
        """Pixels uint8 [B, H, W, 3] of `preprocessing` to packed vectors, uint8 [B, b, P(d)]."""
        return pack_bits(self._towers(_IMAGE, _PIXELS, self.preprocessing.normalise(pixels)))

    def texts(self, texts: Sequence[str]) -> Packed:
        """Texts to packed vectors, uint8 [B, a, P(d)]."""
        from vitc.models.retrieval.word_pieces import WordPieces

        if self._pieces is None:
            self._pieces = WordPieces(self.config.pieces, self.config.length)
        return pack_bits(self._towers(_TEXT, _WORDS, self._pieces(texts)))


def open_encoder(path: str | os.PathLike[str], *, threads: int = 1) -> Encoder:
    """Open the towers of a checkpoint or an artefact.

    Args:
        path: A checkpoint file, or an artefact folder that was made from one.
        threads: Of an artefact.

    Raises:
        VitcError: If it is none of these, is damaged, or holds no retrieval network.
    """
    place = Path(path)
    if place.is_dir():
        return _of_artefact(place, threads)
    return _of_checkpoint(place)


def _of_checkpoint(path: Path) -> Encoder:
    need(f"The checkpoint {path}", "train", hint="or name an artefact of it")
    import torch

    from vitc.models.checkpoint import load
    from vitc.models.retrieval.network import Retrieval

    model = load(path)
    if not isinstance(model, Retrieval):
        raise _no_towers(path, model.config.arch)
    rows = {_IMAGE: model.image_rows, _TEXT: model.text_rows}

    def run(output: str, name: str, array: NDArray[Any]) -> NDArray[np.uint8]:
        del name
        with torch.inference_mode():
            bits: NDArray[np.uint8] = model.given(rows[output](torch.from_numpy(array))).numpy()
        return bits

    return Encoder(path, model.source_sha256 or "", model.config, model.preprocessing, run)


def _of_artefact(path: Path, threads: int) -> Encoder:
    from vitc.devices.source import Description
    from vitc.retrieval.compiled_scan import CompiledScans
    from vitc.runtime.artefact import Artefact

    artefact = Artefact.open(path)
    if not artefact.manifest.config:
        raise _no_towers(path, "network without a configuration")
    found = Description.of_artefact(artefact)
    if not isinstance(found.config, RetrievalConfig):
        raise _no_towers(path, found.config.arch)
    loaded = artefact.load(threads)
    towers, scans = _Compiled(loaded), CompiledScans.of(loaded)
    model = artefact.manifest.source_sha256 or ""
    return Encoder(path, model, found.config, found.preprocessing, towers, scans)


class _Compiled:
    """Entries of an artefact; an entry that computes both towers is given zeros for the other."""

    def __init__(self, model: NativeModel) -> None:
        manifest = model.artefact.manifest
        self._entries = {port.name: entry for entry in manifest.entries for port in entry.outputs}
        self._path = model.artefact.path
        self._model = model

    def __call__(self, output: str, name: str, array: NDArray[Any]) -> NDArray[np.uint8]:
        entry = self._entries.get(output)
        if entry is None or name not in {port.name for port in entry.inputs}:
            raise VitcError(
                f"{self._path} has no entry that makes {output} of {name}.",
                "Export the checkpoint again, and compile that.",
            )
        inputs = {
            port.name: array if port.name == name else np.zeros(port.sizes(len(array)), port.dtype)
            for port in entry.inputs
        }
        bits: NDArray[np.uint8] = self._model.run(inputs, entry.name)[output]
        return bits


def _no_towers(path: Path, found: str) -> VitcError:
    return VitcError(
        f"{path} is no retrieval network but a {found}.",
        "Train one: `vitc retrieve train`.",
    )
