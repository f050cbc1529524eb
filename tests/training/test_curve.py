"""The picture of a training: its title, and the epoch that was chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vitc.outputs import claim_file
from vitc.training.options import EpochReport
from vitc.training.progress_files import curve, write_curve

PERCENT = {"right": "validation accuracy"}


def history(count: int = 4) -> list[EpochReport]:
    return [
        EpochReport(n, count, 1.0 / n, 0.1, 1.0, measures={"right": n / 8})
        for n in range(1, count + 1)
    ]


def test_the_chosen_epoch_is_a_line_and_a_point_of_its_measure() -> None:
    figure = curve(history(), PERCENT, 3, "a title")
    loss, share = figure.axes
    assert loss.get_title() == "a title"
    lines = {line.get_label(): line.get_xdata() for line in loss.lines}
    assert list(lines["chosen: epoch 3"]) == [3, 3]
    (point,) = [line for line in share.lines if len(line.get_xdata()) == 1]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (3, 37.5)


@pytest.mark.parametrize("name", ["run", "a$b$_{", "\u4e2d\u6587", "a\nb", "x" * 200])
def test_the_title_is_the_name_and_the_chosen_epoch_whatever_the_name(
    tmp_path: Path, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    with claim_file(tmp_path / f"{name}.png") as output:
        write_curve(output, history(), PERCENT, 3)
    with Image.open(tmp_path / f"{name}.png") as picture:
        title = picture.info["Title"]
    shown = name.replace("\n", "?")
    assert title == f"{shown}: epoch 3 of 4, validation accuracy 37.5 %"
    assert not [each for each in recwarn if "Glyph" in str(each.message)]


def test_a_run_without_measures_has_a_title_too(tmp_path: Path) -> None:
    with claim_file(tmp_path / "m.png") as output:
        write_curve(output, history(), {}, 4)
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.info["Title"] == "m: epoch 4 of 4"
