"""Networks with an integer embedding: the same bits on every target and in every runtime."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitc
from tests.compiler.graphs import onnx_graph
from tests.processors import HOST
from vitc.compiler import compile_model
from vitc.compiler.pipeline import make_plan
from vitc.errors import VitcError
from vitc.exporter import export
from vitc.models import taps
from vitc.models.embedding import with_embedding
from vitc.models.initialise import random_model
from vitc.onnx_files import run_with_taps
from vitc.targets.table import find
from vitc.verify import CheckOptions, check

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).with_name("conftest.py"))
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)

PORT = 6
RNG = np.random.default_rng(5)


def pixels(config, count: int) -> np.ndarray:
    """Random bytes, and an image of the largest."""
    images = np.random.default_rng(2).integers(0, 256, (count, *config.input_shape))
    images[-1] = 255
    return images.astype(np.uint8)


def embedding_of(model, images: np.ndarray, name: str) -> np.ndarray:
    """What PyTorch makes of the images in fp32."""
    seen: dict[str, np.ndarray] = {}

    def keep(event: taps.TapEvent) -> None:
        seen.setdefault(event.name, event.value.numpy())

    with torch.no_grad(), taps.observe(keep):
        model.frozen()(torch.from_numpy(images))
    return seen[name]


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.array_equal(one.view(np.int32), other.view(np.int32))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model of patches of 4 px, and of 3 px that no vector fills, and its file; once each."""
    made = {}

    def make(embedding: str, patch: int):
        if (embedding, patch) not in made:
            sizes = {"depth": 1, "patch_size": patch, "width": 76, "si": False, "si_hidden": 0}
            config = shared.config(**sizes)
            model = with_embedding(random_model(config, 3), embedding)
            path = tmp_path_factory.mktemp("onnx") / "m.onnx"
            export(model, path)
            made[embedding, patch] = model, path
        return made[embedding, patch]

    return make


@pytest.mark.parametrize("target", [*HOST, *shared.EMULATED, "rpi5"])
@pytest.mark.parametrize(("embedding", "patch"), [("int15", 4), ("int8", 3)])
def test_every_target_has_the_bits_of_pytorch_and_onnx_runtime(
    exported, run, request, tmp_path, embedding, patch, target
):
    if target == "x86-amx":
        request.getfixturevalue("amx_artefacts")
    model, path = exported(embedding, patch)
    images = pixels(model.config, 3)
    wanted = embedding_of(model, images, "embedding")
    expected = run_with_taps(path, images, ["embedding", "patch_embed.sums"])
    assert same_bits(np.asarray(expected["embedding"]), wanted)
    sums = embedding_of(model, images, "patch_embed.sums")
    assert np.array_equal(np.asarray(expected["patch_embed.sums"]), sums)

    artefact = compile_model(path, target, tmp_path / "a")
    assert [str(port) for port in artefact.entry.inputs] == ["input uint8 [N, 3, 12, 12]"]
    assert artefact.manifest.config["embedding"] == embedding
    _, found = run(artefact, images)
    assert same_bits(found["embedding"], wanted)


@pytest.mark.parametrize("preset", ["micro", "micro-swin", "micro-pvt", "micro-nest"])
def test_every_backbone_is_compiled_and_checks(tmp_path, preset):
    model = vitc.new(preset, depth=1, seed=2)
    export(with_embedding(model, "int15"), tmp_path / "m.onnx")
    artefact = compile_model(tmp_path / "m.onnx", "native", tmp_path / "a")
    kernels = [step.kernel for step in artefact.entry.steps]
    assert kernels[0].startswith("vitc_byte_linear")
    report = check(artefact.path, model, CheckOptions(images=2, rebuild=False))
    assert report.equal, report.verdict
    assert report.rounded is not None
    assert (report.rounded.what, report.rounded.images) == ("int15 embedding", 2)
    # Random weights turn many bits where an image is flat, as one of the two is.
    assert 0 <= report.rounded.bits < 0.1


def test_c_interface_takes_bytes_and_no_floats(exported, tmp_path):
    model, path = exported("int15", 4)
    artefact = compile_model(path, "native", tmp_path / "a")
    images = pixels(model.config, 1)
    wanted = artefact(images)
    with pytest.raises(VitcError, match=r"holds float64, wanted uint8"):
        artefact(images / 255)
    library = ctypes.CDLL(str(artefact.library))
    handle, logits = ctypes.c_void_p(), np.zeros_like(wanted)
    assert library.vitc_create(1, ctypes.byref(handle)) == 0
    given, out = (a.ctypes.data_as(ctypes.c_void_p) for a in (images, logits))
    assert library.vitc_run_u8(handle, given, out) == 0
    assert np.array_equal(logits, wanted)
    assert library.vitc_run(handle, given, out) == PORT
    assert library.vitc_run_u8(handle, None, out) == 1
    library.vitc_destroy(handle)

    picture = Image.fromarray(np.moveaxis(images[0], 0, -1)).resize((50, 40))
    given = artefact.preprocess(picture)
    assert (given.dtype, given.shape) == (np.uint8, (1, 3, 12, 12))
    normal = artefact.preprocessing.apply(picture)
    assert np.array_equal(artefact.preprocessing.normalise(np.moveaxis(given[0], 0, -1)), normal)

    picture.save(tmp_path / "p.ppm")
    subprocess.run([artefact.runner, tmp_path / "p.ppm", tmp_path / "p.npy"], check=True)
    assert np.array_equal(np.load(tmp_path / "p.npy"), artefact(given))
    subprocess.run([artefact.runner, "--self-test"], check=True)

    np.save(tmp_path / "x.npy", images.astype(np.float32))
    done = subprocess.run(
        [artefact.runner, tmp_path / "x.npy", tmp_path / "y.npy"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "wanted uint8 in C order" in done.stderr) == (1, True)


def test_a_library_of_floats_takes_no_bytes(build, tmp_path):
    _, path = build(shared.config(depth=1, si=False, si_hidden=0))
    artefact = compile_model(path, "native", tmp_path / "a")
    library, handle = ctypes.CDLL(str(artefact.library)), ctypes.c_void_p()
    assert library.vitc_create(1, ctypes.byref(handle)) == 0
    memory = np.zeros(4096, np.uint8).ctypes.data_as(ctypes.c_void_p)
    assert library.vitc_run_u8(handle, memory, memory) == PORT
    library.vitc_destroy(handle)


def test_an_embedding_is_known_to_check(tmp_path):
    """A rounded network is not the network that it was rounded from, nor one of another width."""
    model = vitc.new("micro", depth=1)
    path = tmp_path / "m.onnx"
    export(with_embedding(model, "int8"), path)
    assert check(path, model, CheckOptions(images=1)).equal
    other = vitc.new("micro", depth=1, seed=9)
    assert not check(path, other, CheckOptions(images=1)).equal
    with pytest.raises(VitcError, match="embedding int8"):
        check(path, with_embedding(model, "int15"), CheckOptions(images=1))


def test_what_the_kernel_cannot_do_is_named():
    """Integers of bytes whose floats nobody makes, and a product of what is no image."""
    weight = RNG.integers(-128, 128, (1, 8, 5)).astype(np.int8)
    model = onnx_graph([1, 4, 5], [("vitc.ByteLinear", ["x", "w"], "y", {})], {"w": weight})
    with pytest.raises(VitcError, match="ByteLinear of layer of y"):
        make_plan(model, find("native"), [])
