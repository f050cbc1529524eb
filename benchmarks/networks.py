"""Networks of the benchmarks, with random trained-like weights, made once in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vitc.api import ExportOptions, export
from vitc.compiler import compile_model
from vitc.models import PRESETS, NetworkConfig
from vitc.models.initialise import random_model
from vitc.runtime.artefact import Artefact

__all__ = ["MAIN", "TINY", "Network", "Workshop", "networks"]


@dataclass(frozen=True)
class Network:
    """A binarized network.

    Attributes:
        preset: A key of `vitc.models.PRESETS`.
        ratio: MLP ratio R; None for that of the preset.
        si: Whether blocks have the spatial interaction branch.
        rounded: Whether its embedding and its ends are in int8.
    """

    preset: str
    ratio: int | None
    si: bool
    rounded: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        ratio = "" if self.ratio is None else f", R {self.ratio}"
        rounded = ", int8 ends" if self.rounded else ""
        return f"{self.preset}{ratio}, {'SI' if self.si else 'no SI'}{rounded}"

    @property
    def config(self) -> NetworkConfig:
        """Its sizes."""
        config = PRESETS[self.preset].config.replace(si=self.si)
        return config if self.ratio is None else config.replace(mlp_ratio=self.ratio)


MAIN = Network("deit-small", 2, si=True)
"""The network of the tables about one network."""

TINY = ("deit-tiny", "swin-tiny", "pvt-tiny", "nest-tiny")
"""A preset of each backbone."""


def networks(*, quick: bool) -> Iterator[Network]:
    """The networks that are compared: DeiT-S only, or all sizes."""
    for preset in ("deit-small",) if quick else ("deit-tiny", "deit-small", "deit-base"):
        for ratio in (2, 4):
            for si in (True, False):
                yield Network(preset, ratio, si)


@dataclass(frozen=True)
class Workshop:
    """Makes files in a folder, and takes them from there when they are there already.

    Attributes:
        folder: Where.
    """

    folder: Path

    def onnx(self, network: Network, form: str) -> Path:
        """ONNX file of a network in a format: packed, int8 or float."""
        path = self.folder / f"{self._stem(network)}.{form}.onnx"
        if not path.is_file():
            options = ExportOptions(form=form, check=False)
            if network.rounded:
                options = replace(options, embedding="int8", ends="int8")
            export(random_model(network.config), path, options)
        return path

    def artefact(self, network: Network, target: str) -> Artefact:
        """Artefact of a network for a target."""
        path = self.folder / f"{self._stem(network)}.{target}"
        if not path.is_dir():
            compile_model(self.onnx(network, "packed"), target, path)
        return Artefact.open(path)

    def _stem(self, network: Network) -> str:
        ratio = "" if network.ratio is None else f"-r{network.ratio}"
        rounded = "-int8" if network.rounded else ""
        return f"{network.preset}{ratio}{'-si' if network.si else ''}{rounded}"
