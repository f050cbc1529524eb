"""What a folder of the Hugging Face Hub calls its files, and what its configuration says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from vitc.errors import VitcError

__all__ = ["CONFIG", "LIBRARY", "TENSORS", "checkpoint_in", "described_beside"]

TENSORS: Final = "model.safetensors"
CONFIG: Final = "config.json"
LIBRARY: Final = "vitc"
"""What the Hub calls vitc, and the key of our facts in ``config.json``."""

_MOST_BYTES: Final = 16 << 20


def checkpoint_in(path: Path) -> Path:
    """The checkpoint of a folder of the Hub; what is no folder is one itself.

    Raises:
        VitcError: If the folder has none.
    """
    if not path.is_dir():
        return path
    if not (path / TENSORS).is_file():
        raise VitcError(
            f"{path} has no {TENSORS}.",
            "Name a checkpoint file, or a folder that `save_pretrained` wrote.",
        )
    return path / TENSORS


def described_beside(file: Path) -> dict[str, Any]:
    """What ``config.json`` beside a file says of it; empty if it is of another program.

    Raises:
        VitcError: If it cannot be read.
    """
    beside = file.with_name(CONFIG)
    if file.name != TENSORS or not beside.is_file():
        return {}
    try:
        if beside.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        found = json.loads(beside.read_text(encoding="utf-8"))
        own = found.get(LIBRARY, {}) if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError) as error:
        raise VitcError(f"{beside} cannot be read: {error}.", "Copy the folder again.") from error
    return own if isinstance(own, dict) else {}
