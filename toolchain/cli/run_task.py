"""What `vitc run` shows of a detector or a segmentation network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vitc.cli.output import Output
from vitc.cli.tables import Lines, table
from vitc.errors import VitcError
from vitc.models.picture import read_picture
from vitc.models.picture_files import counted

if TYPE_CHECKING:
    from vitc.devices.picture_network import PictureNetwork
    from vitc.devices.seen import Seen
    from vitc.outputs import FileOutput

__all__ = ["run_task"]

_BOXES: Final = ("input", "class", ">score", ">left", ">top", ">right", ">bottom")
_SHARES: Final = ("input", "class", ">share")
_FEW: Final = 16
_WIDEST: Final = 60


def run_task(
    network: PictureNetwork,
    model: Path,
    output: Output,
    *,
    topk: int | None = None,
    score: float | None = None,
    maps: FileOutput | None = None,
    overlay: FileOutput | None = None,
) -> int:
    """Show what is in the inputs of a network.

    Args:
        network: Of a task, opened with its inputs.
        model: What it is called.
        output: Of the command.
        topk: Boxes or classes to show an input; all by default.
        score: Least score of a box.
        maps: To be filled with all outputs, as .npz.
        overlay: To be filled with the picture and what was seen in it.

    Returns:
        Threads that computed it.

    Raises:
        VitcError: If an option is not of the network, or as the run.
    """
    from vitc.devices.seen import SURE, seen
    from vitc.models.architectures.tasks import DetectionConfig
    from vitc.runtime.detection import MOST, DecodeOptions

    boxes = isinstance(network.config, DetectionConfig)
    if score is not None and not boxes:
        raise VitcError("--score is of boxes, and the network finds none.", "Leave --score away.")
    files = network.inputs.files
    if overlay is not None and len(files) != 1:
        raise VitcError(
            f"--save-overlay draws one picture, found {len(files)}.", "Run one picture at a time."
        )
    decoding = DecodeOptions(score=SURE if score is None else score, most=topk or MOST)
    columns, total, used = _BOXES if boxes else _SHARES, len(network.inputs), 1
    rows: list[tuple[str, ...]] = []
    kept: dict[str, list[np.ndarray[Any, Any]]] = {}
    with ExitStack() as stack:
        say = stack.enter_context(output.working(f"running {model}"))
        if network.inputs.left:
            output.note(f"left out: {counted(network.inputs.left)}")
        add = stack.enter_context(output.result_list("inputs"))
        lines = _lines(columns, network) if total > _FEW else None
        if lines is not None:
            output.copyable(lines.heading)
        done = 0
        for part, threads in seen(network, decoding):
            used = threads
            told = [row for each in part for row in _rows(each, topk)]
            if lines is None:
                rows += told
            else:
                output.copyable("\n".join(map(lines.row, told)))
            add(_entries(part, topk))
            if maps is not None:
                for each in part:
                    for name, value in each.maps.items():
                        kept.setdefault(name, []).append(value)
            if overlay is not None:
                drawn = part[0].drawn(read_picture(files[0], network.preprocessing.background))
                drawn.save(stack.enter_context(overlay.aside()), format="png")
            done += len(part)
            say(f"running {model}: {done} of {total} images")
        if maps is not None:
            arrays: dict[str, Any] = {name: np.stack(values) for name, values in kept.items()}
            with stack.enter_context(maps.aside()).open("wb") as target:
                np.savez(target, **arrays)
    if lines is None:
        output.show(table(columns, rows))
    return used


def _lines(columns: tuple[str, ...], network: PictureNetwork) -> Lines:
    names = min(max(map(len, network.inputs.names)), _WIDEST)
    labels = min(max(map(len, network.labels or ("",))), _WIDEST)
    return Lines(columns, (names, labels, *[7] * (len(columns) - 2)))


def _entries(part: Iterable[Seen], topk: int | None) -> Iterator[dict[str, Any]]:
    for each in part:
        told = each.to_dict()
        yield {**told, "shares": told["shares"][:topk]} if each.boxes is None else told


def _rows(each: Seen, topk: int | None) -> Iterator[tuple[str, ...]]:
    (told,) = _entries([each], topk)
    rows: list[tuple[str, ...]]
    if each.boxes is None:
        rows = [(entry["label"], f"{entry['share']:.1%}") for entry in told["shares"]]
    else:
        rows = [
            (entry["label"], f"{entry['score']:.3f}", *(f"{side:.1f}" for side in entry["box"]))
            for entry in told["boxes"]
        ]
        rows = rows or [("nothing", *[""] * (len(_BOXES) - 2))]
    for rank, row in enumerate(rows):
        yield ("" if rank else each.name), *row
