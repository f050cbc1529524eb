from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitc.errors import VitcError
from vitc.models import ModelConfig, SIBiViT, load, preset, random_images, random_model, save
from vitc.models.initialise import random_model as make


@pytest.fixture
def state(odd_config: ModelConfig) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in random_model(odd_config, 1).state_dict().items()}


def saved(folder: Path, state: dict[str, Tensor]) -> Path:
    path = folder / "model.safetensors"
    save_file(state, path)
    return path


def error_of(path: Path, **options: Any) -> VitcError:
    with pytest.raises(VitcError) as caught:
        load(path, **options)
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message
    return caught.value


def test_configuration_follows_from_the_shapes(
    odd_config: ModelConfig, state: dict[str, Tensor], tmp_path: Path
) -> None:
    model = load(saved(tmp_path, state))
    assert model.config == odd_config
    assert not model.training
    images = random_images(odd_config, 2)
    assert torch.equal(model(images), random_model(odd_config, 1)(images))


def test_own_files_come_back_with_everything(odd_config: ModelConfig, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = random_model(odd_config, 2, labels=["a", "b", "ç", "d e", ""])
    model.history = {"epoch": 3, "accuracy": 0.5}
    save(model, path)
    got = load(path)
    assert got.config == model.config
    assert got.preprocessing == model.preprocessing
    assert got.labels == ("a", "b", "ç", "d e", "")
    assert got.history == model.history
    assert got.source_path == path
    assert got.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, got.state_dict()[name]), name
    assert all(p.requires_grad for p in got.parameters())


def test_the_same_model_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    model = random_model(preset("micro").config, 3)
    save(model, tmp_path / "a.safetensors")
    save(load(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vitc.models.checkpoint.save_file", fail)
    with pytest.raises(VitcError, match="No space"):
        save(SIBiViT(preset("micro").config), path, force=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = random_model(preset("micro").config.replace(depth=1))
    save(model, path)
    before = path.stat()
    with pytest.raises(VitcError, match="exists already"):
        save(model, path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    save(model, path, force=True)
    assert path.stat().st_ino != before.st_ino
    assert path.stat().st_mode == before.st_mode


@pytest.mark.parametrize(
    ("name", "message"), [("m.onnx", "safetensors"), ("no/m.safetensors", "cannot be written")]
)
def test_unwritable_names_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(VitcError, match=message):
        save(SIBiViT(preset("micro").config), tmp_path / name)


def test_frozen_model_is_not_saved_as_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(VitcError, match="latent"):
        save(random_model(preset("micro").config).frozen(), tmp_path / "m.safetensors")


def official(path: Path, state: dict[str, Tensor], **more: Any) -> Path:
    content = {
        "epoch": 3,
        "arch": "vit_tiny_patch16_224_1w1a",
        "state_dict": {f"module.{k}": v for k, v in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "version": 2,
        "args": argparse.Namespace(model="vit", lr=0.1),
        **more,
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", ["c.pth.tar", "c.pth"])
def test_official_container_with_namespace_and_module_prefix_loads(
    odd_config: ModelConfig, state: dict[str, Tensor], tmp_path: Path, name: str
) -> None:
    model = load(official(tmp_path / name, state))
    assert model.config == odd_config
    assert torch.equal(model.head.weight, state["head.weight"])


def test_ema_weights_are_taken_only_on_request(state: dict[str, Tensor], tmp_path: Path) -> None:
    ema = {k: v + 1 if k == "head.bias" else v for k, v in state.items()}
    path = official(tmp_path / "c.pth.tar", state, state_dict_ema=ema)
    plain = load(path)
    assert torch.equal(plain.head.bias, state["head.bias"])
    assert plain.load_report is not None
    assert "left" in " ".join(plain.load_report.notes)
    assert torch.equal(load(path, ema=True).head.bias, state["head.bias"] + 1)


def test_ema_that_is_not_there_is_an_error(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = official(tmp_path / "c.pth.tar", state)
    assert "state_dict_ema" in error_of(path, ema=True).message
    assert "EMA" in error_of(saved(tmp_path, state), ema=True).message


class _Runs:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.flag),)


def test_pickled_code_is_refused_and_not_run(state: dict[str, Tensor], tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    path = official(tmp_path / "c.pth.tar", state, extra=_Runs(flag))
    assert "posix.mkdir" in error_of(path).message
    assert not flag.exists()


def test_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    path = tmp_path / "c.pth"
    path.write_bytes(pickle.dumps({"state_dict": _Runs(flag)}))
    error_of(path)
    assert not flag.exists()


def test_batch_counters_may_be_missing(state: dict[str, Tensor], tmp_path: Path) -> None:
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    load(saved(tmp_path, kept))


def test_everything_that_does_not_fit_is_listed_in_one_error(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    del state["blocks.1.attn.movefc.bias"]
    del state["norm.running_mean"]
    state["blocks.0.extra.weight"] = torch.zeros(2)
    state["head.bias"] = torch.zeros(7)
    state["cls_token"] = torch.zeros(1, 1, 21, dtype=torch.int32)
    message = error_of(saved(tmp_path, state)).message
    for part in (
        "missing: blocks.1.attn.movefc.bias, norm.running_mean",
        "unexpected: blocks.0.extra.weight",
        "head.bias is (7,), wanted (5,)",
        "cls_token is torch.int32",
    ):
        assert part in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_tensor_is_named(state: dict[str, Tensor], tmp_path: Path, bad: float) -> None:
    state["blocks.1.mlp.prelu.weight"][3] = bad
    message = error_of(saved(tmp_path, state)).message
    assert "blocks.1.mlp.prelu.weight" in message
    assert "head" not in message


def test_negative_variance_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["norm.running_var"][0] = -1
    assert "norm.running_var" in error_of(saved(tmp_path, state)).message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_fp32(
    state: dict[str, Tensor], tmp_path: Path, dtype: torch.dtype
) -> None:
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    model = load(saved(tmp_path, cast))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.head.weight, cast["head.weight"].float())


def test_exactly_centred_weights_are_counted(state: dict[str, Tensor], tmp_path: Path) -> None:
    before = load(saved(tmp_path, state)).load_report
    state["blocks.1.attn.proj.weight"][2] = 0.25
    after = load(saved(tmp_path, state)).load_report
    assert before is not None
    assert after is not None
    assert before.zero_weights == {}
    assert after.zero_weights == {"blocks.1.attn.proj": 21}
    assert after.weights == sum(v.numel() for k, v in state.items() if _is_binary(k))


def _is_binary(name: str) -> bool:
    return name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")) and (
        "patch" not in name
    )


def test_full_precision_weights_can_be_loaded_as_such(
    odd_config: ModelConfig, state: dict[str, Tensor], tmp_path: Path
) -> None:
    model = load(saved(tmp_path, state), weight_bits=32)
    images = random_images(odd_config, 2)
    assert model.config.weight_bits == 32
    assert not torch.equal(model(images), load(saved(tmp_path, state))(images))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
@pytest.mark.parametrize("part", [1, 7, 9, 100, 0.5, 0.99, -1])
def test_truncated_file_is_one_clear_error(tmp_path: Path, suffix: str, part: float) -> None:
    whole = tmp_path / f"whole{suffix}"
    model = make(preset("micro").config.replace(depth=1))
    if suffix == ".safetensors":
        save(model, whole)
    else:
        official(whole, model.state_dict())
    content = whole.read_bytes()
    cut = int(len(content) * part) if 0 < part < 1 else int(part)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[:cut])
    assert str(path) in error_of(path).message


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar", ".pth"])
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 64, b"not a checkpoint at all", bytes(range(256)) * 8, b"PK\3\4junk"]
)
def test_garbage_is_one_clear_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"garbage{suffix}"
    path.write_bytes(content)
    assert str(path) in error_of(path).message


def test_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    assert "header" in error_of(path).message


def test_missing_file_directory_and_foreign_name_are_told_apart(tmp_path: Path) -> None:
    assert "no checkpoint" in error_of(tmp_path / "none.safetensors").message
    assert "directory" in error_of(tmp_path).message
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert "not named like" in error_of(tmp_path / "m.onnx").message


def test_state_dict_of_another_network_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"conv1.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(2)})
    message = error_of(path).message
    assert "not the state dict of an SI-BiViT" in message
    assert str(path) in message


def test_absurd_block_number_is_refused_at_once(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["blocks.999999999.x"] = torch.zeros(1)
    assert "999999999" in error_of(saved(tmp_path, state)).message


@pytest.mark.parametrize(
    "described",
    [
        "not json",
        "[]",
        json.dumps({"config": {}}),
        json.dumps({"config": {**preset("micro").config.to_dict(), "width": "64"}}),
        json.dumps({"config": preset("micro").config.to_dict(), "labels": "abc"}),
        json.dumps({"config": preset("micro").config.to_dict(), "preprocessing": {"resize": 1}}),
        json.dumps({"config": preset("micro").config.to_dict(), "history": 3}),
        json.dumps({"config": preset("micro").config.replace(classes=11).to_dict()}),
    ],
)
def test_damaged_description_is_refused(tmp_path: Path, described: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file(random_model(preset("micro").config).state_dict(), path, {"vitc": described})
    error_of(path)


def test_unknown_scheme_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    error = error_of(saved(tmp_path, state), scheme="nope")
    assert "'nope'" in error.message
    assert "bibert" in str(error.hint)


def test_scheme_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(random_model(preset("micro").config), path)
    assert "bibert" in error_of(path, scheme="other").message


def test_golden_content_survives_a_round_trip_through_own_files(
    golden: Path, tmp_path: Path
) -> None:
    model = load(golden / "si_micro.safetensors")
    save(model, tmp_path / "m.safetensors")
    source = load_file(golden / "si_micro.safetensors")
    copy = load_file(tmp_path / "m.safetensors")
    assert source.keys() == copy.keys()
    assert all(torch.equal(source[name], copy[name]) for name in source)
