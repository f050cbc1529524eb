from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vitc import api
from vitc.cli.main import main
from vitc.models import save


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Vitc = Callable[..., Outcome]


@dataclass
class Built:
    """One small network on all stations of its way."""

    checkpoint: Path
    onnx: Path
    artefact: Path


@pytest.fixture
def vitc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vitc:
    """Run the command line in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["vitc", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        code = left.value.code
        captured = capsys.readouterr()
        return Outcome(int(code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    paths = Built(folder / "m.safetensors", folder / "m.onnx", folder / "native")
    save(api.new("micro", depth=1, seed=2), paths.checkpoint)
    api.export(paths.checkpoint, paths.onnx)
    api.compile(paths.onnx, paths.artefact)
    return paths
