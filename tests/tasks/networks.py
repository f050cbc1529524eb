"""Small networks of the tasks with random weights, in which something is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vitc import api
from vitc.models.architectures.tasks import DetectionConfig, SegmentationConfig, TaskConfig
from vitc.models.build import build_network
from vitc.models.checkpoint import save
from vitc.models.network import Network
from vitc.models.preprocessing import Preprocessing
from vitc.runtime import Artefact

LABELS = ("cat", 'say "no"', "background")
MEAN = (0.5, 0.4, 0.3)


def network(
    task: str, *, preset: str = "micro", size: Any = 64, seed: int = 3, new: Any = None, **own: Any
) -> Network:
    """A network of a task whose classes vary over the image.

    Args:
        task: ``detection`` or ``segmentation``.
        preset: Of the trunk.
        size: Of the image.
        seed: Of the weights.
        new: Options of the trunk.
        own: Fields of the configuration.
    """
    torch.manual_seed(seed)
    trunk = api.new(preset, image_size=size, classes=len(LABELS), **(new or {"depth": 1})).config
    kind: type[TaskConfig] = DetectionConfig if task == "detection" else SegmentationConfig
    how = Preprocessing(resize=size, crop=size, interpolation="bilinear", mean=MEAN, std=MEAN)
    model = build_network(kind.on(trunk, width=16, **own), how, LABELS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("classes.", "boxes.", "centreness.")):
                parameter.normal_(std=0.5)
    return model.eval()


def exported(folder: Path, task: str, **more: Any) -> tuple[Path, Path]:
    """Checkpoint and ONNX file of such a network."""
    paths = folder / f"{task}.safetensors", folder / f"{task}.onnx"
    save(network(task, **more), paths[0])
    api.export(paths[0], paths[1], api.ExportOptions(check=False))
    return paths


def compiled(onnx: Path, target: str = "native", **more: Any) -> Artefact:
    """An artefact of an ONNX file, in a folder beside it."""
    out = onnx.with_name(f"{onnx.stem}-{target}")
    return api.compile(onnx, out, api.CompileOptions(target=target, check=False, **more))
