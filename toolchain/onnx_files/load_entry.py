"""The graph of one entry, from the file that it was compiled from."""

from __future__ import annotations

import os

import onnx_ir as ir

from vitc.errors import VitcError
from vitc.onnx_files.entries import RUN, entry_models
from vitc.onnx_files.load import load_onnx

__all__ = ["load_entry"]


def load_entry(path: str | os.PathLike[str], entry: str) -> ir.Model:
    """Read a file, and return the graph of an entry; of a file that names none, the whole.

    Raises:
        VitcError: As `load_onnx`; or the file has no such entry.
    """
    model, facts = load_onnx(path)
    models = entry_models(model, facts.entries)
    if entry not in models and RUN not in models:
        raise VitcError(
            f"{path} has no entry {entry}; it has {', '.join(models)}.", "Compile it again."
        )
    return models.get(entry, model)
