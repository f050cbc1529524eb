"""Training by two processes on the processor: the same result as by one, one output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import fill
from vitc.models import PRESETS, build_network, load, random_model, save
from vitc.models.architectures import twin_preset
from vitc.training.epoch_order import EpochBatches
from vitc.training.run_outputs import is_main

_PATIENCE_S = 900
_TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
_ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
)


def python(*words: object) -> subprocess.CompletedProcess[str]:
    """Run Python on this code, with one thread a process."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "PYTEST"))}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={
            **plain,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        },
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 images to learn from, so that halves of a batch differ."""
    root = tmp_path_factory.mktemp("two words") / "images"
    for seed, (name, count) in enumerate((("dark", 19), ("grey", 17), ("light", 16))):
        fill(root / name, count, 85 * seed, seed)
    return root


def runs(folder: Path, data: Path) -> dict[str, dict[str, Any]]:
    """Of each scheme one step of all images, with augmentation, from trained-like parameters."""
    micro = PRESETS["micro"]
    every: dict[str, dict[str, Any]] = {}
    base = {"data": str(data), "warmup_epochs": 0, "depth": 2, "threads": 1, "seed": 3}
    step = {**base, "epochs": 1, "batch_size": 64}
    changed = {"crop_scale": [0.5, 1.0], "hflip": 0.5, "erasing": 0.5}
    for scheme in ("bibert", "recu", "bit"):
        start = folder / f"{scheme}.start.safetensors"
        config = micro.config.replace(classes=3, depth=2, si=True)
        config = type(config).from_dict({**config.to_dict(), "scheme": scheme})
        save(random_model(config, 1, micro.preprocessing, ["dark", "grey", "light"]), start)
        mixing = {"bibert": {}, "recu": {"mixup": 0.8}, "bit": {"cutmix": 1.0}}[scheme]
        every[scheme] = {**step, **changed, **mixing, "scheme": scheme, "start": str(start)}
    # The last batch has two images, which are mixed with each other: one process has none.
    every["uneven"] = {**base, "epochs": 2, "batch_size": 9, "full_precision": True}
    torch.manual_seed(5)
    teacher = folder / "teacher.safetensors"
    twin = twin_preset("micro")
    save(build_network(twin.config.replace(classes=3, depth=2), twin.preprocessing), teacher)
    decoupled = {"recipe": "decoupled", "teacher": str(teacher), "mlp_rate": 0.0}
    every["decoupled"] = {**base, **decoupled, "epochs": 3, "batch_size": 64}
    for name, options in every.items():
        options["out"] = str(folder / f"{name}.safetensors")
    return every


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the same runs, made by one process and by two."""
    script = Path(__file__).with_name("runs.py")
    folders = []
    for launcher in ((), _TORCHRUN):
        folder = tmp_path_factory.mktemp("runs")
        (folder / "runs.json").write_text(json.dumps([*runs(folder, data).values()]))
        ran = python(*launcher, script, folder / "runs.json")
        assert ran.returncode == 0, ran.stderr
        folders.append(folder)
    return folders[0], folders[1]


def states(made: tuple[Path, Path], name: str) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{name}.last.pt", weights_only=True) for folder in made]


@pytest.mark.parametrize("scheme", ["bibert", "recu", "bit"])
def test_a_step_of_two_processes_is_that_of_one(made: tuple[Path, Path], scheme: str) -> None:
    one, two = states(made, scheme)
    assert two["history"][0]["loss"] == pytest.approx(one["history"][0]["loss"], rel=1e-5)
    for name, value in one["model"].items():
        if "running" in name:
            torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-5)
    moments = [run["optimizer"]["state"] for run in (one, two)]
    largest = max(float(state["exp_avg"].norm()) for state in moments[0].values())
    for place, state in moments[0].items():
        gradient, other = state["exp_avg"], moments[1][place]["exp_avg"]
        # Where sums cancel, what is left is rounding.
        bound = 1e-3 * float(gradient.norm()) + 1e-6 * largest
        assert float((gradient - other).norm()) <= bound, place


def test_a_process_without_a_share_of_the_last_batch_takes_part(made: tuple[Path, Path]) -> None:
    one, two = states(made, "uneven")
    for ours, theirs in zip(one["history"], two["history"], strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-3)
        assert theirs["measures"] == ours["measures"]
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=0, atol=2e-3)


def test_stages_of_the_decoupled_recipe_and_their_mlp_term_are_those_of_one_process(
    made: tuple[Path, Path],
) -> None:
    one, two = states(made, "decoupled")
    assert [report["stage"] for report in two["history"]] == ["32W1A", "1W1A", "SI"]
    # The first step sees the same network; binary ones then part by rounding.
    ours, theirs = (run["history"][0] for run in (one, two))
    assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
    assert theirs["parts"] == pytest.approx(ours["parts"], rel=1e-4)
    assert load(made[1] / "decoupled.safetensors").config.si


@pytest.mark.parametrize("launcher", [_TORCHRUN, _ACCELERATE], ids=["torchrun", "accelerate"])
def test_several_processes_print_and_write_once(
    launcher: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    fixed = ("train", "--data", data, "--depth", 1, "--batch-size", 8, "--warmup-epochs", 1)
    command = (*launcher, "-m", "vitc.cli", *fixed, "--out", out)
    ran = python(*command, "--epochs", 1)
    assert ran.returncode == 0, ran.stderr
    assert len(re.findall(r"^epoch 1/1: loss", ran.stderr, re.M)) == 1
    assert len(re.findall(r"^test accuracy", ran.stdout, re.M)) == 1
    assert ran.stderr.count("wrote ") == 1
    written = {"m.safetensors", "m.last.pt", "m.png", "m.json"}
    assert {path.name for path in tmp_path.iterdir()} == written
    ran = python(*command, "--epochs", 2, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert re.findall(r"^epoch (\d)/2: loss", ran.stderr, re.M) == ["2"]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize(("count", "batch_size"), [(37, 8), (13, 5), (6, 64), (9, 4)])
def test_shares_are_the_batches_of_one_process_cut_at_even_places(
    processes: int, count: int, batch_size: int
) -> None:
    whole = EpochBatches(count, batch_size, 1)
    parts = [EpochBatches(count, batch_size, 1, place, processes) for place in range(processes)]
    for step, batch in enumerate(whole):
        shares = [part.share(step) for part in parts]
        assert [index for part in parts for index in [*part][step]] == batch
        assert all(share.begin % 2 == 0 or share.begin == share.end for share in shares)
        assert {share.total for share in shares} == {len(batch)}
        assert [len([*part][step]) for part in parts] == [s.end - s.begin for s in shares]


@pytest.mark.parametrize(
    ("variables", "main"),
    [
        ({}, True),
        ({"RANK": "1"}, True),
        ({"RANK": "0", "WORLD_SIZE": "2"}, True),
        ({"RANK": "1", "WORLD_SIZE": "2"}, False),
    ],
)
def test_the_first_of_several_processes_is_the_main_one(
    variables: dict[str, str], main: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_main() is main
