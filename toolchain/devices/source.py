"""What an artefact or an exported file says about the network inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitc.errors import VitcError
from vitc.models.architectures import config_from_dict
from vitc.models.config import NetworkConfig
from vitc.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from vitc.onnx_files import ModelFacts
    from vitc.runtime.artefact import Artefact

__all__ = ["Description", "refuse_external_data"]


def refuse_external_data(path: Path, allowed: bool) -> None:
    """Refuse leave to read the external data of something that is no ONNX file.

    Raises:
        VitcError: If it was given.
    """
    if allowed:
        raise VitcError(
            f"{path} is no ONNX file; an artefact and a checkpoint keep no data in other files.",
            "Leave --allow-external-data away.",
        )


@dataclass(frozen=True)
class Description:
    """The network inside a file.

    Attributes:
        config: Its sizes.
        preprocessing: How images become inputs.
        labels: Names of its classes; None if unknown.
    """

    config: NetworkConfig
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None

    @classmethod
    def of_artefact(cls, artefact: Artefact) -> Description:
        """What the manifest says.

        Raises:
            VitcError: If it does not hold together.
        """
        facts = artefact.manifest
        return cls._read(artefact.path, facts.config, facts.preprocessing, facts.labels)

    @classmethod
    def of_onnx(cls, path: Path, facts: ModelFacts) -> Description:
        """What an exported file says.

        Raises:
            VitcError: If it does not hold together.
        """
        return cls._read(path, facts.config, facts.preprocessing, facts.labels)

    @classmethod
    def _read(cls, path: Path, config: Any, preprocessing: Any, labels: Any) -> Description:
        if not isinstance(config, Mapping) or not config:
            raise VitcError(
                f"{path} does not say which network it holds.", "Export the checkpoint again."
            )
        sizes = config_from_dict(config)
        shown = (
            Preprocessing.from_dict(preprocessing)
            if isinstance(preprocessing, Mapping) and preprocessing
            else Preprocessing.for_image_size(sizes.image_size)
        )
        names = tuple(str(n) for n in labels) if isinstance(labels, Sequence) and labels else None
        if names is not None and len(names) != sizes.classes:
            raise VitcError(
                f"{path} has {len(names)} labels for {sizes.classes} classes.",
                "Export the checkpoint again.",
            )
        return cls(sizes, shown, names)
