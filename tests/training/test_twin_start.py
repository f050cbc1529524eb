"""What a twin gives to the network that begins with it or learns from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models import Network, build_network, load, preset, random_images, save
from vitc.models.architectures import twin_preset
from vitc.models.network import SPATIAL_SCALE
from vitc.training import TrainOptions, train
from vitc.training.dmjd.options import PRETRAINING
from vitc.training.drop_path import DropPath
from vitc.training.epoch_order import Share
from vitc.training.fine_tuning import FineTuning, fine_tuning
from vitc.training.losses import Losses, with_features
from vitc.training.objectives.classification import Classification
from vitc.training.teacher import FeatureTeacher, last_tokens, read_teacher
from vitc.training.twin_start import copy_twin, knows_classes


def quick(out: Path, data: Path, **changes: Any) -> TrainOptions:
    base = TrainOptions(
        out=out, data=str(data), depth=2, epochs=2, batch_size=5, warmup_epochs=1, seed=3
    )
    return dataclasses.replace(base, **changes)


def twin_of(name: str = "micro", *, labelled: bool = False, **sizes: Any) -> Network:
    torch.manual_seed(9)
    chosen = twin_preset(name)
    twin = build_network(chosen.config.replace(**sizes), chosen.preprocessing)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    if not labelled:
        twin.history = {PRETRAINING: {"method": "dmjd"}}
    return twin.eval()


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    save(twin_of(depth=2), tmp_path / "twin.safetensors")
    return tmp_path / "twin.safetensors"


@pytest.mark.parametrize("name", ["micro", "micro-swin", "micro-nest"])
def test_a_student_takes_whole_modules_that_mean_the_same(name: str) -> None:
    twin = twin_of(name)
    student = build_network(preset(name).config)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    said = copy_twin(twin, student)
    now, given = student.state_dict(), twin.state_dict()
    first = "blocks.0" if name == "micro" else "stages.0.blocks.0"
    for key in (f"{first}.attn.qkv.weight", f"{first}.attn.proj.bias", "patch_embed.proj.weight"):
        assert torch.equal(now[key], given[key])
        assert not torch.equal(now[key], before[key])
    # The MLP of the twin is wider; a bias alone would say nothing.
    for key in (f"{first}.mlp.fc2.bias", f"{first}.norm1.weight", "norm.weight", "head.weight"):
        if given[key].shape != now[key].shape or "norm" in key or key.startswith("head"):
            assert torch.equal(now[key], before[key])
    copied, new = said.partition("; new: ")[::2]
    assert "blocks.*.attn.qkv" in copied
    assert "blocks.*.norm1" in new
    assert "head" in new


def test_a_bias_is_not_taken_without_its_weight() -> None:
    student = build_network(preset("micro").config)
    before = student.state_dict()["blocks.0.mlp.fc2.bias"].clone()
    said = copy_twin(twin_of(), student)
    assert torch.equal(student.state_dict()["blocks.0.mlp.fc2.bias"], before)
    assert "mlp.fc2" in said.partition("; new: ")[2]
    assert "mlp.fc2" not in said.partition("; new: ")[0]
    same_ratio = build_network(preset("micro").config.replace(mlp_ratio=4))
    copy_twin(twin_of(), same_ratio)
    wanted = twin_of().state_dict()["blocks.1.mlp.fc2.bias"]
    assert torch.equal(same_ratio.state_dict()["blocks.1.mlp.fc2.bias"], wanted)


def test_norms_of_channels_are_not_taken_for_norms_of_as_many_tokens() -> None:
    sizes = {"image_size": 32, "patch_size": 8, "width": 17, "heads": 1}
    config = dataclasses.replace(preset("micro").config, **sizes, hidden=34)
    twin_config = dataclasses.replace(twin_preset("micro").config, **sizes, hidden=68)
    student, twin = build_network(config), build_network(twin_config)
    assert student.state_dict()["norm.weight"].shape == twin.state_dict()["norm.weight"].shape
    with torch.no_grad():
        twin.get_parameter("norm.weight").fill_(7)
    copy_twin(twin, student)
    assert not student.state_dict()["norm.weight"].eq(7).any()


def test_a_head_is_taken_only_where_it_was_trained_for_the_same_classes() -> None:
    for labelled, classes, taken in ((True, 10, True), (False, 10, False), (True, 7, False)):
        twin = twin_of(labelled=labelled)
        student = build_network(preset("micro").config.replace(classes=classes))
        copy_twin(twin, student)
        head = student.state_dict()["head.weight"]
        assert (head.shape == (10, 64) and torch.equal(head, twin.head.weight)) == taken


def test_a_twin_without_a_block_that_fits_is_refused() -> None:
    student = build_network(preset("micro-swin").config)
    with pytest.raises(VitcError, match="No block of"):
        copy_twin(twin_of(), student)


def test_a_run_begins_with_a_twin_and_learns_from_its_tokens(
    class_folders: Path, pretrained: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    options = quick(tmp_path / "s.safetensors", class_folders, start=pretrained, teacher=pretrained)
    objective = Classification(options, told.append)
    twin = load(pretrained)
    assert torch.equal(
        objective.model.state_dict()["blocks.1.attn.qkv.weight"],
        twin.state_dict()["blocks.1.attn.qkv.weight"],
    )
    scales = [v for k, v in objective.model.state_dict().items() if k.endswith(SPATIAL_SCALE)]
    assert all(bool((scale == 0.1).all()) for scale in scales)
    assert any(line.startswith("copied from") for line in told)
    assert any("knows no classes" in line for line in told)
    result = train(options)
    parts = result.history[-1].parts
    assert set(parts) == {"label", "features"}
    assert result.history[-1].loss == pytest.approx(sum(parts.values()))
    assert not load(result.checkpoint).history.get(PRETRAINING)


def test_tokens_of_teacher_and_student_are_compared_after_a_norm() -> None:
    own = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1))
    label = Losses(torch.tensor(2.0))
    assert float(with_features(label, own, 3 * own + 1).total) == pytest.approx(2, abs=1e-6)
    other = own.flip(0).requires_grad_()
    losses = with_features(label, other, own)
    a, b = (F.layer_norm(x, (8,)) for x in (other, own))
    wanted = F.smooth_l1_loss(a, b, beta=2.0)
    torch.testing.assert_close(losses.parts["features"], wanted)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert other.grad is not None
    assert other.grad.any()


def test_a_teacher_without_classes_gives_its_tokens_before_the_last_norm(
    pretrained: Path,
) -> None:
    chosen = preset("micro")
    student = build_network(chosen.config.replace(depth=2, classes=3), chosen.preprocessing)
    teacher = read_teacher(pretrained, student)
    assert isinstance(teacher, FeatureTeacher)
    images = random_images(student.config, 3, seed=2)
    given = teacher(images)
    twin = load(pretrained)
    with last_tokens(twin) as tokens, torch.no_grad():
        twin(images)
    torch.testing.assert_close(given, tokens[0])
    assert not given.requires_grad
    with pytest.raises(VitcError, match="17 tokens of 64 channels at its end"):
        read_teacher(pretrained, build_network(preset("micro-swin").config))


def test_a_twin_with_classes_still_teaches_them(class_folders: Path, tmp_path: Path) -> None:
    save(twin_of(labelled=True, depth=2, classes=3), tmp_path / "t.safetensors")
    options = quick(tmp_path / "s.safetensors", class_folders, teacher=tmp_path / "t.safetensors")
    assert set(train(options).history[-1].parts) == {"label", "distillation"}


def test_a_twin_is_fine_tuned_with_rates_that_fall_and_branches_that_drop(
    class_folders: Path, pretrained: Path, tmp_path: Path
) -> None:
    options = quick(
        tmp_path / "f.safetensors", class_folders, full_precision=True, start=pretrained
    )
    objective = Classification(options, lambda _: None)
    assert objective.fine == FineTuning(0.65, 0.1)
    rates = {
        id(p): group["lr"] / options.learning_rate
        for group in objective.optimizer().param_groups
        for p in group["params"]
    }
    named = dict(objective.model.named_parameters())
    for name, power in (
        ("pos_embed", 3),
        ("patch_embed.proj.weight", 3),
        ("blocks.0.attn.qkv.weight", 2),
        ("blocks.1.norm2.bias", 1),
        ("norm.weight", 0),
        ("head.bias", 0),
    ):
        assert rates[id(named[name])] == pytest.approx(0.65**power)
    result = train(options)
    assert load(result.checkpoint).labels == ("dark", "grey", "light")
    again = train(dataclasses.replace(options, out=tmp_path / "g.safetensors"))
    assert [r.loss for r in again.history] == [r.loss for r in result.history]


def test_usual_choices_depend_on_the_start(pretrained: Path) -> None:
    without, plain = load(pretrained), twin_of(labelled=True)
    base = TrainOptions(out=Path("x.safetensors"), full_precision=True)
    assert not knows_classes(without)
    assert fine_tuning(base, without) == FineTuning(0.65, 0.1)
    assert fine_tuning(base, plain) == FineTuning(1.0, 0.0)
    assert fine_tuning(base, None) == FineTuning(1.0, 0.0)
    chosen = dataclasses.replace(base, layer_decay=0.8, drop_path=0.0)
    assert fine_tuning(chosen, without) == FineTuning(0.8, 0.0)
    with pytest.raises(VitcError, match="row of blocks"):
        fine_tuning(chosen, twin_of("micro-swin"))
    with pytest.raises(VitcError, match="drop_path is of full-precision"):
        TrainOptions(out=Path("x.safetensors"), drop_path=0.1)
    for wrong in ({"layer_decay": 0.0}, {"layer_decay": 1.1}, {"drop_path": 1.0}):
        with pytest.raises(VitcError, match="must lie in"):
            dataclasses.replace(base, **wrong)


def test_branches_are_left_out_for_each_image_while_a_network_learns() -> None:
    twin = twin_of(depth=3)
    images = random_images(twin.config, 64, seed=3)
    with torch.no_grad():
        whole = twin(images)
    drop = DropPath(twin, 0.5)
    drop.share = Share.whole(64)
    seen: dict[int, list[Tensor]] = {}
    for index, block in enumerate(twin.blocks):
        block.mlp.register_forward_hook(
            lambda _, __, out, index=index: seen.setdefault(index, []).append(out)
        )
    twin.train()
    with torch.no_grad():
        twin(images)
        drop.draws = torch.Generator().manual_seed(0)
        twin(images)
        drop.draws.manual_seed(0)
        twin(images)
    rates = []
    for index in range(3):
        full, dropped, again = seen[index]
        assert torch.equal(dropped, again)
        gone = (dropped == 0).all(dim=(1, 2))
        rates.append(float(gone.float().mean()))
        if index == 0:
            torch.testing.assert_close(dropped, full)
    assert rates[0] == 0
    assert 0.1 < rates[1] < 0.4
    assert 0.3 < rates[2] < 0.7
    twin.eval()
    with torch.no_grad():
        torch.testing.assert_close(twin(images), whole)


def test_what_stays_is_scaled_so_that_the_mean_is_kept() -> None:
    twin = twin_of(depth=2)
    drop = DropPath(twin, 0.25)
    drop.draws = torch.Generator().manual_seed(1)
    drop.share = Share(1000, 5000, 6000)
    ones = torch.ones(4000, 2, 3)
    out = drop._drop(0.25, twin.train().blocks[1].mlp, None, ones)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(out.mean()) == pytest.approx(1, abs=0.05)
    # A process that has a part of the batch leaves out the same images as one that has all.
    drop.draws.manual_seed(1)
    drop.share = Share.whole(6000)
    whole = drop._drop(0.25, twin.blocks[1].mlp, None, torch.ones(6000, 2, 3))
    assert torch.equal(whole[1000:5000], out)
