"""The decoupled recipe: its stages, what moves in them, and that it resumes anywhere."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.training.test_loop import quick as joint
from vitc.errors import VitcError
from vitc.models import build_network, load, random_images, save
from vitc.models.architectures import twin_preset
from vitc.training import EpochReport, TrainOptions, TrainResult, train
from vitc.training.objectives.decoupled import Decoupled

MLP_BRANCH = re.compile(r".*blocks\.\d+\.(mlp\.|norm2\.(weight|bias)$)")


def twin(folder: Path, preset: str = "micro", depth: int | None = 2, classes: int = 3) -> Path:
    torch.manual_seed(11)
    path = folder / f"{preset}-{depth}-twin.safetensors"
    config = twin_preset(preset).config.replace(classes=classes, depth=depth)
    save(build_network(config, twin_preset(preset).preprocessing), path)
    return path


def quick(out: Path, data: Path, teacher: Path | None, **changes: Any) -> TrainOptions:
    """Two epochs a stage."""
    recipe = {"recipe": "decoupled", "epochs": 6, "stage_epochs": (2, 2, 2)}
    return joint(out, data, **{"depth": 2, "teacher": teacher, **recipe, **changes})


def stages(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> tuple[TrainResult, list[dict[str, torch.Tensor]]]:
    """The run, and the parameters at the beginning and the end of each stage."""
    seen: list[dict[str, torch.Tensor]] = []
    runs: list[Decoupled] = []
    enter = Decoupled.enter

    def keep(run: Decoupled) -> None:
        seen.append({name: value.clone() for name, value in run.model.state_dict().items()})

    def watched(run: Decoupled, stage: int) -> None:
        if stage:
            keep(run)
        enter(run, stage)
        keep(run)
        runs.append(run)

    monkeypatch.setattr(Decoupled, "enter", watched)
    result = train(options)
    keep(runs[-1])
    return result, seen


def test_stages_go_from_wide_weights_to_binary_ones_to_spatial_interaction(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, twin(tmp_path))
    told: list[str] = []
    config = []
    write = Decoupled.write

    def note(run: Decoupled, *given: Any) -> None:
        config.append((run.model.config.weight_bits, run.model.config.si))
        write(run, *given)

    monkeypatch.setattr(Decoupled, "write", note)
    result = train(options, lambda report: told.append(report.stage))
    assert told == ["32W1A"] * 2 + ["1W1A"] * 2 + ["SI"] * 2
    assert [*dict.fromkeys(config)] == [(32, False), (1, False), (1, True)]
    parts = [set(report.parts) for report in result.history]
    assert parts == [{"label", "distillation", "mlp"}] * 4 + [{"label", "distillation"}] * 2
    for report in result.history[:4]:
        # Twice for two blocks whose outputs point away from each other.
        assert 0 < report.parts["mlp"] <= 4
        known = 0.95 * report.parts["distillation"] + 0.05 * report.parts["label"]
        assert report.loss == pytest.approx(known + 0.1 * report.parts["mlp"], rel=1e-5)
    assert result.best_epoch > 4
    model = load(result.checkpoint)
    assert (model.config.weight_bits, model.config.si) == (1, True)
    assert model.history["options"]["recipe"] == "decoupled"
    assert model.history["options"]["stage_epochs"] == [2, 2, 2]
    written = json.loads(result.history_file.read_text())["epochs"]
    assert written[0]["stage"] == "32W1A"
    assert written[0]["parts"] == result.history[0].parts
    with Image.open(result.curve) as picture:
        assert picture.format == "PNG"


def test_an_entering_spatial_branch_changes_nothing_and_then_learns(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, twin(tmp_path))
    _, seen = stages(options, monkeypatch)
    before, entered, after = seen[3], seen[4], seen[5]
    for name, value in before.items():
        assert torch.equal(value, entered[name]), name
    scales = [name for name in entered if name.endswith("learnablescaling")]
    assert len(scales) == 2
    for name in scales:
        assert not entered[name].any()
        assert after[name].any()
    assert not torch.equal(entered["blocks.0.mlp2.fc1.weight"], after["blocks.0.mlp2.fc1.weight"])


@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_beside_spatial_interaction_the_mlp_branch_moves_slowly_or_not(
    rate: float, class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, twin(tmp_path), mlp_rate=rate)
    _, seen = stages(options, monkeypatch)
    moved = {True: 0.0, False: 0.0}
    for name, value in seen[4].items():
        if "running" not in name and "num_batches" not in name:
            slow = MLP_BRANCH.match(name) is not None
            moved[slow] = max(moved[slow], float((seen[5][name] - value).abs().max()))
    assert moved[False] > 1e-3
    # AdamW moves by about its rate a step, whatever the gradient is.
    assert moved[True] == 0 if rate == 0 else 0 < moved[True] < 0.1 * moved[False]


def test_the_mlp_term_brings_the_mlps_to_the_twins(class_folders: Path, tmp_path: Path) -> None:
    teacher = twin(tmp_path)
    ends = []
    for weight in (0.0, 3.0):
        options = quick(
            tmp_path / f"{weight}.safetensors",
            class_folders,
            teacher,
            epochs=12,
            stage_epochs=(10, 1, 1),
            mlp_weight=weight,
        )
        ends.append(train(options).history[9].parts["mlp"])
    assert ends[1] < 0.8 * ends[0]


class InterruptedRunError(Exception):
    pass


@pytest.mark.parametrize(
    ("stop_after", "scheme"), [(1, "recu"), (2, "bibert"), (3, "bit"), (4, "recu"), (5, "bit")]
)
def test_a_run_resumed_in_or_between_stages_equals_an_uninterrupted_one(
    stop_after: int, scheme: str, class_folders: Path, tmp_path: Path
) -> None:
    teacher = twin(tmp_path)
    whole = quick(tmp_path / "whole.safetensors", class_folders, teacher, scheme=scheme)
    parts = dataclasses.replace(whole, out=tmp_path / "parts.safetensors")
    train(whole)

    def stop(report: EpochReport) -> None:
        if report.epoch == stop_after:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        train(parts, stop)
    torch.manual_seed(999)
    train(dataclasses.replace(parts, resume=True))
    assert whole.out.read_bytes() == parts.out.read_bytes()
    states = [torch.load(options.last, weights_only=True) for options in (whole, parts)]
    assert states[0]["stage"] == states[1]["stage"] == 2
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name


def test_a_run_interrupted_within_an_epoch_goes_on_from_the_one_before(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quick(tmp_path / "whole.safetensors", class_folders, twin(tmp_path))
    parts = dataclasses.replace(whole, out=tmp_path / "parts.safetensors")
    train(whole)
    losses = Decoupled.losses
    left = 0

    def stop(run: Decoupled, *given: Any) -> Any:
        nonlocal left
        if not left:
            raise InterruptedRunError
        left -= 1
        return losses(run, *given)

    for steps in (4, 5, 2):  # of 3 an epoch
        left = steps
        with monkeypatch.context() as patch:
            patch.setattr(Decoupled, "losses", stop)
            with pytest.raises(InterruptedRunError):
                train(dataclasses.replace(parts, resume=parts.last.is_file()))
    train(dataclasses.replace(parts, resume=True))
    assert whole.out.read_bytes() == parts.out.read_bytes()


@pytest.mark.parametrize("preset", ["micro-swin", "micro-pvt", "micro-nest"])
@pytest.mark.parametrize("scheme", ["bibert", "bit"])
def test_every_backbone_is_trained_so(
    preset: str, scheme: str, class_folders: Path, tmp_path: Path
) -> None:
    options = quick(
        tmp_path / "m.safetensors",
        class_folders,
        twin(tmp_path, preset, None),
        preset=preset,
        depth=None,
        scheme=scheme,
        epochs=3,
        stage_epochs=None,
        batch_size=8,
    )
    result = train(options)
    assert [report.stage for report in result.history] == ["32W1A", "1W1A", "SI"]
    model = load(result.checkpoint)
    assert (model.config.scheme, model.config.si) == (scheme, True)
    with torch.no_grad():
        assert torch.isfinite(model(random_images(model.config, 2))).all()


def test_a_twin_of_other_blocks_is_refused(class_folders: Path, tmp_path: Path) -> None:
    options = quick(tmp_path / "m.safetensors", class_folders, twin(tmp_path, depth=1))
    with pytest.raises(VitcError, match="has 1 block, the network to train 2"):
        train(options)
    other = twin(tmp_path, "micro-nest", None)
    with pytest.raises(VitcError, match=r"block 0 .* gives \[64, 64\], .* \[17, 64\]"):
        train(dataclasses.replace(options, teacher=other, depth=3))


def test_other_stages_are_refused_when_a_run_is_resumed(
    class_folders: Path, tmp_path: Path
) -> None:
    options = quick(
        tmp_path / "m.safetensors", class_folders, twin(tmp_path), epochs=3, stage_epochs=(1, 1, 1)
    )
    train(options)
    longer = dataclasses.replace(options, epochs=4, stage_epochs=(2, 1, 1), resume=True)
    with pytest.raises(VitcError, match=r"stage_epochs was \[1, 1, 1\], now \[2, 1, 1\]"):
        train(longer)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher": None}, "no teacher"),
        ({"si": False}, "si was False"),
        ({"weight_bits": 32}, "weight_bits was 32"),
        ({"full_precision": True}, "full_precision was True"),
        ({"epochs": 2, "stage_epochs": None}, "3 stages, and there are 2 epochs"),
        ({"stage_epochs": (2, 2, 1)}, "2, 2, 1 epochs, the run 6"),
        ({"stage_epochs": (0, 3, 3)}, "0, 3, 3 epochs"),
        ({"mlp_rate": 1.5}, "mlp_rate"),
        ({"mlp_weight": -1.0}, "mlp_weight"),
        ({"recipe": "coupled"}, "did you mean decoupled"),
        ({"recipe": "joint"}, "joint has no stage_epochs"),
        ({"recipe": "joint", "stage_epochs": None, "mlp_rate": 0.5}, "joint has no mlp_rate"),
    ],
)
def test_options_that_contradict_the_recipe_are_refused(
    changed: dict[str, Any], message: str
) -> None:
    taught = {"out": Path("m.safetensors"), "data": Path("data"), "teacher": Path("t.safetensors")}
    with pytest.raises(VitcError, match=message):
        quick(**{**taught, **changed})


def test_a_quarter_a_quarter_and_the_rest_are_the_stages() -> None:
    def lengths(epochs: int) -> tuple[int, ...]:
        out, data, teacher = Path("m.safetensors"), Path("data"), Path("t.safetensors")
        return quick(out, data, teacher, epochs=epochs, stage_epochs=None).stage_lengths

    assert [lengths(n) for n in (3, 4, 40, 43)] == [
        (1, 1, 1),
        (1, 1, 2),
        (10, 10, 20),
        (10, 10, 23),
    ]


def test_the_checkpoint_of_a_decoupled_run_has_what_a_joint_one_has(
    class_folders: Path, tmp_path: Path
) -> None:
    teacher = twin(tmp_path)
    one = train(
        quick(tmp_path / "a.safetensors", class_folders, teacher, epochs=3, stage_epochs=None)
    )
    other = train(
        joint(tmp_path / "b.safetensors", class_folders, depth=2, epochs=1, teacher=teacher)
    )
    mine, theirs = load_file(one.checkpoint), load_file(other.checkpoint)
    assert {n: t.shape for n, t in mine.items()} == {n: t.shape for n, t in theirs.items()}
