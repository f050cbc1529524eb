"""`vitc train --task`: a network of boxes or of classes of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from vitc.cli.output import Output
from vitc.cli.run_progress import run_shown
from vitc.errors import VitcError

if TYPE_CHECKING:
    from vitc.training import EpochReport

__all__ = ["describe", "refuse_task_options", "train_task"]

_OWN: Final = ("blocks", "tower", "binary_head", "void")
"""Options that only networks of a task have."""

_OUTPUT: Final = frozenset(("json_to", "quiet", "verbose"))


def refuse_task_options(context: typer.Context) -> None:
    """Refuse what only a network of a task has.

    Raises:
        VitcError: If it was given.
    """
    for name in _given(context):
        if name in _OWN:
            raise VitcError(
                f"{_flag(context, name)} is of networks that give maps of an image.",
                "Leave it away, or train with --task detection or segmentation.",
            )


def describe(report: EpochReport) -> str:
    """One epoch in a few words, for a progress bar."""
    told = ", ".join(f"{name} {value:.3f}" for name, value in report.measures.items())
    return f"loss {report.loss:.3f}, {told}, {report.images_per_second:.0f} images/s"


def train_task(context: typer.Context) -> None:
    """Train a network of a task as the options of `vitc train` say.

    Raises:
        VitcError: If an option was given that it does not have, or as the training.
    """
    from vitc.models.picture import parse_colour
    from vitc.training.run_outputs import check_outputs, is_main
    from vitc.training.tasks.options import TaskOptions

    values = _given(context)
    output = Output(values.get("json_to"), force=bool(values.get("force")), silent=not is_main())
    known = TaskOptions.__dataclass_fields__
    for name in values:
        if name not in known and name not in _OUTPUT:
            raise VitcError(
                f"A network of --task {values['task']} has no {_flag(context, name)}.",
                f"Leave {_flag(context, name)} or --task away.",
            )
    if values.get("background") is not None:
        values["background"] = parse_colour(values["background"])
    preset = values.get("preset", known["preset"].default)
    values.setdefault("out", Path(f"{preset}-{values['task']}.safetensors"))
    options = TaskOptions(**{k: v for k, v in values.items() if k not in _OUTPUT})
    check_outputs(options)
    from vitc.training.tasks.train import train_task as run_training

    result = run_shown(output, options, describe, run_training)
    told = ", ".join(f"{name} {value:.3f}" for name, value in result.test.items())
    output.show(f"test {told}, of epoch {result.best_epoch}; {result.seconds:.0f} s")
    output.note(f"wrote {', '.join(map(str, (result.checkpoint, *result.files)))}")
    output.result(result.to_dict())
    if not options.full_precision:
        output.next("export", result.checkpoint)


def _given(context: typer.Context) -> dict[str, Any]:
    """What a person wrote; the rest are defaults, which a task has its own of."""
    return {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"
    }


def _flag(context: typer.Context, name: str) -> str:
    found = next(each for each in context.command.params if each.name == name)
    return found.opts[0]
