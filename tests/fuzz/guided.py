"""Coverage-guided fuzzing of what Python reads, by Atheris; a program, not collected by pytest.

    pip install atheris
    python tests/fuzz/guided.py TARGET CORPUS [-max_total_time=SECONDS]

TARGET is onnx, safetensors, pickle, manifest, array or image; CORPUS a folder that gets a whole
file first and then every input that reached new code. Anything but a `VitcError`, ten seconds or
2 GB more than the libraries take ends the program and leaves the input in a file.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import atheris  # type: ignore[import-not-found]

READERS = ["vitc", "numpy.lib", "PIL", "torch._weights_only_unpickler", "zipfile"]

with atheris.instrument_imports(include=READERS):
    import numpy as np
    import torch
    from PIL import Image

    import vitc
    from vitc.compiler import compile as compiling
    from vitc.devices.inputs import read_inputs
    from vitc.errors import VitcError
    from vitc.exporter import export
    from vitc.models import ModelConfig, Preprocessing, save
    from vitc.models.initialise import random_model
    from vitc.runtime import Artefact
    from vitc.runtime.trace import traced_bytes

CONFIG = ModelConfig(
    image_size=4, patch_size=2, width=12, depth=1, heads=2, hidden=9, classes=3, si=True,
    si_hidden=5,
)  # fmt: skip
LIBRARIES_MB = 1500
MOST_MB = 2000
LONGEST_S = 10

Body = Callable[[bytes], None]


class _Enough(Exception):  # noqa: N818 - nothing is wrong
    pass


def _onnx(folder: Path) -> tuple[bytes, Body]:
    file = folder / "m.onnx"
    whole = export(random_model(CONFIG, 1), file).path.read_bytes()
    compiling.linking_runner = lambda *_: nullcontext(lambda: None)

    def stop(phase: str) -> None:
        if phase == "planning memory":
            raise _Enough

    def read(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(VitcError, _Enough):
            compiling.compile_model(file, "x86-64-v2", folder / "out", progress=stop)

    return whole, read


def _checkpoint(folder: Path, suffix: str) -> tuple[bytes, Body]:
    file, model = folder / f"m.{suffix}", random_model(CONFIG, 1)
    if suffix == "pth":
        torch.save({"state_dict": model.state_dict()}, file)
    else:
        save(model, file)

    def read(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(VitcError):
            vitc.load(file)

    return file.read_bytes(), read


def _manifest(folder: Path) -> tuple[bytes, Body]:
    export(random_model(CONFIG, 1), folder / "m.onnx")
    made = compiling.compile_model(folder / "m.onnx", "x86-64-v2", folder / "a")
    file = made.path / "manifest.json"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(VitcError):
            opened = Artefact.open(made.path)
            size = traced_bytes(opened.manifest.entries[0])
            if size < 1 << 20:
                opened.decode_trace(bytes(size), 1)

    # Without its white space a manifest is half as long, and mutations meet its content.
    return json.dumps(made.manifest.to_dict(), separators=(",", ":")).encode(), read


def _input(folder: Path, suffix: str) -> tuple[bytes, Body]:
    file, whole = folder / f"x.{suffix}", io.BytesIO()
    shown = Preprocessing.for_image_size(CONFIG.image_size)
    if suffix == "npy":
        np.save(whole, np.zeros((1, 3, 4, 4), np.float32))
    else:
        Image.new("RGB", (5, 4)).save(whole, "png")

    def read(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(VitcError):
            list(read_inputs([file], CONFIG, shown).batches(4))

    return whole.getvalue(), read


TARGETS: dict[str, Callable[[Path], tuple[bytes, Body]]] = {
    "onnx": _onnx,
    "safetensors": lambda folder: _checkpoint(folder, "safetensors"),
    "pickle": lambda folder: _checkpoint(folder, "pth"),
    "manifest": _manifest,
    "array": lambda folder: _input(folder, "npy"),
    "image": lambda folder: _input(folder, "png"),
}


def main() -> None:
    name, corpus, *options = sys.argv[1:]
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="vitc-fuzz."))
    whole, body = TARGETS[name](folder)
    body(whole)
    Path(corpus).mkdir(parents=True, exist_ok=True)
    (Path(corpus) / "whole").write_bytes(whole)
    limits = [
        f"-timeout={LONGEST_S}",
        f"-rss_limit_mb={LIBRARIES_MB + MOST_MB}",
        f"-max_len={2 * len(whole)}",
        f"-artifact_prefix={corpus}/../{name}-",
    ]
    atheris.Setup([sys.argv[0], *limits, *options, corpus], body)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
