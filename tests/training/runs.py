"""Runs whose options are given as JSON, to be made by one process or by several together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vitc.training import TrainOptions, train

_PATHS = ("out", "start", "teacher")


def main(file: str) -> None:
    """Make all runs of a file."""
    for options in json.loads(Path(file).read_text()):
        paths = {name: Path(options[name]) for name in _PATHS if name in options}
        train(TrainOptions(**{**options, **paths}))


if __name__ == "__main__":
    main(sys.argv[1])
