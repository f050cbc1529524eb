"""The account of a checkpoint, an exported file or an artefact."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitc.devices.source import Description, refuse_external_data
from vitc.errors import VitcError
from vitc.models.account import Account, account
from vitc.models.config import NetworkConfig
from vitc.models.preprocessing import Preprocessing
from vitc.runtime.artefact import Artefact

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What is inside a checkpoint, an exported file or an artefact.

    Attributes:
        path: What was inspected.
        kind: ``checkpoint``, ``onnx`` or ``artefact``.
        config: Its sizes.
        account: Its cost by layer.
        files: Name to size in bytes of what it is made of.
        preprocessing: How images become inputs.
        labels: Names of its classes; None if unknown.
        kernels: For an artefact, layer to kernel.
        float_layers: For an exported file, binary layers that were allowed to be in float: to
            reason.
    """

    path: str
    kind: str
    config: NetworkConfig
    account: Account
    files: Mapping[str, int]
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    kernels: Mapping[str, str] = field(default_factory=dict)
    float_layers: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "path": self.path,
            "kind": self.kind,
            "config": self.config.to_dict(),
            "files": dict(self.files),
            "preprocessing": self.preprocessing.to_dict(),
            "labels": None if self.labels is None else list(self.labels),
            "kernels": dict(self.kernels),
            "float_layers": dict(self.float_layers),
            **self.account.to_dict(),
        }


def inspect(path: str | os.PathLike[str], *, allow_external_data: bool = False) -> Inspection:
    """Account for a network.

    Args:
        path: A checkpoint, an exported ``.onnx`` file or an artefact folder.
        allow_external_data: Whether an ONNX file keeps data in other files of its folder.

    Raises:
        VitcError: If it is none of these, or damaged.
    """
    place = Path(path)
    if not place.exists():
        raise VitcError(
            f"There is no {place}.", "Name a checkpoint, an .onnx file or an artefact folder."
        )
    artefact: Artefact | None = None
    in_float: dict[str, str] = {}
    if place.suffix != ".onnx":
        refuse_external_data(place, allow_external_data)
    if place.is_dir():
        kind, artefact = "artefact", Artefact.open(place)
        found = Description.of_artefact(artefact)
        files = {file.name: file.stat().st_size for file in sorted(place.iterdir())}
    elif place.suffix == ".onnx":
        from vitc.onnx_files import load_onnx

        _, facts = load_onnx(place, allow_external_data=allow_external_data)
        in_float = facts.float_layers
        kind, found = "onnx", Description.of_onnx(place, facts)
        files = {place.name: place.stat().st_size}
    else:
        from vitc.models.checkpoint import load

        model = load(place)
        kind, found = "checkpoint", Description(model.config, model.preprocessing, model.labels)
        files = {place.name: place.stat().st_size}
    cost = account(found.config)
    return Inspection(
        path=str(place),
        kind=kind,
        config=found.config,
        account=cost,
        files=files,
        preprocessing=found.preprocessing,
        labels=found.labels,
        kernels={} if artefact is None else _kernels(artefact, cost),
        float_layers=in_float,
    )


def _kernels(artefact: Artefact, cost: Account) -> dict[str, str]:
    made_by = {step.tap: step.kernel for step in artefact.manifest.steps}
    found = {
        layer.name: dict.fromkeys(made_by[tap] for tap in layer.taps if tap in made_by)
        for layer in cost.layers
    }
    return {name: ", ".join(kernels) for name, kernels in found.items() if kernels}
