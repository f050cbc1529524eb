"""What a run says of itself in its state and its checkpoint, so that no other's is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vitc.errors import VitcError
from vitc.training.options import RunOptions
from vitc.training.progress_files import EPOCHS

if TYPE_CHECKING:
    from vitc.training.objectives.objective import Best

__all__ = ["described", "earlier_test", "provenance"]

_OF_THE_CALL: Final = frozenset(("out", "resume", "force"))


def described(
    options: RunOptions, made: Collection[str], leave_out: Collection[str] = ()
) -> dict[str, Any]:
    """The options as JSON values, data by their resolved path.

    Args:
        options: Of the run, `data` among them.
        made: Names of data that are no path.
        leave_out: Options that may change when a run is resumed, beside those of the files.
    """
    plain: dict[str, Any] = {
        field.name: list(value) if isinstance(value, tuple) else value
        for field, value in ((field, getattr(options, field.name)) for field in fields(options))
        if field.name not in _OF_THE_CALL and field.name not in leave_out
    }
    data = plain["data"]
    return {**plain, "data": data if data in made else str(Path(data).resolve())}


def provenance(best: Best, run: Mapping[str, Any], score: str) -> dict[str, Any]:
    """What a checkpoint says of itself before it is judged.

    Args:
        best: Its epoch.
        run: As `described`.
        score: What the epoch was chosen by.
    """
    return {"options": dict(run), "epoch": best.epoch, score: best.score}


def earlier_test(
    stated: Mapping[str, Any], wanted: Mapping[str, Any], test: str, options: RunOptions
) -> Any:
    """What a checkpoint was judged to be by test data when the run was finished before, or None.

    Args:
        stated: What it says of itself.
        wanted: Its `provenance`.
        test: Name of what it was judged to be.
        options: Of the run.

    Raises:
        VitcError: If the checkpoint is not of this run.
    """
    before = {name: value for name, value in stated.items() if name != test}
    if _apart_from_epochs(before) != _apart_from_epochs(wanted):
        raise VitcError(
            f"{options.out} is not the best checkpoint of the run of {options.last}.",
            "Train without resuming.",
        )
    return stated.get(test)


def _apart_from_epochs(provenance: Mapping[str, Any]) -> dict[str, Any]:
    options = provenance.get("options")
    if not isinstance(options, Mapping):
        return dict(provenance)
    return {**provenance, "options": {k: v for k, v in options.items() if k != EPOCHS}}
