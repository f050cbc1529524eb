"""Pre-training without labels: its data, its files, its repeatability, what it learns."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitc.errors import VitcError
from vitc.models import Preprocessing, build_network, load, save
from vitc.models.architectures import twin_preset
from vitc.training.dmjd.masking import Masking
from vitc.training.dmjd.options import METHODS, PretrainOptions
from vitc.training.dmjd.picture import hidden, rebuilt
from vitc.training.dmjd.run import pretrain
from vitc.training.dmjd.target_kinds import Features
from vitc.training.dmjd.targets import patched, pixel_targets, unpatched
from vitc.training.epoch_order import Share
from vitc.training.objectives.pretraining import Pretraining
from vitc.training.options import EpochReport
from vitc.training.parts import load_parts
from vitc.training.pictures import Crops, Pictures, Source, crop_box, find_sources


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quick(out: Path, data: Path, **changes: Any) -> PretrainOptions:
    base = PretrainOptions(out=out, data=str(data), depth=1, epochs=3, batch_size=6, seed=5)
    return dataclasses.replace(base, **changes)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of many shapes without classes."""
    folder = tmp_path / "own photos"
    (folder / "2024" / "may").mkdir(parents=True)
    random = np.random.default_rng(6)
    for index in range(13):
        shape = (int(random.integers(20, 90)), int(random.integers(20, 90)), 3)
        coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        place = folder / "2024" / "may" if index % 3 else folder
        coarse.resize((shape[1], shape[0])).save(place / f"{index:02d}.png")
    return folder


@pytest.mark.parametrize("method", list(METHODS))
def test_a_run_writes_a_twin_a_curve_a_history_and_a_picture(
    method: str, photos: Path, tmp_path: Path
) -> None:
    reports: list[EpochReport] = []
    told: list[str] = []
    options = quick(tmp_path / "t.safetensors", photos, method=method, pictures_every=2)
    result = pretrain(options, reports.append, note=told.append)
    views = METHODS[method].views
    assert result.images == 13
    assert result.effective_epochs == 3 * views
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert set(result.parts) == {"invisible", "visible"} if views == 2 else {"invisible"}
    assert result.loss == pytest.approx(sum(result.parts.values()))
    for file in (result.curve, result.shown):
        with Image.open(file) as picture:
            assert picture.format == "PNG"
    written = json.loads(result.history_file.read_text())
    assert [entry["loss"] for entry in written["epochs"]] == [r.loss for r in reports]
    twin = load(result.checkpoint)
    assert twin.config.arch == "float-deit"
    assert twin.history["pretraining"]["method"] == method
    assert twin.history["epoch"] == 3
    assert twin.labels is None
    assert any("13 pictures" in line for line in told)
    assert not [name for name in twin.state_dict() if "reconstructor" in name]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load(path).state_dict()


def test_a_seed_repeats_a_run_and_another_gives_another(photos: Path, tmp_path: Path) -> None:
    first = pretrain(quick(tmp_path / "a.safetensors", photos))
    again = pretrain(quick(tmp_path / "b.safetensors", photos))
    other = pretrain(quick(tmp_path / "c.safetensors", photos, seed=6))
    assert [r.loss for r in first.history] == [r.loss for r in again.history]
    assert first.loss != other.loss
    own, same = weights(first.checkpoint), weights(again.checkpoint)
    assert all(torch.equal(own[name], same[name]) for name in own)
    new = weights(other.checkpoint)
    assert not torch.equal(own["blocks.0.attn.qkv.weight"], new["blocks.0.attn.qkv.weight"])


class StoppedError(Exception):
    pass


def test_a_resumed_run_repeats_an_uninterrupted_one(photos: Path, tmp_path: Path) -> None:
    whole = pretrain(quick(tmp_path / "a.safetensors", photos))

    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            raise StoppedError

    options = quick(tmp_path / "b.safetensors", photos)
    with pytest.raises(StoppedError):
        pretrain(options, stop)
    resumed = pretrain(dataclasses.replace(options, resume=True))
    assert [r.loss for r in resumed.history] == [r.loss for r in whole.history]
    own, same = weights(whole.checkpoint), weights(resumed.checkpoint)
    assert all(torch.equal(own[name], same[name]) for name in own)
    with pytest.raises(VitcError, match=r"corruption was 0.6, now 0.5"):
        pretrain(quick(tmp_path / "b.safetensors", photos, corruption=0.5, resume=True))


def test_the_rate_follows_the_images_of_a_step_and_how_much_is_predicted(
    photos: Path, tmp_path: Path
) -> None:
    for options, factor in (
        ({}, 1 / 0.6),
        ({"method": "mae"}, 1.0),
        ({"corruption": 0.5, "prediction": 0.8, "blocks": False}, 0.8 / 0.5),
    ):
        made = quick(tmp_path / "x.safetensors", photos, batch_size=40, base_rate=1e-3, **options)
        learnt = Pretraining(made, lambda _: None)
        learnt.prepare(Pretended())  # type: ignore[arg-type]
        assert learnt.learning_rate == pytest.approx(1e-3 * 40 * factor / 256)
        assert learnt.rate(0, 10, 1000) == 0
        assert learnt.rate(500, 10, 1000) < learnt.rate(60, 10, 1000)
        groups = learnt.optimizer().param_groups
        assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
        assert all(p.ndim == 1 for p in groups[1]["params"])
        assert any(p is learnt.model.reconstructor.mask_token for p in groups[0]["params"])


class Pretended:
    """A process of a run on the processor."""

    device = torch.device("cpu")


def test_theta_0_has_no_visible_branch_and_views_are_chosen(photos: Path, tmp_path: Path) -> None:
    base = quick(tmp_path / "x.safetensors", photos, theta=0.0, views=3, blocks=False)
    learnt = Pretraining(base, lambda _: None)
    assert learnt.model.distiller is None
    learnt.prepare(Pretended())  # type: ignore[arg-type]
    batch = learnt.examples.__getitems__([3, 0, 4, 1])
    learnt.share = Share.whole(4)
    losses = learnt.losses(learnt.model, batch, chance(1))
    assert set(losses.parts) == {"invisible"}
    assert learnt.masking.views == 3


def test_a_part_of_a_batch_has_the_masks_that_it_has_in_the_whole() -> None:
    masking = Masking(4, 4, 0.5, views=3, blocks=False)
    whole, drawn = (masking.draw(6, chance(5)) for _ in range(2))
    part = drawn.of(slice(2, 5), 3)
    for name in ("keep", "restore"):
        rows = getattr(whole, name).reshape(3, 6, -1)[:, 2:5]
        assert torch.equal(getattr(part, name).reshape(3, 3, -1), rows)


def test_a_process_without_a_share_of_a_batch_has_gradients_of_0(
    photos: Path, tmp_path: Path
) -> None:
    learnt = Pretraining(quick(tmp_path / "x.safetensors", photos), lambda _: None)
    learnt.prepare(Pretended())  # type: ignore[arg-type]
    learnt.share = Share(4, 4, 4)
    (whole,) = learnt.examples.__getitems__([0])
    losses = learnt.losses(learnt.model, (whole[:0],), chance(3))
    losses.total.nan_to_num().backward()  # type: ignore[no-untyped-call]
    learning = [p for p in learnt.model.parameters() if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for p in learning)


def test_theta_weighs_the_loss_of_the_visible_branch(photos: Path, tmp_path: Path) -> None:
    learnt = Pretraining(quick(tmp_path / "x.safetensors", photos, theta=2.5), lambda _: None)
    learnt.prepare(Pretended())  # type: ignore[arg-type]
    learnt.share = Share.whole(2)
    losses = learnt.losses(learnt.model, learnt.examples.__getitems__([1, 2]), chance(2))
    wanted = losses.parts["invisible"] + 2.5 * losses.parts["visible"]
    torch.testing.assert_close(losses.total, wanted)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "best"}, "no method 'best'"),
        ({"target": "teacher"}, "there is no teacher"),
        ({"teacher": Path("t")}, "the target is hog"),
        ({"views": 1, "prediction": 1.0}, "One view predicts what it masks"),
        ({"warmup_epochs": 3}, "rises for 3 of 3"),
        ({"theta": -1.0}, "theta must not be negative"),
        ({"least_crop": 0.0}, "least_crop"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(VitcError) as caught:
        quick(Path("x.safetensors"), Path("d"), **changes)
    assert said in f"{caught.value} {caught.value.hint}"


def test_a_twin_that_needs_all_tokens_is_refused(photos: Path, tmp_path: Path) -> None:
    options = quick(tmp_path / "x.safetensors", photos, preset="micro-swin", depth=None)
    with pytest.raises(VitcError, match="float-swin cannot read some of its tokens"):
        pretrain(options)


def test_broken_pictures_are_named_and_skipped_only_when_asked(
    photos: Path, tmp_path: Path
) -> None:
    whole = (photos / "00.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("no picture")
    options = quick(tmp_path / "t.safetensors", photos, epochs=1)
    with pytest.raises(VitcError, match=r"cut\.png.*text\.jpg") as caught:
        pretrain(options)
    assert "--skip-broken" in str(caught.value.hint)
    assert not options.out.exists()
    told: list[str] = []
    result = pretrain(dataclasses.replace(options, skip_broken=True), note=told.append)
    assert result.images == 13
    assert any("left out 2 pictures" in line and "cut.png" in line for line in told)


def test_a_picture_of_the_views_is_not_replaced_unasked(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "t.views.png").write_text("mine")
    options = quick(tmp_path / "t.safetensors", photos, epochs=1)
    with pytest.raises(VitcError, match="exists already"):
        pretrain(options)
    assert (tmp_path / "t.views.png").read_text() == "mine"


def test_what_networks_are_judged_by_is_left_out_of_class_folders(
    class_folders: Path, three_parts: Path, presplit_folders: Path, photos: Path
) -> None:
    shown = Preprocessing(resize=32, crop=32)
    told: list[str] = []
    own = find_sources(str(class_folders), shown, note=told.append)
    parts = load_parts(str(class_folders), shown)
    assert {source.name for source in own} == set(parts.train.names)
    assert any("--all" in line for line in told)
    assert len(find_sources(str(class_folders), shown, every=True)) == 22
    assert {Path(s.name).parts[-3] for s in find_sources(str(three_parts), shown)} == {"train"}
    presplit = {source.name for source in find_sources(str(presplit_folders), shown)}
    assert presplit == set(load_parts(str(presplit_folders), shown).train.names)
    shutil.rmtree(three_parts / "train" / "dark")
    (three_parts / "train" / "light").rename(three_parts / "train" / "other")
    assert {Path(s.name).parts[-3] for s in find_sources(str(three_parts), shown)} == {"train"}
    assert len(find_sources(str(photos), shown)) == 13
    with pytest.raises(VitcError, match="no data folder"):
        find_sources(str(photos / "none"), shown)
    (photos / "empty").mkdir()
    with pytest.raises(VitcError, match="holds no images"):
        find_sources(str(photos / "empty"), shown)


def test_crops_have_the_area_and_shape_that_were_asked_for() -> None:
    areas, whole = [], 0
    for tried in range(300):
        draws = torch.rand(10, 4, generator=chance(tried)).tolist()
        left, upper, right, lower = crop_box(61, 47, 0.3, draws)
        assert 0 <= left < right <= 61
        assert 0 <= upper < lower <= 47
        areas.append((right - left) * (lower - upper) / (61 * 47))
        assert 0.7 < (right - left) / (lower - upper) < 1.4
        whole += (right - left, lower - upper) == (61, 47)
    assert 0.28 < min(areas) < 0.35
    assert max(areas) > 0.9
    assert whole < 20
    # So long that no try fits: the largest part of a shape that is allowed.
    assert crop_box(400, 10, 0.9, torch.rand(10, 4, generator=chance(0)).tolist()) == (
        193,
        0,
        206,
        10,
    )


def numbered(count: int) -> list[Source]:
    def shown(index: int) -> Image.Image:
        ramp = np.arange(40)[None, :, None] * np.array([1, 2, 3]) + 10 * index
        return Image.fromarray(np.broadcast_to(ramp, (30, 40, 3)).astype(np.uint8))

    return [Source(str(i), lambda i=i: shown(i)) for i in range(count)]  # type: ignore[misc]


def test_crops_follow_from_seed_epoch_and_picture_alone() -> None:
    pictures = Pictures(numbered(9), Crops((16, 16), 0.4, True, seed=3))
    (first,) = pictures.__getitems__([4, 1, 7])
    assert first.dtype == torch.uint8
    assert first.shape == (3, 3, 16, 16)
    assert torch.equal(pictures.__getitems__([7])[0][0], first[2])
    pictures.epoch = 1
    assert not torch.equal(pictures.__getitems__([7])[0][0], first[2])
    other = Pictures(numbered(9), Crops((16, 16), 0.4, True, seed=4))
    assert not torch.equal(other.__getitems__([7])[0][0], first[2])
    turned = 0
    for epoch in range(60):
        pictures.epoch = epoch
        crop = pictures.__getitems__([0])[0][0, 0].float()
        turned += int(crop[:, 0].mean() > crop[:, -1].mean())
    assert 15 < turned < 45
    kept = Pictures(numbered(9), Crops((16, 16), 0.4, False, seed=3))
    assert kept.in_memory
    kept.in_memory = False
    kept.epoch = 5
    read = kept.__getitems__([2, 3])[0]
    kept.in_memory = True
    assert torch.equal(kept.__getitems__([2, 3])[0], read)


def test_large_pictures_are_kept_no_finer_than_crops_need() -> None:
    large = Source("large", lambda: Image.new("RGB", (900, 300), (9, 9, 9)))
    pictures = Pictures([large], Crops((32, 32), 0.5, False, seed=0))
    assert pictures._kept[0].size == (192, 64)


def test_patches_are_undone_and_pixels_rebuilt_where_they_were_masked() -> None:
    images = torch.rand(3, 3, 12, 8, generator=chance(1)) * 255
    assert torch.equal(unpatched(patched(images, 4), 4, (3, 2)), images)
    views = Masking(3, 2, 0.5, blocks=False).draw(3, chance(2))
    told = pixel_targets(images, 4).repeat(2, 1, 1)
    whole = rebuilt(images, told, views, 4)
    assert whole.shape == (2, 3, 3, 12, 8)
    torch.testing.assert_close(whole, images.expand(2, -1, -1, -1, -1), rtol=0, atol=1e-2)
    grey = hidden(images, views, 4)
    covered = (grey == 128).all(dim=2).float().mean(dim=(2, 3))
    torch.testing.assert_close(covered, torch.full((2, 3), 0.5))
    masked = torch.repeat_interleave(views.mask.reshape(2, 3, 3, 2), 4, 2)
    masked = torch.repeat_interleave(masked, 4, 3)
    assert torch.equal((grey == 128).all(dim=2).float(), masked)


def test_a_teacher_gives_normalised_features_of_its_own_preprocessing(
    photos: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    chosen = twin_preset("micro-swin")
    save(build_network(chosen.config, chosen.preprocessing), tmp_path / "t.safetensors")
    options = quick(
        tmp_path / "x.safetensors", photos, target="teacher", teacher=tmp_path / "t.safetensors"
    )
    learnt = Pretraining(options, lambda _: None)
    assert isinstance(learnt.target, Features)
    images = torch.rand(2, 3, 32, 32, generator=chance(3)) * 255
    told = learnt.target(images)
    assert told.shape == (2, 16, 128)
    twin = learnt.target.teacher
    tokens = twin.trunk((images / 255 - 0.5) / 0.5)
    wanted = torch.nn.functional.layer_norm(tokens, (128,))
    torch.testing.assert_close(told, wanted, rtol=1e-3, atol=1e-4)
    before = twin.state_dict()["head.weight"].clone()
    result = pretrain(options)
    assert torch.equal(twin.state_dict()["head.weight"], before)
    assert set(result.parts) == {"invisible", "visible"}
    with pytest.raises(VitcError, match="4 x 4 places, the network to train 2 x 2"):
        Features(twin, (2, 2))


def test_both_losses_fall_in_a_run(tmp_path: Path, photos: Path) -> None:
    options = quick(
        tmp_path / "t.safetensors", photos, epochs=30, base_rate=2e-2, blocks=False, least_crop=1.0
    )
    history = pretrain(options).history
    for name in ("invisible", "visible"):
        assert history[-1].parts[name] < 0.9 * history[0].parts[name]
