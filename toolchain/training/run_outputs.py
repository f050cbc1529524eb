"""The four files of a training run: nobody else writes them while it goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from vitc.errors import VitcError
from vitc.outputs import FileOutput, claim_file
from vitc.training.options import RunOptions

__all__ = ["RunOutputs", "check_outputs", "claim_outputs", "is_main"]


@dataclass(frozen=True)
class RunOutputs:
    """What a run writes, claimed as long as it lasts."""

    checkpoint: FileOutput
    last: FileOutput
    curve: FileOutput
    history: FileOutput


@contextmanager
def claim_outputs(options: RunOptions) -> Iterator[RunOutputs]:
    """Claim the files of a run; those of the run that is resumed are its own.

    Raises:
        VitcError: If one exists, cannot be written, or another process trains into it.
    """
    own = options.force or options.resume
    if options.last.is_file() and not own:
        raise VitcError(
            f"{options.last} exists already: a run has been begun there.",
            "Go on with it by --resume, or begin anew with --force.",
        )
    with ExitStack() as stack:
        files = (options.out, options.last, options.curve, options.history)
        yield RunOutputs(*(stack.enter_context(claim_file(f, force=own)) for f in files))


def check_outputs(options: RunOptions) -> None:
    """Raise what `claim_outputs` would raise now; a process beside the main one writes nothing."""
    if is_main():
        with claim_outputs(options):
            pass


def is_main() -> bool:
    """Whether this process prints and writes: of several that were launched together, the first.

    Told by what torchrun and accelerate launch set, before PyTorch is imported.
    """
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return not several or os.environ.get("RANK", "0") == "0"
