"""What `vitc train` says while it works, and how it goes on after an interruption."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitc.training import loop as loop_module
from vitc.training.options import TrainOptions

_PATIENCE_S = 900


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    root = tmp_path / "two words"
    random = np.random.default_rng(2)
    for name, low in (("dark", 0), ("light", 150)):
        (root / name).mkdir(parents=True)
        for index in range(12):
            pixels = random.integers(low, low + 100, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def arguments(data: Path, out: Path, *more: object) -> list[str]:
    fixed = ("train", "--depth", 1, "--batch-size", 4, "--warmup-epochs", 1, "--threads", 1)
    return [str(word) for word in (*fixed, "--data", data, "--out", out, *more)]


def test_without_a_terminal_there_is_a_line_an_epoch(vitc, folders, tmp_path) -> None:
    ran = vitc(*arguments(folders, tmp_path / "m.safetensors", "--epochs", 3))
    assert ran.code == 0, ran.err
    lines = re.findall(r"^epoch (\d)/3: loss \d.*accuracy .*%, \d+ images/s, .* s$", ran.err, re.M)
    assert lines == ["1", "2", "3"]
    assert re.search(r"^training takes about .* GB of .* free memory$", ran.err, re.M)


def test_on_a_terminal_the_bar_moves_from_epoch_to_epoch(folders, tmp_path) -> None:
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "vitc", *arguments(folders, tmp_path / "m.safetensors")]
    process = subprocess.Popen(
        [*command, "--epochs", "30"],
        stderr=child,
        stdout=subprocess.DEVNULL,
        env={
            **os.environ,
            "TERM": "xterm",
            "COLUMNS": "100",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    os.close(child)
    shown = b""
    try:
        while block := os.read(parent, 65536):
            shown += block
    except OSError:  # what a terminal says when nobody writes any more
        pass
    assert process.wait(_PATIENCE_S) == 0, shown
    os.close(parent)
    text = shown.decode()
    # It is drawn ten times a second, and an epoch may be shorter.
    drawn = {int(number) for number in re.findall(r"epoch (\d+)/30", text)}
    assert len(drawn) >= 3
    assert 30 in drawn
    assert "images/s" in text


def test_options_of_the_command_reach_the_run(vitc, folders, tmp_path, monkeypatch) -> None:
    given: list[TrainOptions] = []

    def note(options, *_, **__):
        given.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("vitc.training.train", note)
    changed = ("--no-augment", "--weight-decay", 0.5, "--warmup-epochs", 7, "--background", "1,2,3")
    vitc(*arguments(folders, tmp_path / "m.safetensors", *changed, "--threads", 2))
    only = given[0]
    assert (only.augment, only.weight_decay, only.warmup_epochs) == (False, 0.5, 7)
    assert (only.threads, only.background) == (2, (1, 2, 3))
    assert not only.full_precision
    assert (only.crop_scale, only.hflip, only.erasing, only.mixup, only.cutmix) == (
        None,
        0,
        0,
        0,
        0,
    )
    usual = ("--scale", 0.08, 1, "--hflip", 0.5, "--reprob", 0.25, "--mixup", 0.8, "--cutmix", 1)
    recipe = ("--recipe", "decoupled", "--teacher", folders, "--stage-epochs", 10, 10, 20)
    rates = ("--mlp-rate", 0, "--mlp-weight", 0.5)
    vitc(*arguments(folders, tmp_path / "d.safetensors", *usual, *recipe, *rates))
    only = given.pop()
    assert (only.crop_scale, only.hflip, only.erasing) == ((0.08, 1), 0.5, 0.25)
    assert (only.mixup, only.cutmix) == (0.8, 1)
    assert (only.recipe, only.stage_lengths) == ("decoupled", (10, 10, 20))
    assert (only.mlp_rate, only.mlp_weight) == (0, 0.5)
    twin = ("--full-precision", "--preset", "micro-pvt")
    vitc(*arguments(folders, tmp_path / "t.safetensors", *twin))
    assert (given[1].full_precision, given[1].preset) == (True, "micro-pvt")
    sized = ("--norm", "layer", "--merge", "binary", "--image-size", "32x64", "--mlp-ratio", 3)
    vitc(*arguments(folders, tmp_path / "s.safetensors", "--preset", "micro-nest", *sized))
    assert (given[2].norm, given[2].merge, given[2].image_size) == ("layer", "binary", (32, 64))
    assert given[2].mlp_ratio == 3


def test_an_interrupted_run_names_the_command_that_goes_on_with_it(
    vitc, folders, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "my model.safetensors"
    step = loop_module._Run.step

    def stop(self, *given):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module._Run, "step", stop)
        ran = vitc(*arguments(folders, out, "--epochs", 2))
    assert ran.code == 130
    (line,) = [line for line in ran.err.splitlines() if line.startswith("interrupted")]
    command = shlex.split(line.partition("with: ")[2])
    assert line.startswith("interrupted; go on with: vitc train")
    assert command == ["vitc", *arguments(folders, out, "--epochs", 2), "--resume"]
    ran = vitc(*command[1:])
    assert ran.code == 0, ran.err
    assert "epoch 2/2" in ran.err
    assert "epoch 1/2" not in ran.err


def test_a_run_without_a_finished_epoch_is_begun_again(
    vitc, folders, tmp_path, monkeypatch
) -> None:
    def stop(*_):
        raise KeyboardInterrupt

    out = tmp_path / "m.safetensors"
    monkeypatch.setattr(loop_module._Run, "step", stop)
    ran = vitc(*arguments(folders, out))
    assert "no epoch was finished, begin again with: vitc train" in ran.err
    assert "--resume" not in ran.err


def test_a_run_over_an_older_one_is_not_resumed_from_that_one(
    vitc, folders, tmp_path, monkeypatch
) -> None:
    def stop(*_):
        raise KeyboardInterrupt

    given = (*arguments(folders, tmp_path / "m.safetensors"), "--force")
    assert vitc(*given).code == 0
    monkeypatch.setattr(loop_module._Run, "step", stop)
    ran = vitc(*given)
    assert ran.code == 130
    assert "no epoch was finished, begin again with: vitc train" in ran.err
    assert "--resume" not in ran.err
    assert shlex.split(ran.err.partition("with: ")[2])[-1] == "--force"


def test_training_beyond_memory_is_refused_before_it_begins(
    vitc, folders, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(loop_module, "available", lambda _: 0.7e9)
    ran = vitc(*arguments(folders, tmp_path / "m.safetensors", "--batch-size", 4096))
    assert ran.code == 1
    assert "4096 images a step takes about" in ran.err
    assert re.search(r"hint: Use --batch-size \d+\.", ran.err)
    assert list(tmp_path.iterdir()) == [folders]
