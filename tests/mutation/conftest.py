"""One small network whose file, artefacts and sources the tests damage."""

from __future__ import annotations

import functools
import importlib
import inspect
import shutil
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from vitc.compiler import compile_model
from vitc.dialect.proto import to_proto
from vitc.errors import VitcError
from vitc.exporter import Traced, build, trace
from vitc.models import ModelConfig, SIBiViT
from vitc.models.initialise import random_model
from vitc.verify import CheckOptions, CheckReport, check, check_file

# Nothing is a multiple of eight, so that every packed axis has pad bits.
CONFIG = ModelConfig(
    image_size=12,
    patch_size=4,
    width=42,
    depth=2,
    heads=2,
    hidden=37,
    classes=5,
    si=True,
    si_hidden=13,
)


@dataclass(frozen=True)
class World:
    """A model, traced once since that takes seconds, and the file that it exports to."""

    source: Traced
    file: Path

    @property
    def model(self) -> SIBiViT:
        return self.source.model

    def proto(self) -> onnx.ModelProto:
        return onnx.load(self.file)

    def judge(self, candidate: Path) -> CheckReport:
        """What `vitc check` says of the values alone: each fault has to show in them."""
        return check(candidate, self.source, CheckOptions(images=2, rebuild=False))

    def verdict(self, candidate: Path) -> tuple[CheckReport | None, str]:
        """The report, or the sentence that refuses the candidate."""
        try:
            return self.judge(candidate), ""
        except VitcError as error:
            return None, error.message


def _world(folder: Path, seed: int) -> World:
    source = trace(random_model(CONFIG, seed))
    proto = to_proto(build(source)[0])
    (folder / "m.onnx").write_bytes(proto.SerializeToString(deterministic=True))
    return World(source, folder / "m.onnx")


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    return _world(tmp_path_factory.mktemp("world"), 1)


@pytest.fixture(scope="session")
def other(tmp_path_factory) -> World:
    """Another model of the same shape."""
    return _world(tmp_path_factory.mktemp("other"), 2)


@pytest.fixture(scope="session")
def sound(world, tmp_path_factory) -> Path:
    """A sound artefact."""
    return compile_model(world.file, "x86-64-v2", tmp_path_factory.mktemp("sound") / "a").path


@pytest.fixture(scope="session")
def foreign(other, tmp_path_factory) -> Path:
    """A sound artefact of the other model."""
    return compile_model(other.file, "x86-64-v2", tmp_path_factory.mktemp("foreign") / "a").path


@pytest.fixture
def artefact(sound, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(sound, tmp_path / "artefact"))


@pytest.fixture
def export_once(monkeypatch):
    """Let `check` export the reference only once."""
    monkeypatch.setattr(check_file, "build", _built)


@functools.cache
def _built(source: SIBiViT | Traced, **options):
    return build(source, **options)


@pytest.fixture
def inject(monkeypatch) -> Callable[[str, str, str], types.ModuleType]:
    """Change one line of a module of vitc, for this test; gives the changed module."""

    def change(module_name: str, old: str, new: str) -> types.ModuleType:
        module = importlib.import_module(module_name)
        source = inspect.getsource(module)
        found = source.count(old)
        assert found == 1, f"{module_name} holds {old!r} {found} times; bring the fault up to date"
        changed = types.ModuleType(module_name)
        changed.__file__ = module.__file__
        # Dataclasses look their module up while they are made.
        monkeypatch.setitem(sys.modules, module_name, changed)
        exec(compile(source.replace(old, new), str(module.__file__), "exec"), vars(changed))  # noqa: S102
        monkeypatch.setitem(sys.modules, module_name, module)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != module_name:
                continue
            if isinstance(value, type):
                for attribute, method in vars(vars(changed)[name]).items():
                    if isinstance(method, types.FunctionType | property):
                        monkeypatch.setattr(value, attribute, method)
                vars(changed)[name] = value
            elif isinstance(value, types.FunctionType):
                _replace_everywhere(monkeypatch, value, vars(changed)[name])
        return changed

    return change


def _replace_everywhere(monkeypatch, old, new) -> None:
    for module in [m for n, m in sys.modules.items() if n.partition(".")[0] == "vitc"]:
        for name, value in list(vars(module).items()):
            if value is old:
                monkeypatch.setattr(module, name, new)
