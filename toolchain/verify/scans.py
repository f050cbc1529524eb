"""Scores of an artefact against their definition, for all pairs: integers that must be equal.

Texts and images are vectors that the artefact's own towers give, where it has them, and random bits
behind them. Where all scores are equal, so is the list that a search makes of them for each text.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from vitc.devices import Device, RunRequest
from vitc.dialect.packing import pack_bits
from vitc.dialect.scan_graph import DOCUMENTS, QUERY, SCORES
from vitc.models.retrieval.scores import sign_interaction
from vitc.onnx_files.load_entry import load_entry
from vitc.onnx_files.ports import packed_widths
from vitc.runtime.arrays import probe_inputs
from vitc.runtime.artefact import Artefact
from vitc.runtime.manifest import EntryFacts

__all__ = ["is_scan", "scan_faults"]

_TEXTS: Final = 4
_IMAGES: Final = 37
_TOWERS: Final = {QUERY: "text", DOCUMENTS: "image"}
"""Entries that give what a scan reads, by the name of its port."""

Bits = NDArray[np.uint8]


def is_scan(entry: EntryFacts) -> bool:
    """Whether an entry scores packed vectors."""
    return {port.name for port in entry.inputs} == {QUERY, DOCUMENTS}


def scan_faults(artefact: Artefact, device: Device, seed: int = 0) -> list[str]:
    """Compare every scan of an artefact.

    Args:
        artefact: The artefact.
        device: Where it runs.
        seed: Of random bits, and of what the towers are given.

    Returns:
        A sentence for each scan that gives another score.

    Raises:
        VitcError: If it cannot run there.
    """
    scans = [entry for entry in artefact.manifest.entries if is_scan(entry)]
    faults = [_fault(artefact, entry, device, seed) for entry in scans]
    return [fault for fault in faults if fault is not None]


def _fault(artefact: Artefact, entry: EntryFacts, device: Device, seed: int) -> str | None:
    part, rng = artefact.at(entry.name), np.random.default_rng(seed)
    width = packed_widths(load_entry(part.onnx, entry.name))[QUERY]
    shapes = {port.name: port.shape for port in entry.inputs}
    together = len(shapes[QUERY]) > 2
    a, b = int(shapes[QUERY][-2] or 0), int(shapes[DOCUMENTS][-2] or 0)
    count = int(shapes[QUERY][0] or 0) if together else _TEXTS
    texts, images = (
        np.concatenate(
            [
                *_towers(artefact, device, _TOWERS[name], (vectors, width), seed),
                rng.integers(0, 2, (number, vectors, width), dtype=np.uint8),
            ]
        )
        for name, vectors, number in ((QUERY, a, count), (DOCUMENTS, b, _IMAGES))
    )
    texts = texts[:count] if together else texts
    wanted = sign_interaction(torch.from_numpy(images), torch.from_numpy(texts)).numpy()
    runs = [pack_bits(texts)] if together else list(pack_bits(texts))
    found = np.concatenate(
        [
            device.run(part, {QUERY: query, DOCUMENTS: pack_bits(images)}, RunRequest())
            .outputs[SCORES]
            .reshape(len(images), -1)
            for query in runs
        ],
        axis=1,
    )
    wrong = np.argwhere(found != wanted)
    if len(wrong):
        image, text = map(int, wrong[0])
        return (
            f"{entry.name}: {len(wrong)} of {wanted.size} scores differ, the first of text {text} "
            f"and image {image}: {found[image, text]}, wanted {wanted[image, text]}"
        )
    return None


def _towers(
    artefact: Artefact, device: Device, name: str, shape: tuple[int, int], seed: int
) -> list[Bits]:
    """What an entry gives for random inputs, if there is one that gives such vectors."""
    entry = artefact.manifest.entry(name)
    if entry is None or [port.shape for port in entry.outputs] != [shape]:
        return []
    inputs = probe_inputs(entry.inputs, _TEXTS, seed)
    outputs = device.run(artefact.at(name), inputs, RunRequest()).outputs
    return [next(iter(outputs.values()))]
