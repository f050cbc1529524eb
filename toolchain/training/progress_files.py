"""The files beside a checkpoint: state to resume from, curves, history."""

from __future__ import annotations

import io
import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vitc.errors import VitcError
from vitc.outputs import FileOutput, explained
from vitc.training.options import EpochReport

__all__ = ["EPOCHS", "curve", "read_state", "write_curve", "write_history", "write_state"]

_FORMAT: Final = 3
_STYLES: Final = ("dashed", "dotted", "dashdot")

EPOCHS: Final = "epochs"
"""The one option that may differ when a run is resumed."""


def write_state(output: FileOutput, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values, complete or not at all.

    Raises:
        VitcError: If the file cannot be written.
    """
    with output.aside() as part, explained(output.named, RuntimeError):
        torch.save({**state, "format": _FORMAT}, part)


def read_state(file: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Args:
        file: The ``.last.pt`` of a run.
        run: The options of this run; the state must come from one with the same, but for more
            epochs.

    Raises:
        VitcError: If there is no such file, it is damaged, or it comes from a different run.
    """
    if not file.is_file():
        raise VitcError(f"There is nothing to resume: no {file}.", "Train without resuming.")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes the unpickler raise
        raise VitcError(f"{file} is damaged.", "Train without resuming.") from error
    before = state.get("run") if isinstance(state, dict) else None
    if not isinstance(before, dict):
        raise VitcError(f"{file} is not the state of a training run.", "Train without resuming.")
    if state.get("format") != _FORMAT:
        raise VitcError(f"{file} is of another version of vitc.", "Train without resuming.")
    changed = [
        f"{name} was {before.get(name)!r}, now {run.get(name)!r}"
        for name in sorted({*before, *run} - {EPOCHS})
        if before.get(name) != run.get(name)
    ]
    if changed:
        raise VitcError(
            f"{file} comes from a different run: {'; '.join(changed)}.",
            "Resume with the same options, or train without resuming.",
        )
    if run[EPOCHS] < state["epoch"]:
        raise VitcError(
            f"{file} has {state['epoch']} epochs behind it, {run[EPOCHS]} were asked for.",
            f"Resume with --epochs {state['epoch']} or more.",
        )
    return {str(name): value for name, value in state.items()}


def write_history(
    output: FileOutput,
    run: Mapping[str, Any],
    history: Sequence[EpochReport],
    best: Mapping[str, float],
) -> None:
    """Write what the run is, one entry an epoch, and the best epoch's figures as JSON.

    Raises:
        VitcError: If the file cannot be written.
    """
    epochs = [report.flat() for report in history]
    content = {"options": dict(run), "best": dict(best), "epochs": epochs}
    output.write(json.dumps(content, indent=1) + "\n")


def write_curve(
    output: FileOutput, history: Sequence[EpochReport], percent: Mapping[str, str], chosen: int
) -> None:
    """Draw the training loss, what it is made of and measures over the epochs as PNG.

    Its title, which the file has as text too, is the name of the picture and the chosen epoch.

    Args:
        output: The picture.
        history: One report an epoch.
        percent: Measures in [0, 1] that are drawn, and what the axis calls them.
        chosen: Epoch whose weights are kept, counted from 1.

    Raises:
        VitcError: If the file cannot be written.
    """
    title = _title(Path(output.named).stem, history, percent, chosen)
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A name may have letters that the font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", r"Glyph .* missing", UserWarning)
        curve(history, percent, chosen, title).savefig(
            content, format="png", dpi=120, metadata={"Title": title}
        )
    output.write(content.getvalue())


def curve(
    history: Sequence[EpochReport], percent: Mapping[str, str], chosen: int, title: str
) -> Figure:
    """The figure of `write_curve`."""
    epochs = [report.epoch for report in history]
    figure = Figure(figsize=(7, 4), layout="constrained")
    loss = figure.subplots()
    loss.set_title(title, fontsize="medium", wrap=True, parse_math=False)
    loss.plot(epochs, [report.loss for report in history], color="tab:blue")
    loss.set_xlabel("epoch")
    loss.xaxis.set_major_locator(MaxNLocator(integer=True))
    loss.set_ylabel("training loss", color="tab:blue")
    for name, style in zip(_parts(history), itertools.cycle(_STYLES)):
        values = [report.parts.get(name, math.nan) for report in history]
        loss.plot(epochs, values, color="tab:blue", alpha=0.6, linestyle=style, label=name)
    for before, after in itertools.pairwise(history):
        if before.stage != after.stage:
            loss.axvline(before.epoch + 0.5, color="tab:grey", linewidth=1)
    loss.axvline(chosen, color="tab:green", linestyle="dashed", label=f"chosen: epoch {chosen}")
    loss.legend()
    if percent:
        share = loss.twinx()
        for name in percent:
            values = [100 * report.measures[name] for report in history]
            share.plot(epochs, values, color="tab:orange")
            share.plot(chosen, values[chosen - 1], "o", color="tab:green")
        share.set_ylabel(", ".join(f"{text}, %" for text in percent.values()), color="tab:orange")
        share.set_ylim(0, 100)
    return figure


def _title(
    name: str, history: Sequence[EpochReport], percent: Mapping[str, str], chosen: int
) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    measures = history[chosen - 1].measures
    found = [f"{text} {100 * measures[key]:.1f} %" for key, text in percent.items()]
    return ", ".join([f"{shown}: epoch {chosen} of {len(history)}", *found])


def _parts(history: Sequence[EpochReport]) -> list[str]:
    return [*dict.fromkeys(name for report in history for name in report.parts)]
