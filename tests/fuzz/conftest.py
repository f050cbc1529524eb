"""What is damaged, and how long: `VITC_FUZZ_EXAMPLES=20000` tries that many of each, new ones.

Nothing but `VitcError` may come out, with no more than 2 GB; `guided.py` bounds the time as well.
"""

from __future__ import annotations

import datetime
import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.absent import need_gcc
from vitc.compiler import compile_model
from vitc.exporter import export
from vitc.models import ModelConfig, SIBiViT, save
from vitc.models.initialise import random_model
from vitc.runtime import Artefact

MORE = int(os.environ.get("VITC_FUZZ_EXAMPLES", "0"))
# Against hangs only: a machine may be loaded.
SLOWEST = datetime.timedelta(minutes=5)
MOST_MEMORY = 2_000_000_000
CONFIG = ModelConfig(
    image_size=4,
    patch_size=2,
    width=12,
    depth=1,
    heads=2,
    hidden=9,
    classes=3,
    si=True,
    si_hidden=5,
)
RUNTIME = Path(__file__).parents[2] / "toolchain" / "runtime"


def examples(short: int) -> settings:
    """`short` examples, the same in each run, unless more are asked for."""
    return settings(
        max_examples=MORE or short,
        derandomize=not MORE,
        database=None,
        deadline=SLOWEST,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def memory_stays_within_bounds():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < MOST_MEMORY


@pytest.fixture(scope="session")
def model() -> SIBiViT:
    return random_model(CONFIG, 1, labels=["a", "b", "c"])


@pytest.fixture(scope="session")
def onnx_bytes(model, tmp_path_factory) -> bytes:
    return export(model, tmp_path_factory.mktemp("onnx") / "m.onnx").path.read_bytes()


@pytest.fixture(scope="session")
def safetensors_bytes(model, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "m.safetensors"
    save(model, path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def pickle_bytes(model, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "m.pth"
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def artefact(onnx_bytes, tmp_path_factory) -> Artefact:
    folder = tmp_path_factory.mktemp("artefact")
    (folder / "m.onnx").write_bytes(onnx_bytes)
    return compile_model(folder / "m.onnx", "x86-64-v2", folder / "a")


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory):
    """Compile C programs with the system's compiler under sanitizers that end the program."""
    folder = tmp_path_factory.mktemp("sanitized")
    compiler = need_gcc()

    def build(name: str, *sources: Path) -> Path:
        out = folder / name
        done = subprocess.run(
            [
                compiler,
                "-std=gnu11",
                "-g",
                "-O1",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-fsanitize=address,undefined",
                "-fno-sanitize-recover=all",
                f"-I{RUNTIME}",
                *map(str, sources),
                "-lpthread",
                "-o",
                str(out),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, f"the compiler has no sanitizers? {done.stderr}"
        return out

    return build
