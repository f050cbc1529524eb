"""Full-precision twins, and checkpoints of other programs that become twins."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.models.twin_checkpoints import (
    CONFIGS,
    DEIT,
    NEST,
    SOURCES,
    STATED,
    SWIN,
    random_twin,
    theirs,
    written,
)
from vitc import load_twin
from vitc.errors import VitcError
from vitc.models import Network, build_network, config_from_dict, load, random_model, save
from vitc.models.architectures import PRESETS, TWINS, account
from vitc.models.architectures.twin import TwinConfig
from vitc.models.twins.loading import load_teacher, understand

GOLDEN = (
    "hf_vit",
    "hf_deit_distilled",
    "hf_swin_w7",
    "hf_swin_w4",
    "hf_pvt",
    "pvt_original",
    "timm_deit",
    "timm_swin_w7",
    "timm_nest",
    "timm_nest_jx",
)
KEYS = (
    "hf_Xrenya_pvt_tiny_224",
    "hf_facebook_deit_small_distilled_patch16_224",
    "hf_facebook_deit_small_patch16_224",
    "hf_google_vit_base_patch16_224",
    "hf_microsoft_swin_tiny_patch4_window7_224",
    "timm_deit_small_distilled_patch16_224",
    "timm_deit_small_patch16_224",
    "timm_nest_tiny",
    "timm_nest_tiny_jx",
    "timm_swin_tiny_patch4_window7_224",
    "timm_vit_small_patch16_224",
    "whai362_pvt_tiny",
)
TOLERANCE = 1e-5
EXACT = 5e-7
"""Of values that were stored as float32."""


def images(config: TwinConfig, count: int = 2) -> Tensor:
    return torch.randn(count, *config.input_shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def twins_golden(golden: Path) -> Path:
    return golden / "twins"


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_logits_of_each_source_are_those_of_the_twin(twins_golden: Path, name: str) -> None:
    expected = load_file(twins_golden / f"{name}.expected.safetensors")
    model = load_twin(twins_golden / f"{name}.safetensors")
    with torch.no_grad():
        logits = model(expected["input"])
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=TOLERANCE)


def _places(model: Network) -> dict[str, nn.Module]:
    """Modules whose outputs the golden files hold, by the name there."""
    parts = dict(model.named_modules())
    found = {"norm": model.norm}
    stages = [parts] if "blocks" in parts else list(model.stages)
    for s, stage in enumerate(stages):
        blocks = stage["blocks"] if isinstance(stage, dict) else stage.blocks
        for i, block in enumerate(blocks):
            found[f"block.{s}.{i}"] = block
            found[f"mlp.{s}.{i}"] = block.mlp
    for s, stage in enumerate([] if isinstance(stages[0], dict) else stages):
        if hasattr(stage, "merge"):
            found[f"merge.{s - 1}"] = stage.merge
        if hasattr(stage, "pool"):
            found[f"pool.{s}"] = stage.pool
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values_inside_are_those_of_the_twin(twins_golden: Path, name: str) -> None:
    expected = load_file(twins_golden / f"{name}.expected.safetensors")
    model = load_twin(twins_golden / f"{name}.safetensors").double()
    seen: dict[str, Tensor] = {}

    def keep(place: str) -> Callable[..., None]:
        return lambda _, __, output: seen.__setitem__(place, output)

    for place, module in _places(model).items():
        if place in expected:
            module.register_forward_hook(keep(place))
    with torch.no_grad():
        logits = model(expected["input"].double())
    # In float64 a constant of a norm that is another source's shows: 1.4e-6 of DeiT, 5e-6 of PVT.
    wanted = expected["logits"].double()
    room = EXACT * max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(logits, wanted, rtol=0, atol=room)
    blocks = [place for place in expected if place.startswith("block.")]
    assert blocks
    assert set(blocks) <= seen.keys()
    for place, value in seen.items():
        theirs_of = expected[place].double()
        if place.startswith("pool."):
            theirs_of = theirs_of.permute(0, 2, 3, 1)  # timm's maps have channels first
        size = max(1.0, float(theirs_of.abs().max()))
        flat = theirs_of.reshape(value.shape)
        torch.testing.assert_close(value, flat, rtol=0, atol=TOLERANCE * size, msg=place)


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("which", ["keys", "in_memory_v5"])
def test_golden_names_and_shapes_of_published_networks_are_understood(
    twins_golden: Path, name: str, which: str
) -> None:
    listed = json.loads((twins_golden / "keys" / f"{name}.json").read_text())
    shapes = dict(listed["keys"])
    if which in listed and which != "keys":
        # Names only; the order of tensors is that of the list of files.
        plain = [key for key in shapes if not key.endswith("relative_position_index")]
        renamed = _by_suffix(plain, listed[which])
        shapes = {renamed[key]: shapes[key] for key in plain}
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    found = understand(Path(name), tensors, {})
    with torch.device("meta"):
        wanted = build_network(found.config).state_dict()
    assert {k: v.shape for k, v in found.tensors.items()} == {k: v.shape for k, v in wanted.items()}
    eps = listed["layer_norm_eps"]
    assert found.config.bn_eps == (eps[0] if isinstance(eps, list) else eps)
    if "base" in name:
        assert found.config.heads == 12


def _by_suffix(files: list[str], memory: list[Any]) -> dict[str, str]:
    names = [entry if isinstance(entry, str) else entry[0] for entry in memory]
    names = [name for name in names if not name.endswith("relative_position_index")]
    assert len(names) == len(files)
    words = {
        "attention.attention.": "attention.",
        "attention.self.": "attention.",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        ".encoder.layer.": ".layers.",
        "query": "q_proj",
        "key": "k_proj",
        "value": "v_proj",
        "attention.relative_position_bias_table": (
            "attention.relative_position_bias.relative_position_bias_table"
        ),
    }
    found = {}
    for name in files:
        new = name
        if new not in names:
            for old, word in words.items():
                new = new.replace(old, word)
        assert new in names, new
        found[name] = new
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_a_checkpoint_of_each_source_computes_what_it_was_made_from(
    source: str, tmp_path: Path
) -> None:
    entry = SOURCES[source]
    side = 1e-3 if source == "Hugging Face PVT" else entry.assumed.get("side_eps", 1e-6)
    config = dataclasses.replace(CONFIGS[entry.twin], bn_eps=1e-3, side_eps=side)
    model = random_twin(config)
    read = load_twin(written(tmp_path, source, theirs(model, entry)))
    assert read.config == config
    x = images(config)
    with torch.no_grad():
        assert torch.equal(read(x), model(x))
    assert f"the names are those of {source}" in read.load_report.notes


@pytest.mark.parametrize("arch", CONFIGS)
def test_own_checkpoints_of_twins_come_back(arch: str, tmp_path: Path) -> None:
    config = CONFIGS[arch]
    model = random_twin(config)
    save(model, tmp_path / "own.safetensors")
    x = images(config)
    for read in (load(tmp_path / "own.safetensors"), load_twin(tmp_path / "own.safetensors")):
        assert read.config == config
        with torch.no_grad():
            assert torch.equal(read(x), model(x))


@pytest.mark.parametrize("arch", CONFIGS)
def test_the_account_of_a_twin_has_its_parameters(arch: str) -> None:
    config = CONFIGS[arch]
    with torch.device("meta"):
        network = build_network(config)
    assert account(config).parameters == sum(p.numel() for p in network.parameters())
    assert not account(config).binary_macs


@pytest.mark.parametrize("arch", CONFIGS)
def test_a_configuration_of_a_twin_is_written_and_read(arch: str) -> None:
    config = CONFIGS[arch]
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("arch", CONFIGS)
def test_shapes_of_a_twin_tell_all_but_heads_and_constants(arch: str) -> None:
    config = CONFIGS[arch]
    state = random_twin(config).state_dict()
    sizes = TWINS[arch].sizes({name: tuple(tensor.shape) for name, tensor in state.items()})
    assert sizes.items() <= {k: getattr(config, k) for k in sizes}.items()


def test_two_shifted_windows_of_a_map_do_not_attend_across_its_borders() -> None:
    model = random_twin(SWIN)
    block = model.stages[0].blocks[1]
    x = torch.randn(1, 144, 12, generator=torch.Generator().manual_seed(2)).requires_grad_()
    at = 143  # the last place of the map, rolled into a window with the first
    block(x)[0, at].sum().backward()
    reached = {place for place in range(144) if x.grad[0, place].abs().sum() > 1e-20}
    # Windows of 3 shifted by 1: the last window begins behind row 9, and holds no rolled row.
    assert reached == {12 * row + column for row in (10, 11) for column in (10, 11)}


def test_pooling_around_and_pooling_below_and_right_differ() -> None:
    state = random_twin(NEST).state_dict()
    x = images(NEST)
    logits = []
    for pad_type in ("same", ""):
        model = build_network(dataclasses.replace(NEST, pad_type=pad_type)).eval()
        model.load_state_dict(state)
        with torch.no_grad():
            logits.append(model(x))
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_what_nothing_is_computed_with_is_skipped_and_said(tmp_path: Path) -> None:
    source = SOURCES["Hugging Face Swin"]
    tensors = theirs(random_twin(SWIN), source)
    tensors["swin.embeddings.mask_token"] = torch.zeros(1, 1, 12)
    tensors["swin.encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(
        9, 9, dtype=torch.int64
    )
    notes = load_twin(written(tmp_path, source.name, tensors)).load_report.notes
    assert any("skipped" in note and "mask_token" in note for note in notes)
    assert any("skipped" in note and "relative_position_index" in note for note in notes)


def test_missing_tensors_and_strange_ones_are_listed_by_their_names(tmp_path: Path) -> None:
    source = SOURCES["Hugging Face ViT"]
    tensors = theirs(random_twin(DEIT), source)
    del tensors["vit.encoder.layer.1.attention.attention.key.bias"]
    tensors["vit.encoder.layer.0.gamma"] = torch.zeros(21)
    with pytest.raises(VitcError) as caught:
        load_twin(written(tmp_path, source.name, tensors))
    assert "missing: vit.encoder.layer.1.attention.attention.key.bias" in caught.value.message
    assert "unexpected: vit.encoder.layer.0.gamma" in caught.value.message


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("lost", ["head", "mlp.fc1", "norm1", "proj"])
def test_a_checkpoint_without_a_tensor_is_one_error_that_names_it(
    source: str, lost: str, tmp_path: Path
) -> None:
    entry = SOURCES[source]
    model = random_twin(CONFIGS[entry.twin])
    tensors = theirs(model, entry)
    ours = next(n for n in model.state_dict() if f"{lost}.weight" in n or n == f"{lost}.weight")
    name = next(e.backward(ours) for e in entry.names if e.backward(ours) is not None)
    del tensors[name]
    with pytest.raises(VitcError) as caught:
        load_twin(written(tmp_path, source, tensors))
    assert name in caught.value.message or "of no source" in caught.value.message


def test_a_configuration_of_another_network_is_refused(tmp_path: Path) -> None:
    source = SOURCES["Hugging Face ViT"]
    tensors = theirs(random_twin(DEIT), source)
    with pytest.raises(VitcError, match="depth is 3 there and 2 by the tensors"):
        load_twin(written(tmp_path, source.name, tensors, num_hidden_layers=3))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"hidden_act": "gelu_new"}, "activation 'gelu_new'"),
        ({"num_attention_heads": 4}, "not a multiple of 4 heads"),
        ({"num_attention_heads": "3"}, "heads must be a positive integer"),
        ({"layer_norm_eps": -1}, "bn_eps must be positive"),
        ({"image_size": 1 << 19}, "by the tensors"),
    ],
)
def test_what_a_twin_cannot_compute_is_one_sentence(
    stated: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = SOURCES["Hugging Face ViT"]
    file = written(tmp_path, source.name, theirs(random_twin(DEIT), source), **stated)
    with pytest.raises(VitcError, match=message):
        load_twin(file)


def test_an_image_that_takes_all_memory_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    source = SOURCES["timm Swin"]
    file = written(tmp_path, source.name, theirs(random_twin(SWIN), source), img_size=3 << 18)
    with pytest.raises(VitcError, match="more than vitc takes"):
        load_twin(file)


def test_heads_that_nobody_states_are_asked_for(tmp_path: Path) -> None:
    tensors = theirs(random_twin(DEIT), SOURCES["timm DeiT or ViT"])
    save_file(tensors, tmp_path / "bare.safetensors")
    with pytest.raises(VitcError, match="how many attention heads") as caught:
        load_twin(tmp_path / "bare.safetensors")
    assert caught.value.hint is not None
    assert "num_heads" in caught.value.hint


def test_a_folder_of_the_hub_is_read_with_its_labels_and_preprocessing(tmp_path: Path) -> None:
    source = SOURCES["Hugging Face ViT"]
    model = random_twin(DEIT)
    save_file(theirs(model, source), tmp_path / "model.safetensors")
    labels = {str(i): name for i, name in enumerate("abcde")}
    stated = {**STATED[source.name], "id2label": labels, "layer_norm_eps": 1e-6}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3, "size": 12})
    )
    read = load_twin(tmp_path)
    assert read.labels == tuple("abcde")
    assert read.preprocessing.mean == (0.5, 0.5, 0.5)
    assert read.preprocessing.std == (0.25, 0.25, 0.25)
    assert (read.preprocessing.interpolation, read.preprocessing.resize) == ("bicubic", 12)
    x = images(DEIT)
    with torch.no_grad():
        assert torch.equal(load_teacher(tmp_path)(x), model(x))


def test_timm_files_of_the_hub_state_size_pooling_and_preprocessing(tmp_path: Path) -> None:
    source = SOURCES["timm NesT"]
    save_file(theirs(random_twin(NEST), source), tmp_path / "model.safetensors")
    stated = {
        "architecture": "nest_tiny_jx",
        "model_args": {"num_heads": [2, 3, 6]},
        "pretrained_cfg": {
            "input_size": [3, 24, 24],
            "crop_pct": 0.5,
            "interpolation": "bilinear",
            "mean": [0.1, 0.2, 0.3],
            "std": [1.0, 2.0, 3.0],
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(stated))
    read = load_twin(tmp_path)
    assert read.config == NEST
    assert (read.preprocessing.resize, read.preprocessing.crop) == (48, 24)
    assert read.preprocessing.mean == (0.1, 0.2, 0.3)
    (tmp_path / "config.json").write_text(json.dumps({**stated, "architecture": "nest_tiny"}))
    assert load_twin(tmp_path).config == dataclasses.replace(NEST, pad_type="")


def test_a_wrapped_file_of_torch_save_is_unwrapped(tmp_path: Path) -> None:
    source = SOURCES["timm DeiT or ViT"]
    model = random_twin(DEIT)
    wrapped = {f"net.module.{name}": tensor for name, tensor in theirs(model, source).items()}
    torch.save({"model": wrapped, "epoch": 3}, tmp_path / "x.pth")
    (tmp_path / "x.json").write_text(json.dumps({"num_heads": 3}))
    read = load_twin(tmp_path / "x.pth")
    x = images(DEIT)
    with torch.no_grad():
        assert torch.equal(read(x), model(x))
    assert any("the prefix net. was taken off" in note for note in read.load_report.notes)


class _Runs:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_pickled_code_of_another_program_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = theirs(random_twin(DEIT), SOURCES["timm DeiT or ViT"])
    torch.save({"model": tensors, "optimizer": _Runs()}, tmp_path / "x.pth")
    with pytest.raises(VitcError, match="cannot be read safely"):
        load_twin(tmp_path / "x.pth")
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"hidden_act": '])
def test_a_damaged_configuration_is_one_clear_error(content: str, tmp_path: Path) -> None:
    source = SOURCES["timm DeiT or ViT"]
    file = written(tmp_path, source.name, theirs(random_twin(DEIT), source))
    file.with_suffix(".json").write_text(content)
    with pytest.raises(VitcError, match="is not"):
        load_twin(file)


def test_other_networks_are_refused_in_one_sentence(tmp_path: Path) -> None:
    save_file({"stem.weight": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(VitcError, match=r"of no source that vitc knows .*stem\.weight"):
        load_twin(tmp_path / "resnet.safetensors")
    with pytest.raises(VitcError, match=r"has no model\.safetensors"):
        load_twin(tmp_path)
    save(random_model(PRESETS["micro"].config), tmp_path / "own.safetensors")
    with pytest.raises(VitcError, match="wanted a full-precision network"):
        load_twin(tmp_path / "own.safetensors")
    assert load_teacher(tmp_path / "own.safetensors").config == PRESETS["micro"].config


def test_a_bare_binarized_state_dict_is_no_twin(tmp_path: Path) -> None:
    model = random_model(PRESETS["micro"].config)
    save_file(dict(model.state_dict()), tmp_path / "bare.safetensors")
    with pytest.raises(VitcError, match="of no source"):
        load_twin(tmp_path / "bare.safetensors")
    assert load_teacher(tmp_path / "bare.safetensors").config == model.config


@pytest.mark.parametrize(
    ("arch", "changed", "message"),
    [
        ("float-deit", {"si": True}, "no SI"),
        ("float-deit", {"weight_bits": 1}, "32-bit"),
        ("float-deit", {"patch_size": 5}, "multiple"),
        ("float-deit", {"distilled_head": True}, "needs that token"),
        ("float-swin", {"heads": (2, 5)}, "not a multiple of 5 heads"),
        ("float-swin", {"depths": (2,)}, "different numbers of stages"),
        ("float-swin", {"window": (5, 5)}, "no whole windows"),
        ("float-swin", {"widths": [12, 18]}, "widths must be positive integers"),
        ("float-pvt", {"reductions": (4, 3, 2, 2)}, "R is 1"),
        ("float-pvt", {"reductions": (4, 3, 5, 1)}, "not reduced by 5"),
        ("float-pvt", {"patch_sizes": (2, 2, 2, 4)}, "not cut into patches"),
        ("float-nest", {"pad_type": "valid"}, "pad_type is 'valid'"),
        ("float-nest", {"image_size": 20}, "not halved"),
    ],
)
def test_sizes_that_contradict_each_other_are_one_sentence(
    arch: str, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(VitcError, match=message):
        dataclasses.replace(CONFIGS[arch], **changed)
