"""The account of a checkpoint, an exported file or an artefact."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitc.devices.source import Description, refuse_external_data
from vitc.errors import VitcError
from vitc.extras import need
from vitc.models.account import Account
from vitc.models.architectures import account
from vitc.models.config import NetworkConfig
from vitc.models.folder import TENSORS, checkpoint_in
from vitc.models.preprocessing import Preprocessing
from vitc.runtime.artefact import MANIFEST, Artefact
from vitc.runtime.port import Port

if TYPE_CHECKING:
    from vitc.models.network import Network

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What is inside a checkpoint, an exported file or an artefact.

    Attributes:
        path: What was inspected.
        kind: ``checkpoint``, ``onnx`` or ``artefact``.
        config: Its sizes; None of a network of one's own, which states none.
        account: Its cost by layer; without a configuration as `vitc.bench.stored` counts it.
        files: Name to size in bytes of what it is made of.
        preprocessing: How images become inputs; None without a configuration.
        labels: Names of its classes; None if unknown.
        inputs: What an exported file or an artefact takes.
        outputs: What it gives.
        kernels: For an artefact, layer to kernel.
        entries: For an artefact of several, the ports of each entry, inputs first; `inputs` and
            `outputs` are those of the first.
        scheme_parameters: For a checkpoint, what its scheme has learned beside weights and biases:
            end of the name to how many values there are, and the least and the largest.
        float_layers: For an exported file, binary layers that were allowed to be in float: to
            reason.
    """

    path: str
    kind: str
    config: NetworkConfig | None
    account: Account
    files: Mapping[str, int]
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    kernels: Mapping[str, str] = field(default_factory=dict)
    entries: Mapping[str, tuple[Port, ...]] = field(default_factory=dict)
    scheme_parameters: Mapping[str, tuple[int, float, float]] = field(default_factory=dict)
    float_layers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        size = f"{len(self.account.layers)} layers, {sum(self.files.values())} bytes"
        return f"Inspection({self.path}: {self.kind}, {size})"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "path": self.path,
            "kind": self.kind,
            "config": None if self.config is None else self.config.to_dict(),
            "files": dict(self.files),
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_dict(),
            "labels": None if self.labels is None else list(self.labels),
            "inputs": [port.to_dict() for port in self.inputs],
            "outputs": [port.to_dict() for port in self.outputs],
            "kernels": dict(self.kernels),
            "entries": {
                name: [port.to_dict() for port in ports] for name, ports in self.entries.items()
            },
            "scheme_parameters": {
                name: {"values": count, "least": least, "largest": largest}
                for name, (count, least, largest) in self.scheme_parameters.items()
            },
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
    if place.suffix != ".onnx":
        refuse_external_data(place, allow_external_data)
    of_hub = (place / TENSORS).is_file() and not (place / MANIFEST).exists()
    if place.is_dir() and not of_hub:
        return _artefact(place)
    if place.suffix == ".onnx":
        return _onnx_file(place, allow_external_data)
    need("Inspecting a checkpoint", "train")
    from vitc.models.checkpoint import load

    model, place = load(place), checkpoint_in(place)
    return Inspection(
        path=str(place),
        kind="checkpoint",
        config=model.config,
        account=account(model.config),
        files={place.name: place.stat().st_size},
        preprocessing=model.preprocessing,
        labels=model.labels,
        scheme_parameters=_learned(model),
    )


def _artefact(place: Path) -> Inspection:
    artefact = Artefact.open(place)
    entry = artefact.entry
    several = len(artefact.manifest.entries) > 1
    found = Description.of_artefact(artefact) if artefact.manifest.config else None
    if found is None:
        parts = [_stored(artefact.at(each.name)) for each in artefact.manifest.entries]
        cost = Account(tuple(layer for account, _ in parts for layer in account.layers))
        kernels = {layer: kernel for _, made in parts for layer, kernel in made.items()}
    else:
        cost = account(found.config)
        kernels = _kernels(artefact, cost)
    return Inspection(
        path=str(place),
        kind="artefact",
        config=None if found is None else found.config,
        account=cost,
        files={file.name: file.stat().st_size for file in sorted(place.iterdir())},
        preprocessing=None if found is None else found.preprocessing,
        labels=None if found is None else found.labels,
        inputs=entry.inputs,
        outputs=entry.outputs,
        kernels=kernels,
        entries={each.name: each.ports for each in artefact.manifest.entries} if several else {},
    )


def _stored(artefact: Artefact) -> tuple[Account, dict[str, str]]:
    need(f"Accounting for {artefact.path}, which has no configuration,", "onnx")
    from vitc.bench.stored import account_of_file, work_of
    from vitc.onnx_files.load_entry import load_entry

    model = load_entry(artefact.onnx, artefact.entry.name)
    return account_of_file(model, work_of(artefact.entry.steps))


def _onnx_file(place: Path, allow_external_data: bool) -> Inspection:
    need("Inspecting an ONNX file", "onnx")
    from vitc.onnx_files import load_onnx
    from vitc.onnx_files.ports import input_ports, output_ports

    model, facts = load_onnx(place, allow_external_data=allow_external_data)
    found = Description.of_onnx(place, facts) if facts.config else None
    if found is None:
        from vitc.bench.stored import account_of_file, planned

        cost, _ = account_of_file(model, planned(model, facts))
    else:
        cost = account(found.config)
    return Inspection(
        path=str(place),
        kind="onnx",
        config=None if found is None else found.config,
        account=cost,
        files={place.name: place.stat().st_size},
        preprocessing=None if found is None else found.preprocessing,
        labels=None if found is None else found.labels,
        inputs=input_ports(model),
        outputs=output_ports(model),
        float_layers=facts.float_layers,
    )


def _learned(model: Network) -> dict[str, tuple[int, float, float]]:
    if not model.config.binarized:
        return {}
    from vitc.models.schemes import scheme

    held = model.state_dict()
    found = {}
    for end in scheme(model.config.scheme).parameters:
        values = [held[name].flatten() for name in held if name.endswith(f".{end}")]
        if values:
            least = min(float(each.min()) for each in values)
            largest = max(float(each.max()) for each in values)
            found[end] = (sum(each.numel() for each in values), least, largest)
    return found


def _kernels(artefact: Artefact, cost: Account) -> dict[str, str]:
    steps = artefact.entry.steps
    made_by = {written.tap: step.kernel for step in steps for written in step.writes}
    found = {
        layer.name: dict.fromkeys(made_by[tap] for tap in layer.taps if tap in made_by)
        for layer in cost.layers
    }
    return {name: ", ".join(kernels) for name, kernels in found.items() if kernels}
