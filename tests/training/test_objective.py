"""The loop with an objective of its own: no labels, two losses, two stages, LARS."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitc.errors import VitcError
from vitc.outputs import FileOutput
from vitc.training.lars import LARS
from vitc.training.loop import learn
from vitc.training.losses import Losses
from vitc.training.memory import MemoryNeed
from vitc.training.objectives.objective import Best, Ended, Objective
from vitc.training.options import EpochReport, RunOptions


class Points:
    """Places on a line, without labels."""

    in_memory = True

    def __init__(self) -> None:
        self.values = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.values)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor]:
        return (self.values[list(indices)],)


class Autoencoder(Objective[Ended]):
    """Noisy points to themselves; the second stage has one layer more."""

    def __init__(self, options: RunOptions, stages: tuple[int, ...]) -> None:
        self.options = options
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4))
        self.examples = Points()
        self.stages = stages
        self.pictures: list[int] = []

    def described(self) -> dict[str, Any]:
        return {"epochs": sum(self.stages), "stages": [*self.stages]}

    def memory(self) -> MemoryNeed | None:
        return None

    def enter(self, stage: int) -> None:
        if stage:
            self.model.add_module("more", nn.Linear(4, 4))
            nn.init.eye_(self.model.more.weight)
            nn.init.zeros_(self.model.more.bias)

    def stage_name(self, stage: int) -> str:
        return ("short", "long")[stage]

    def optimizer(self) -> LARS:
        return LARS(self.model.parameters(), lr=0.5, trust=0.1)

    def rate(self, step: int, steps: int, total: int) -> float:  # noqa: ARG002
        return 1 - step / total

    def losses(self, network: nn.Module, batch: tuple[Tensor], draws: torch.Generator) -> Losses:
        (points,) = batch
        error = network(points + 0.1 * torch.randn(points.shape, generator=draws)) - points
        square, edge = error.square().mean(), error.abs().mean()
        return Losses(square + 0.5 * edge, {"square": square, "edge": edge})

    def measure(self, network: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"error": float((network(self.examples.values) - self.examples.values).norm())}

    def write(self, best: Best, described: Mapping[str, Any], checkpoint: FileOutput) -> None:  # noqa: ARG002
        with checkpoint.aside() as part:
            save_file(self.model.state_dict(), part)

    def after_epoch(self, report: EpochReport) -> None:
        self.pictures.append(report.epoch)

    def finish(self, ended: Ended) -> Ended:
        return ended


def run(out: Path, *stages: int, stop: int = 0, resume: bool = False) -> Ended:
    options = RunOptions(out=out, epochs=sum(stages), batch_size=4, seed=5, resume=resume)

    def interrupt(report: EpochReport) -> None:
        if report.epoch == stop:
            raise KeyboardInterrupt

    return learn(options, lambda _: Autoencoder(options, stages), interrupt)


def test_losses_parts_measures_and_stages_of_any_objective_are_told(tmp_path: Path) -> None:
    ended = run(tmp_path / "a.safetensors", 3, 2)
    assert [report.stage for report in ended.history] == ["short"] * 3 + ["long"] * 2
    for report in ended.history:
        assert report.loss == pytest.approx(report.parts["square"] + 0.5 * report.parts["edge"])
        assert report.flat()["error"] == report.measures["error"] > 0
    assert ended.history[2].loss < ended.history[0].loss
    assert ended.best == Best(5, 0.0)
    assert "more.weight" in load_file(tmp_path / "a.safetensors")


def test_each_stage_has_a_schedule_of_its_own(tmp_path: Path) -> None:
    rates = [r.learning_rate for r in run(tmp_path / "a.safetensors", 2, 4).history]
    assert rates == pytest.approx([0.25, 0, 0.375, 0.25, 0.125, 0])


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_run_resumed_in_or_between_stages_equals_an_uninterrupted_one(
    stop: int, tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole.safetensors", 2, 2)
    parts = tmp_path / "parts.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(parts, 2, 2, stop=stop)
    torch.manual_seed(7)
    resumed = run(parts, 2, 2, resume=True)
    assert (tmp_path / "whole.safetensors").read_bytes() == parts.read_bytes()
    for one, other in zip(whole.history, resumed.history, strict=True):
        timeless = {"seconds": 0.0, "images_per_second": 0.0}
        assert dataclasses.replace(one, **timeless) == dataclasses.replace(other, **timeless)


def test_other_stages_than_those_of_the_state_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a.safetensors", 2, 2, stop=1)
    with pytest.raises(VitcError, match=r"stages was \[2, 2\], now \[1, 3\]"):
        run(tmp_path / "a.safetensors", 1, 3, resume=True)
