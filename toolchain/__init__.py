"""vitc: binarized vision transformers from PyTorch to small native libraries, checked on the way.

    import vitc

    vitc.save(vitc.new("deit-small"), "m.safetensors")
    vitc.export("m.safetensors", "m.onnx")
    artefact = vitc.compile("m.onnx", "here", target="native")
    logits = artefact(artefact.preprocess("x.jpg")) # or any float32 [B, 3, 224, 224], normalised
    vitc.predict("here", "x.jpg").top(0, 5)         # labels and probabilities
    vitc.see("detector", "x.jpg")[0].boxes          # of a detector, in pixels of the picture
    report = vitc.check("here", "m.safetensors")    # report.equal, report.first_difference
    vitc.bench("here").ratio                        # against its full-precision twin

A path is a string or a `Path` everywhere. Layers for networks of your own are in `vitc.nn`, the
table of targets in `vitc.targets`. Every name is imported when it is first used, so importing vitc
is cheap.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vitc import nn as nn
    from vitc import targets as targets
    from vitc.api import CompileOptions as CompileOptions
    from vitc.api import ExportOptions as ExportOptions
    from vitc.api import compile as compile  # noqa: A004
    from vitc.api import export as export
    from vitc.api import new as new
    from vitc.api import open as open  # noqa: A004
    from vitc.bench.inspection import Inspection as Inspection
    from vitc.bench.inspection import inspect as inspect
    from vitc.bench.measure import BenchOptions as BenchOptions
    from vitc.bench.measure import BenchReport as BenchReport
    from vitc.bench.measure import bench as bench
    from vitc.bench.tuning import TuneOptions as TuneOptions
    from vitc.bench.tuning import TuneReport as TuneReport
    from vitc.bench.tuning import tune as tune
    from vitc.devices.picture_network import PredictOptions as PredictOptions
    from vitc.devices.prediction import Prediction as Prediction
    from vitc.devices.prediction import predict as predict
    from vitc.devices.seen import Seen as Seen
    from vitc.devices.seen import see as see
    from vitc.errors import VitcError as VitcError
    from vitc.exporter import ExportResult as ExportResult
    from vitc.models.architectures.deit import ModelConfig as ModelConfig
    from vitc.models.checkpoint import load as load
    from vitc.models.checkpoint import save as save
    from vitc.models.embedding import with_embedding as with_embedding
    from vitc.models.hub import from_pretrained as from_pretrained
    from vitc.models.hub import push_to_hub as push_to_hub
    from vitc.models.hub import save_pretrained as save_pretrained
    from vitc.models.network import Network as Network
    from vitc.models.preprocessing import Preprocessing as Preprocessing
    from vitc.models.sibivit import SIBiViT as SIBiViT
    from vitc.models.stated import Stated as Stated
    from vitc.models.twins.loading import load_twin as load_twin
    from vitc.runtime.artefact import Artefact as Artefact
    from vitc.runtime.wheel import package as package
    from vitc.training import TrainOptions as TrainOptions
    from vitc.training import TrainResult as TrainResult
    from vitc.training import train as train
    from vitc.verify import CheckFailedError as CheckFailedError
    from vitc.verify import CheckOptions as CheckOptions
    from vitc.verify import CheckReport as CheckReport
    from vitc.verify import check as check

# ONNX Runtime reads it when it is loaded: no telemetry, no identifier in the user's cache folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES: Final = {
    "Artefact": "vitc.runtime.artefact",
    "BenchOptions": "vitc.bench.measure",
    "BenchReport": "vitc.bench.measure",
    "CheckFailedError": "vitc.verify",
    "CheckOptions": "vitc.verify",
    "CheckReport": "vitc.verify",
    "CompileOptions": "vitc.api",
    "ExportOptions": "vitc.api",
    "ExportResult": "vitc.exporter",
    "Inspection": "vitc.bench.inspection",
    "ModelConfig": "vitc.models.architectures.deit",
    "Network": "vitc.models.network",
    "PredictOptions": "vitc.devices.picture_network",
    "Prediction": "vitc.devices.prediction",
    "Preprocessing": "vitc.models.preprocessing",
    "SIBiViT": "vitc.models.sibivit",
    "Seen": "vitc.devices.seen",
    "Stated": "vitc.models.stated",
    "TrainOptions": "vitc.training",
    "TrainResult": "vitc.training",
    "TuneOptions": "vitc.bench.tuning",
    "TuneReport": "vitc.bench.tuning",
    "VitcError": "vitc.errors",
    "bench": "vitc.bench.measure",
    "check": "vitc.verify",
    "compile": "vitc.api",
    "export": "vitc.api",
    "from_pretrained": "vitc.models.hub",
    "inspect": "vitc.bench.inspection",
    "load": "vitc.models.checkpoint",
    "load_twin": "vitc.models.twins.loading",
    "new": "vitc.api",
    "open": "vitc.api",
    "package": "vitc.runtime.wheel",
    "predict": "vitc.devices.prediction",
    "push_to_hub": "vitc.models.hub",
    "save": "vitc.models.checkpoint",
    "save_pretrained": "vitc.models.hub",
    "see": "vitc.devices.seen",
    "train": "vitc.training",
    "tune": "vitc.bench.tuning",
    "with_embedding": "vitc.models.embedding",
}
_MODULES: Final = ("nn", "targets")

__all__ = sorted(_HOMES)


def home_of(name: str) -> str:
    """The module that a public name comes from."""
    return _HOMES[name]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vitc")
    if name in _MODULES:
        return import_module(f"vitc.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'vitc' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from vitc.extras import explained

        explanation = explained(error)
        if explanation is None:
            raise
        raise explanation from error


def __dir__() -> list[str]:
    return sorted([*_HOMES, *_MODULES, *(name for name in globals() if name.startswith("__"))])
