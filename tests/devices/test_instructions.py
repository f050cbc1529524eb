from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from vitc.compiler import compile_model
from vitc.devices.instructions import count_instructions
from vitc.errors import VitcError
from vitc.exporter import export
from vitc.models import ModelConfig
from vitc.models.initialise import random_model
from vitc.runtime.artefact import Artefact
from vitc.targets import find

CONFIG = ModelConfig(image_size=12, patch_size=4, width=64, depth=1, heads=2, hidden=96, classes=5)
# Numbers in the runner's report have more or fewer digits.
FORMATTING = 2_000


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artefact]:
    folder: Path = tmp_path_factory.mktemp("count")

    def make(target: str, *, depth: int = 1, batch: int = 1) -> Artefact:
        name = f"{target}-{depth}-{batch}"
        if (folder / name).is_dir():
            return Artefact.open(folder / name)
        config = dataclasses.replace(CONFIG, depth=depth)
        export(random_model(config, 0), folder / f"{name}.onnx")
        return compile_model(folder / f"{name}.onnx", target, folder / name, batch=batch)

    return make


@pytest.mark.parametrize("target", ["arm", "armv7", "x86-64-v2"])
def test_the_count_repeats(
    target: str, compiled: Callable[..., Artefact], need_counting_emulator: Callable[[str], str]
) -> None:
    need_counting_emulator(find(target).emulator)
    artefact = compiled(target)

    first, second = count_instructions(artefact), count_instructions(artefact)

    assert first == pytest.approx(second, abs=FORMATTING)
    assert first > 10 * FORMATTING


def test_the_count_grows_with_the_blocks_and_is_that_of_one_image(
    compiled: Callable[..., Artefact], need_counting_emulator: Callable[[str], str]
) -> None:
    need_counting_emulator("aarch64")

    one, three, batch = (
        count_instructions(compiled("arm", **sizes))
        for sizes in ({}, {"depth": 3}, {"depth": 3, "batch": 2})
    )

    assert 1.5 * one < three
    assert batch == pytest.approx(three, abs=FORMATTING)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Stand in for qemu-aarch64 with a shell script."""

    def write(body: str) -> None:
        path = tmp_path / "qemu-aarch64"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return write


def test_an_emulator_without_plugins_is_explained(
    compiled: Callable[..., Artefact], stub: Callable[[str], None]
) -> None:
    artefact = compiled("arm")
    stub("echo 'qemu: unknown option plugin' >&2; exit 1")

    with pytest.raises(VitcError, match=r"unknown option plugin.*qemu-user-static"):
        count_instructions(artefact)


def test_an_emulator_of_a_newer_interface_is_given_the_version_it_takes(
    compiled: Callable[..., Artefact], stub: Callable[[str], None]
) -> None:
    artefact = compiled("arm")
    stub(
        'case "$*" in *count3.so*) ;; *) echo "requires API version" >&2; exit 1;; esac\n'
        'for a; do case "$a" in *out=*) echo 7 > "${a##*out=}";; esac; done; exit 1'
    )

    # The stub is asked once more for a real run, which it fails; the versions before were refused.
    with pytest.raises(VitcError, match="The runner failed"):
        count_instructions(artefact)
