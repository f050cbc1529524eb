"""Table: detectors and segmentation networks, heads included, beside their fp32 twins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from markdown import table
from networks import Workshop

from vitc.bench import BenchOptions, bench
from vitc.compiler import compile_model
from vitc.exporter import export
from vitc.models import PRESETS
from vitc.models.architectures.tasks import DetectionConfig, SegmentationConfig, TaskConfig
from vitc.models.initialise import random_model
from vitc.runtime.artefact import Artefact
from vitc.targets.table import find, host_features

__all__ = ["task_table"]

Say = Callable[[str], None]

_OTHER: Final = "x86-avx512"
_PRESET: Final = "micro-swin"
_SIZES: Final = (64, 224, 320)
_CLASSES: Final = 10
_SMALL: Final = 96

_LIGHT: Final = {"tower": "depthwise", "binary_head": True}

_KINDS: Final[Mapping[str, tuple[type[TaskConfig], str, dict[str, Any]]]] = {
    "detection": (DetectionConfig, "float", {}),
    "detection, `merge: binary`, light binary head": (DetectionConfig, "binary", _LIGHT),
    "segmentation": (SegmentationConfig, "float", {}),
    "segmentation, `merge: binary`, light binary head": (SegmentationConfig, "binary", _LIGHT),
}


def _config(kind: str, size: int) -> TaskConfig:
    """The network that `vitc train --task` trains at that size, with SI."""
    made, merge, head = _KINDS[kind]
    trunk = PRESETS[_PRESET].config.replace(image_size=size, classes=_CLASSES, si=True, merge=merge)
    levels = {"strides": (8,) if size <= _SMALL else (8, 16, 32)}
    return made.on(trunk, **head, **(levels if made is DetectionConfig else {}))


def _artefact(workshop: Workshop, kind: str, size: int, target: str) -> Artefact:
    stem = f"task-{list(_KINDS).index(kind)}-{size}"
    path, onnx = workshop.folder / f"{stem}-{target}", workshop.folder / f"{stem}.onnx"
    if not path.is_dir():
        if not onnx.is_file():
            export(random_model(_config(kind, size)), onnx)
        compile_model(onnx, target, path)
    return Artefact.open(path)


def _targets() -> list[str]:
    """What is timed: the target of this machine, and AVX-512 where it runs and is another."""
    runs = host_features().issuperset(find(_OTHER).features)
    return list(dict.fromkeys((find("native").name, *([_OTHER] if runs else []))))


def task_table(workshop: Workshop, runs: int, say: Say) -> str:
    """Every kind and size on one thread."""
    rows, targets = [], _targets()
    for kind in _KINDS:
        for size in _SIZES:
            cells = []
            for target in targets:
                say(f"timing {kind} at {size} px for {target}")
                artefact = _artefact(workshop, kind, size, target)
                found = bench(artefact.path, BenchOptions(runs=runs, baseline="onnxruntime"))
                own, other = found.latency, found.baseline_latency
                assert other is not None  # noqa: S101 - it was asked for
                cells += [
                    f"{own.median:.2f} ms ({own.min:.2f})",
                    f"{other.median / own.median:.1f}x (**{other.min / own.min:.1f}x**)",
                ]
            rows.append((kind, f"{size}", *cells))
    each = [column for target in targets for column in (f">{target}", ">fp32 twin takes")]
    return (
        f"{table(('network', '>px', *each), rows)}\n\n`{_PRESET}` with SI, one pinned thread, "
        f"batch 1, {runs} runs of each in turns; decoding and suppression are not in it. Medians, "
        "and how many times as long the fp32 twin takes in ONNX Runtime; in brackets minima and "
        "their ratio, which other work on the machine moves less."
    )
