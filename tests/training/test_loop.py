from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vitc.errors import VitcError
from vitc.models import SIBiViT, load, preset, random_images, random_model, save
from vitc.training import Dataset, EpochReport, TrainOptions, load_dataset, train
from vitc.training import loop as loop_module
from vitc.training.objectives.classification import Classification
from vitc.training.options import StepReport
from vitc.training.parts import load_parts
from vitc.training.start import initial
from vitc.training.teacher import Teacher


def quick(out: Path, data: Path, **changes: Any) -> TrainOptions:
    base = TrainOptions(
        out=out, data=str(data), depth=1, epochs=2, batch_size=5, warmup_epochs=1, seed=3
    )
    return dataclasses.replace(base, **changes)


def test_run_writes_checkpoint_curve_and_history(class_folders: Path, tmp_path: Path) -> None:
    reports: list[EpochReport] = []
    result = train(quick(tmp_path / "m.safetensors", class_folders), reports.append)
    assert [report.epoch for report in reports] == [1, 2]
    assert result.history == tuple(reports)
    assert result.validation_accuracy == max(report.validation_accuracy for report in reports)
    with Image.open(result.curve) as picture:
        assert picture.format == "PNG"
    written = json.loads(result.history_file.read_text())
    assert [entry["loss"] for entry in written["epochs"]] == [r.loss for r in reports]
    assert written["best"] == {
        "epoch": result.best_epoch,
        "validation_accuracy": result.validation_accuracy,
        "test_accuracy": result.test_accuracy,
    }
    assert not list(tmp_path.glob(".*"))


def accuracy(model: SIBiViT, data: Dataset) -> float:
    with torch.no_grad():
        guesses = torch.cat([model(batch).argmax(1) for batch in data.images])
    return float((guesses == data.targets).double().mean())


def test_checkpoint_carries_labels_preprocessing_and_the_accuracies_it_has(
    class_folders: Path, tmp_path: Path
) -> None:
    result = train(quick(tmp_path / "m.safetensors", class_folders, epochs=8))
    model = load(result.checkpoint)
    assert model.labels == ("dark", "grey", "light")
    assert model.preprocessing == preset("micro").preprocessing
    assert model.history["epoch"] == result.best_epoch
    parts = load_parts(str(class_folders), model.preprocessing)
    for name, data in (("validation", parts.validation), ("test", parts.test)):
        had = accuracy(model, data)
        assert had == pytest.approx(getattr(result, f"{name}_accuracy"))
        assert had == pytest.approx(model.history[f"{name}_accuracy"])


def scripted(monkeypatch: pytest.MonkeyPatch, validation: Sequence[float], test: float) -> None:
    """Let each epoch have the validation accuracy given for it."""
    coming = iter([*validation, test])
    monkeypatch.setattr(Classification, "accuracy", lambda *_: next(coming))


def test_best_epoch_is_the_last_of_those_with_the_highest_validation_accuracy(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[bytes] = []
    options = quick(tmp_path / "m.safetensors", class_folders, epochs=4)
    scripted(monkeypatch, (0.5, 0.75, 0.75, 0.25), test=0.125)
    result = train(options, lambda _: weights.append(options.out.read_bytes()))
    assert (result.best_epoch, result.validation_accuracy, result.test_accuracy) == (3, 0.75, 0.125)
    assert weights[1] != weights[2] == weights[3]
    kept = load_file(options.out)
    chosen = tmp_path / "chosen.safetensors"
    chosen.write_bytes(weights[2])
    for name, tensor in load_file(chosen).items():
        assert torch.equal(tensor, kept[name]), name


def test_test_images_are_looked_at_once_after_the_last_epoch_and_learnt_from_are_others(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: dict[int, list[str]] = {0: [], 1: [], 2: []}
    epoch = 0
    fetch = Dataset.__getitems__

    def note(data: Dataset, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        looked[epoch].extend(data.names[index] for index in indices)
        return fetch(data, indices)

    def next_epoch(report: EpochReport) -> None:
        nonlocal epoch
        epoch = report.epoch

    monkeypatch.setattr(Dataset, "__getitems__", note)
    options = quick(tmp_path / "m.safetensors", class_folders)
    train(options, next_epoch)
    parts = load_parts(str(class_folders), preset("micro").preprocessing)
    for before in (0, 1):
        assert sorted(looked[before]) == sorted(parts.train.names + parts.validation.names)
    assert looked[2] == list(parts.test.names)
    looked[2].clear()
    train(dataclasses.replace(options, resume=True))
    assert looked[2] == []


def test_three_given_parts_are_learnt_from_chosen_by_and_judged_by(
    three_parts: Path, tmp_path: Path
) -> None:
    val = three_parts / "val"
    for old, new in (("dark", "bright"), ("light", "dark"), ("bright", "light")):
        (val / old).rename(val / new)  # so that no network is right on both parts
    result = train(quick(tmp_path / "m.safetensors", three_parts, epochs=3))
    model = load(result.checkpoint)
    for part, had in (("val", result.validation_accuracy), ("test", result.test_accuracy)):
        data = load_dataset(str(three_parts / part), model.preprocessing, labels=model.labels)
        assert accuracy(model, data) == pytest.approx(had)


def test_same_seed_gives_the_same_file_and_another_seed_another(
    class_folders: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, seed in zip(paths, (3, 3, 4), strict=True):
        train(quick(path, class_folders, seed=seed))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes() != paths[2].read_bytes()


class InterruptedRunError(Exception):
    pass


@pytest.mark.parametrize(
    ("stop_after", "scheme"), [(1, "bibert"), (2, "bibert"), (3, "bibert"), (1, "bit")]
)
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    class_folders: Path, tmp_path: Path, stop_after: int, scheme: str
) -> None:
    whole = quick(tmp_path / "whole.safetensors", class_folders, epochs=3, scheme=scheme)
    train(whole)

    def stop(report: EpochReport) -> None:
        if report.epoch == stop_after:
            raise InterruptedRunError

    parts = quick(tmp_path / "parts.safetensors", class_folders, epochs=3, scheme=scheme)
    with pytest.raises(InterruptedRunError):
        train(parts, stop)
    seen: list[int] = []
    torch.manual_seed(999)
    result = train(
        dataclasses.replace(parts, resume=True), lambda report: seen.append(report.epoch)
    )
    assert seen == list(range(stop_after + 1, 4))
    assert len(result.history) == 3
    assert whole.out.read_bytes() == parts.out.read_bytes()
    states = [torch.load(options.last, weights_only=True) for options in (whole, parts)]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name
    for index, moments in states[0]["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, states[1]["optimizer"]["state"][index][name])


EVERYTHING = {"crop_scale": (0.3, 1.0), "hflip": 0.5, "erasing": 0.5, "mixup": 0.8, "cutmix": 1.0}


def test_a_run_with_all_augmentation_is_resumed_bit_for_bit(
    class_folders: Path, tmp_path: Path
) -> None:
    whole = quick(tmp_path / "whole.safetensors", class_folders, epochs=2, **EVERYTHING)
    train(whole)

    def stop(_: EpochReport) -> None:
        raise InterruptedRunError

    parts = dataclasses.replace(whole, out=tmp_path / "parts.safetensors")
    with pytest.raises(InterruptedRunError):
        train(parts, stop)
    torch.manual_seed(999)
    train(dataclasses.replace(parts, resume=True))
    assert whole.out.read_bytes() == parts.out.read_bytes()


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_augmentation_changes_a_run(name: str, class_folders: Path, tmp_path: Path) -> None:
    plain = quick(tmp_path / "a.safetensors", class_folders, epochs=1)
    other = dataclasses.replace(plain, out=tmp_path / "b.safetensors", **{name: EVERYTHING[name]})
    assert train(plain).history[0].loss != train(other).history[0].loss


@pytest.mark.parametrize("scheme", ["bibert", "recu", "bit"])
def test_bfloat16_changes_products_of_training_and_nothing_that_is_judged_or_written(
    class_folders: Path, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[bool, torch.dtype]] = set()
    linear = torch.nn.functional.linear

    def watched(*given: Any, **more: Any) -> torch.Tensor:
        product = linear(*given, **more)
        seen.add((torch.is_grad_enabled(), product.dtype))
        return product

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    fine = quick(tmp_path / "a.safetensors", class_folders, epochs=1, scheme=scheme)
    coarse = dataclasses.replace(fine, out=tmp_path / "b.safetensors", mixed_precision="bf16")
    losses = [train(options).history[0].loss for options in (fine, coarse)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.1)
    assert (True, torch.bfloat16) in seen
    assert (False, torch.bfloat16) not in seen
    stored = load_file(coarse.out).values()
    assert not [tensor.dtype for tensor in stored if tensor.dtype == torch.bfloat16]
    parts = load_parts(str(class_folders), preset("micro").preprocessing)
    model = load(coarse.out)
    assert accuracy(model, parts.test) == pytest.approx(model.history["test_accuracy"])


def test_resuming_a_finished_run_returns_its_result(class_folders: Path, tmp_path: Path) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders)
    first = train(options)
    assert train(dataclasses.replace(options, resume=True)) == first


def test_resume_beside_the_checkpoint_of_another_run_is_refused(
    class_folders: Path, tmp_path: Path
) -> None:
    one, other = (quick(tmp_path / f"{n}.safetensors", class_folders, seed=n) for n in (1, 2))
    train(one)
    train(other)
    one.out.write_bytes(other.out.read_bytes())
    with pytest.raises(VitcError, match="not the best checkpoint of the run"):
        train(dataclasses.replace(one, resume=True))


def test_resume_from_a_state_of_an_older_version_is_refused(
    class_folders: Path, tmp_path: Path
) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, epochs=1)
    train(options)
    state = torch.load(options.last, weights_only=True)
    del state["format"]
    torch.save(state, options.last)
    with pytest.raises(VitcError, match="another version"):
        train(dataclasses.replace(options, resume=True))


def test_resume_without_a_state_or_with_other_options_is_refused(
    class_folders: Path, tmp_path: Path
) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, epochs=1)
    with pytest.raises(VitcError, match="nothing to resume"):
        train(dataclasses.replace(options, resume=True))
    train(options)
    with pytest.raises(VitcError, match=r"learning_rate was 0\.005, now 0\.1"):
        train(dataclasses.replace(options, resume=True, learning_rate=0.1))
    options.last.write_bytes(options.last.read_bytes()[:1000])
    with pytest.raises(VitcError, match="damaged"):
        train(dataclasses.replace(options, resume=True))


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    fetch = Dataset.__getitems__

    def note(data: Dataset, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        seen.extend(indices if len(data) == 15 else ())
        return fetch(data, indices)

    monkeypatch.setattr(Dataset, "__getitems__", note)
    train(quick(tmp_path / "m.safetensors", class_folders))
    first, second = seen[:15], seen[15:]
    assert sorted(first) == sorted(second) == list(range(15))
    assert first != second


def test_thread_count_is_given_back(class_folders: Path, tmp_path: Path) -> None:
    used: list[int] = []
    torch.set_num_threads(2)
    for threads in (None, 2):
        train(
            quick(tmp_path / f"{threads}.safetensors", class_folders, epochs=1, threads=threads),
            lambda _: used.append(torch.get_num_threads()),
        )
        assert torch.get_num_threads() == 2
    assert used == [1, 2]


def test_loss_falls_and_brightness_is_learnt(class_folders: Path, tmp_path: Path) -> None:
    result = train(quick(tmp_path / "m.safetensors", class_folders, epochs=15))
    losses = [report.loss for report in result.history]
    assert losses[-1] < 0.75 * losses[0]
    assert result.test_accuracy >= 0.75


def test_images_outside_memory_train_to_the_same_weights(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, read = (quick(tmp_path / f"{n}.safetensors", class_folders, epochs=1) for n in "ab")
    train(kept)
    monkeypatch.setattr("vitc.training.data._KEPT_BYTES", 0)
    monkeypatch.setattr("vitc.training.data._WORKERS", 1)
    train(read)
    assert kept.out.read_bytes() == read.out.read_bytes()


def test_teacher_sees_the_images_in_its_own_preprocessing(tmp_path: Path) -> None:
    config, half = preset("micro").config, preset("micro").preprocessing
    mean, std = (0.2, 0.3, 0.4), (0.1, 0.2, 0.3)
    own = dataclasses.replace(half, resize=48, crop=48, mean=mean, std=std)
    save(random_model(config.replace(image_size=48), 2, own), tmp_path / "t.safetensors")
    teacher = Teacher(tmp_path / "t.safetensors", random_model(config, 1, half))
    seen: list[torch.Tensor] = []
    teacher.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert teacher(torch.full((2, 3, 32, 32), 0.5)).shape == (2, 10)
    wanted = [(0.75 - m) / s for m, s in zip(mean, std, strict=True)]
    assert seen[0].shape == (2, 3, 48, 48)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.tensor(wanted))


def test_teacher_changes_the_run_and_stays_as_it_was(class_folders: Path, tmp_path: Path) -> None:
    config = preset("micro").config.replace(classes=3, depth=1)
    teacher = tmp_path / "teacher.safetensors"
    save(random_model(config, 5, preset("micro").preprocessing, ["dark", "grey", "light"]), teacher)
    before = teacher.read_bytes()
    plain = train(quick(tmp_path / "a.safetensors", class_folders, epochs=1))
    taught = train(quick(tmp_path / "b.safetensors", class_folders, epochs=1, teacher=teacher))
    assert plain.history[0].loss != taught.history[0].loss
    assert teacher.read_bytes() == before


@pytest.mark.parametrize("labels", [None, ["dark", "light", "grey"]])
def test_teacher_of_other_classes_is_refused(
    class_folders: Path, tmp_path: Path, labels: list[str] | None
) -> None:
    config = preset("micro").config.replace(classes=3 if labels else 4, depth=1)
    teacher = tmp_path / "teacher.safetensors"
    save(random_model(config, 5, preset("micro").preprocessing, labels), teacher)
    with pytest.raises(VitcError, match="The teacher"):
        train(quick(tmp_path / "m.safetensors", class_folders, teacher=teacher))


@pytest.mark.parametrize("scheme", ["bibert", "recu", "bit"])
def test_two_steps_go_from_full_precision_weights_to_binary_ones(
    class_folders: Path, tmp_path: Path, scheme: str
) -> None:
    first = quick(
        tmp_path / "first.safetensors", class_folders, weight_bits=32, epochs=1, scheme=scheme
    )
    train(first)
    assert load(first.out).config.weight_bits == 32
    second = quick(
        tmp_path / "second.safetensors", class_folders, start=first.out, epochs=1, scheme=scheme
    )
    train(second)
    assert load(second.out).config.weight_bits == 1
    load(second.out).frozen()


def test_a_start_of_another_scheme_is_refused(class_folders: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(preset("micro").config.replace(depth=1, classes=3))
    save(random_model(config), tmp_path / "bibert.safetensors")
    options = quick(
        tmp_path / "m.safetensors",
        class_folders,
        scheme="recu",
        start=tmp_path / "bibert.safetensors",
    )
    with pytest.raises(VitcError, match="is of scheme bibert"):
        train(options)


@pytest.mark.parametrize("elastic", [False, True])
def test_bit_learns_its_scales_from_the_first_batch_on(
    class_folders: Path, tmp_path: Path, elastic: bool
) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, scheme="bit", elastic=elastic)
    result = train(options)
    assert all(math.isfinite(report.loss) for report in result.history)
    model = load(result.checkpoint)
    assert (model.config.scheme, model.config.elastic) == ("bit", elastic)
    state = model.state_dict()
    flags = {name for name in state if name.endswith("_initialised")}
    assert len(flags) == 10  # six linears and four scales of the attention
    assert all(state[name] for name in flags)
    assert all(state[name.removesuffix("_initialised")] != 1 for name in flags)


def test_recu_learns_and_its_checkpoint_has_the_tau_of_its_epoch(
    class_folders: Path, tmp_path: Path
) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, scheme="recu", epochs=3)
    result = train(options)
    model = load(result.checkpoint)
    assert model.config.scheme == "recu"
    state = model.state_dict()
    tau = 0.85 + 0.14 * (math.exp((result.best_epoch - 1) / 3) - 1) / (math.e - 1)
    assert float(state["blocks.0.mlp.fc1.tau"]) == pytest.approx(tau)
    initial = state["blocks.0.mlp.fc1.weight"].abs().mean(dim=1)
    assert not torch.allclose(state["blocks.0.mlp.fc1.alpha"], initial, rtol=1e-4)


def test_new_spatial_branch_changes_nothing_at_first(class_folders: Path) -> None:
    config = preset("micro").config.replace(classes=3, depth=2)
    source = random_model(config.replace(si=False), 7)
    data = load_dataset(str(class_folders), preset("micro").preprocessing)
    model = initial(config, data, source).eval()
    images = random_images(config, 3)
    with torch.no_grad():
        torch.testing.assert_close(model(images), source(images), rtol=0, atol=0)


def test_start_that_does_not_fit_is_refused(class_folders: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save(random_model(preset("micro").config.replace(mlp_ratio=4, depth=1), 8), start)
    with pytest.raises(VitcError, match=r"blocks\.0\.mlp\.fc1\.bias is \(256,\), wanted \(128,\)"):
        train(quick(tmp_path / "m.safetensors", class_folders, start=start))


def test_files_of_an_earlier_run_are_kept_unless_resumed_or_forced(
    class_folders: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    options = quick(folder / "m.safetensors", class_folders, epochs=1)
    train(options)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(VitcError, match=r"m\.last\.pt exists.*--resume.*--force"):
        train(dataclasses.replace(options, seed=5))
    options.last.rename(folder / "kept")
    with pytest.raises(VitcError, match=r"m\.safetensors exists.*--force"):
        train(dataclasses.replace(options, seed=5))
    (folder / "kept").rename(options.last)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    train(dataclasses.replace(options, seed=5, force=True))
    assert options.out.read_bytes() != before["m.safetensors"]
    assert {path.name for path in folder.iterdir()} == before.keys()


def test_two_runs_never_train_into_one_file(class_folders: Path, tmp_path: Path) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, epochs=1)
    refused: list[str] = []

    def other(_: EpochReport) -> None:
        with pytest.raises(VitcError) as error:
            train(dataclasses.replace(options, force=True))
        refused.append(error.value.message)

    train(options, other)
    assert len(refused) == 1
    assert "m.safetensors" in refused[0]


def test_diverging_run_is_stopped_with_a_reason(class_folders: Path, tmp_path: Path) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, learning_rate=1e37, epochs=3)
    with pytest.raises(VitcError, match="Lower the learning rate"):
        train(options)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": float("nan")},
        {"label_smoothing": 1.0},
        {"warmup_epochs": -1},
        {"threads": 0},
        {"out": Path("m.pt")},
        {"hflip": 1.5},
        {"mixed_precision": "fp8"},
        {"erasing": -0.1},
        {"mixup": -1.0},
        {"crop_scale": (0.5, 0.2)},
        {"crop_scale": (0.0, 1.0)},
    ],
)
def test_impossible_options_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(VitcError):
        dataclasses.replace(TrainOptions(out=Path("m.safetensors")), **change)


def test_missing_output_folder_and_unknown_preset_are_refused_before_training(
    tmp_path: Path,
) -> None:
    with pytest.raises(VitcError, match="no folder"):
        train(TrainOptions(out=tmp_path / "no" / "m.safetensors"))
    with pytest.raises(VitcError, match="micro"):
        train(TrainOptions(out=tmp_path / "m.safetensors", preset="nope"))


def test_one_class_is_refused(class_folders: Path, tmp_path: Path) -> None:
    for name in ("grey", "light"):
        (class_folders / name).rename(tmp_path / name)
    with pytest.raises(VitcError, match="one class"):
        train(quick(tmp_path / "m.safetensors", class_folders))


def test_digits_can_be_learnt_from_a_single_short_run(tmp_path: Path) -> None:
    result = train(TrainOptions(out=tmp_path / "m.safetensors", depth=1, epochs=4))
    assert result.test_accuracy > 0.3
    assert load_file(result.checkpoint)["blocks.0.attn.qkv.weight"].shape == (192, 64)


def rates(options: TrainOptions, stop_after: int | None = None) -> list[float]:
    """The learning rate of each step."""
    seen: list[float] = []

    def note(run: Any) -> None:
        seen.append(float(run.optimizer.param_groups[0]["lr"]))

    train_epoch = loop_module._Run._train_epoch

    def watched(run: Any, report_step: Any) -> Any:
        if run.epoch == stop_after:
            raise InterruptedRunError
        step = run.optimizer.step
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run.optimizer, "step", lambda *given: (note(run), step(*given))[1])
            return train_epoch(run, report_step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module._Run, "_train_epoch", watched)
        if stop_after is None:
            train(options)
        else:
            with pytest.raises(InterruptedRunError):
                train(options)
    return seen


def test_a_run_resumed_for_more_epochs_follows_the_schedule_of_the_longer_run(
    class_folders: Path, tmp_path: Path
) -> None:
    longer = rates(quick(tmp_path / "longer.safetensors", class_folders, epochs=4))
    short = quick(tmp_path / "short.safetensors", class_folders, epochs=2)
    rates(short)
    resumed = dataclasses.replace(short, epochs=4, resume=True)
    assert rates(resumed) == longer[len(longer) // 2 :]
    model = load(short.out)
    assert model.history["options"]["epochs"] in (2, 4)
    written = json.loads(short.history.read_text())
    assert len(written["epochs"]) == written["options"]["epochs"] == 4
    with pytest.raises(VitcError, match="has 4 epochs behind it, 3 were asked for"):
        train(dataclasses.replace(short, epochs=3, resume=True))


def test_a_resumed_run_may_name_its_data_in_another_way(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, epochs=1, background=(9, 8, 7))
    train(options)
    (tmp_path / "link").symlink_to(class_folders)
    monkeypatch.chdir(tmp_path)
    for name in ("images", "./images/", "link"):
        train(dataclasses.replace(options, data=name, resume=True, epochs=2))
    assert load(options.out).preprocessing.background == (9, 8, 7)


def test_steps_and_speed_are_told(class_folders: Path, tmp_path: Path) -> None:
    steps: list[StepReport] = []
    notes: list[str] = []
    result = train(
        quick(tmp_path / "m.safetensors", class_folders), note=notes.append, step=steps.append
    )
    assert [(s.epoch, s.step, s.steps) for s in steps] == [
        (epoch, step, 3) for epoch in (1, 2) for step in (1, 2, 3)
    ]
    assert all(report.images_per_second > 0 for report in (*steps, *result.history))
    assert notes[0] == f"left out of {class_folders}: 1 .txt"
    assert "of free memory" in notes[1]
