"""Checkpoints that claim more than they hold, or hold what no checkpoint has."""

from __future__ import annotations

import json
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vitc.errors import VitcError
from vitc.models import ModelConfig, load, pickle_limits, random_model, tensor_files


@pytest.fixture
def state(odd_config: ModelConfig) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in random_model(odd_config, 1).state_dict().items()}


def refusal(path: Path) -> str:
    with pytest.raises(VitcError) as caught:
        load(path)
    assert path.name in caught.value.message
    return caught.value.message


def test_a_tensor_that_repeats_one_number_is_refused(state, tmp_path):
    # A few bytes, a terabyte once it is copied.
    state["head.weight"] = torch.zeros(1, 1).expand(1 << 20, state["head.weight"].shape[1])
    state["head.bias"] = torch.zeros(1).expand(1 << 20)
    torch.save({"state_dict": state}, tmp_path / "m.pth")
    assert "not stored value by value: head.bias, head.weight" in refusal(tmp_path / "m.pth")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.bool])
def test_types_that_are_no_weights_are_refused(state, tmp_path, dtype):
    state["head.bias"] = torch.zeros(state["head.bias"].shape).to(dtype)
    torch.save({"state_dict": state}, tmp_path / "m.pth")
    assert "head.bias" in refusal(tmp_path / "m.pth")


def test_a_sparse_tensor_is_refused(state, tmp_path):
    state["head.weight"] = state["head.weight"].to_sparse()
    torch.save({"state_dict": state}, tmp_path / "m.pth")
    assert "head.weight" in refusal(tmp_path / "m.pth")


def test_values_beyond_fp32_are_named(state, tmp_path):
    state["head.bias"] = state["head.bias"].double()
    state["head.bias"][1] = 1e300
    save_file(state, tmp_path / "m.safetensors")
    assert "beyond fp32 in head.bias" in refusal(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 1 << 62),
        ("width", 1 << 20),
        ("width", 1.5),
        ("width", True),
        ("depth", 10**6),
        ("classes", "five"),
        ("hidden", [40]),
        ("scheme", ["bibert"]),
        ("scheme", {}),
        ("arch", {"a": 1}),
        ("bn_eps", "small"),
        ("bn_eps", float("nan")),
        ("si", 1),
        ("si_hidden", 1 << 40),
        ("weight_bits", [1]),
        ("heads", None),
    ],
)
def test_a_configuration_that_no_network_has_is_refused(odd_config, state, tmp_path, name, value):
    described = {"config": {**odd_config.to_dict(), name: value}}
    path = tmp_path / "m.safetensors"
    save_file(state, path, metadata={"vitc": json.dumps(described)})
    refusal(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop", 1 << 40),
        ("crop", 8.5),
        ("mean", 3),
        ("mean", ["a", "b", "c"]),
        ("std", [1.0, float("inf"), 1.0]),
        ("interpolation", ["bicubic"]),
    ],
)
def test_preprocessing_that_does_not_exist_is_refused(odd_config, tmp_path, name, value):
    model = random_model(odd_config, 1)
    described = {
        "config": odd_config.to_dict(),
        "preprocessing": {**model.preprocessing.to_dict(), name: value},
    }
    path = tmp_path / "m.safetensors"
    save_file(model.state_dict(), path, metadata={"vitc": json.dumps(described)})
    with pytest.raises(VitcError):
        load(path)


@pytest.mark.parametrize("described", ["[" * 100_000, "1" * 5000, "NaN"])
def test_a_description_that_json_chokes_on_is_refused(state, tmp_path, described):
    path = tmp_path / "m.safetensors"
    save_file(state, path, metadata={"vitc": described})
    refusal(path)


def header(content: Any, data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "Q7", "shape": [1], "data_offsets": [0, 4]}},
        {"a": 3},
        {"__metadata__": {"vitc": 3}},
        {"__metadata__": "x"},
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(header(content, bytes(4)))
    refusal(path)


@pytest.mark.parametrize("name", ["_MAX_BYTES", "_MAX_HEADER"])
def test_more_than_a_limit_is_refused(state, tmp_path, monkeypatch, name):
    save_file(state, tmp_path / "m.safetensors")
    monkeypatch.setattr(tensor_files, name, 100)
    refusal(tmp_path / "m.safetensors")


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "m.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(1 << 20))
    monkeypatch.setattr(tensor_files, "_MAX_BYTES", 1 << 19)
    assert "unpacks to" in refusal(path)


def test_an_archive_with_a_damaged_directory_is_refused(state, tmp_path):
    path = tmp_path / "m.pth"
    torch.save({"state_dict": state}, path)
    data = bytearray(path.read_bytes())
    start = data.rindex(b"PK\x01\x02")
    data[start : start + 46] = b"\xff" * 46
    path.write_bytes(data)
    refusal(path)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_of_too_many_steps_is_refused_before_it_is_read(
    state, tmp_path, monkeypatch, legacy
):
    path = tmp_path / "m.pth"
    extra = {"state_dict": state, "lists": [[] for _ in range(4000)]}
    torch.save(extra, path, _use_new_zipfile_serialization=not legacy)
    assert load(path).config.depth > 0
    monkeypatch.setattr(pickle_limits, "MAX_OPERATIONS", 4000)
    monkeypatch.setattr(torch, "load", None)
    assert "more than 4000 steps" in refusal(path)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(("width", "depth"), [(2, 40), (1000, 4)])
def test_tuples_that_double_and_double_are_refused_before_one_is_hashed(
    state, tmp_path, monkeypatch, width, depth, legacy
):
    key: tuple[object, ...] = ()
    for _ in range(depth):
        key = (key,) * width

    # As a key it would be hashed when the file is read; here it is only held, since torch.save
    # would hash it as well.
    path = tmp_path / "m.pth"
    extra = {"state_dict": state, "deep": [key]}
    torch.save(extra, path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.setattr(torch, "load", None)
    assert "nests tuples beyond" in refusal(path)


def test_sizes_follow_every_operation_of_a_pickle():
    pair = (2, 3)
    values = [
        ((1, pair), 5),
        ((pair, pair, pair), 10),
        (([1, 2, 3], {4: 5}, {6: [7, 8]}), 4),
        ({"a": (1, 2), "b": [(3, 4)]}, 1),
    ]
    for value, entries in values:
        for protocol in range(6):
            sizes = pickle_limits._Sizes()
            stream = pickle.dumps(value, protocol)
            seen = [sizes.after(o, a) for o, a, _ in pickletools.genops(stream)]
            assert not sizes._stack, (value, protocol)  # what was put was taken
            assert seen[-2] == entries, (value, protocol)
