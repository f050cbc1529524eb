"""A name or a path that stands for nothing is answered before a framework is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vitc import names
from vitc.bench.baselines import BASELINES
from vitc.bench.estimate import PROCESSORS
from vitc.devices import DEVICES
from vitc.errors import VitcError
from vitc.models import PRESETS
from vitc.models.architectures.staged import MERGES
from vitc.models.config import NORMS
from vitc.models.schemes import SCHEMES
from vitc.targets import TARGETS, find

FRAMEWORKS = ["torch", "tvm", "onnxruntime", "onnx", "onnxscript", "sklearn", "matplotlib"]
PROBE = """
import sys
from vitc.cli.main import main
try:
    main()
finally:
    print("LOADED", *(name for name in {frameworks!r} if name in sys.modules))
"""


def answer(folder: Path, *arguments: str) -> tuple[str, list[str]]:
    """What a command says on stderr, and the frameworks it has imported by then."""
    code = PROBE.format(frameworks=FRAMEWORKS)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return done.stderr, done.stdout.splitlines()[-1].split()[1:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files and folders that exist, whatever is in them."""
    for name in ("m.onnx", "m.safetensors", "x.npy"):
        (tmp_path / name).write_bytes(b"")
    for name in ("artefact", "flowers"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "found", "meant"),
    [
        ("compile m.onnx --target rpi6 --out z", "rpi6", "rpi5"),
        ("compile m.onnx --target X86-avx512 --out z", "X86-avx512", "x86-avx512"),
        ("compile m.onx --out z", "m.onx", "m.onnx"),
        ("new deit-smal --out z.safetensors", "deit-smal", "deit-small"),
        ("train --preset mirco --out z.safetensors", "mirco", "micro"),
        ("train --data digts --out z.safetensors", "digts", "digits"),
        ("train --data flower --out z.safetensors", "flower", "flowers"),
        ("train --start m.safetensor --out z.safetensors", "m.safetensor", "m.safetensors"),
        ("export n.safetensors --out z.onnx", "n.safetensors", "m.safetensors"),
        ("export m.safetensors --format pakced --out z.onnx", "pakced", "packed"),
        ("export m.safetensors --scheme int-8 --out z.onnx", "int-8", "int8"),
        ("run artefct x.npy", "artefct", "artefact"),
        ("run artefact x.npy --device shh:board", "shh:board", "ssh://board"),
        ("run artefact x.npy --device qmu", "qmu", "qemu"),
        ("check artefact --reference m.safetensor", "m.safetensor", "m.safetensors"),
        ("check artefact --reference m.safetensors --data digit", "digit", "digits"),
        ("bench artifact", "artifact", "artefact"),
        ("bench artefact --baseline onnx-runtime", "onnx-runtime", "onnxruntime"),
        ("bench artefact --estimate cortex-a77", "cortex-a77", "cortex-a76"),
        ("tune artefakt", "artefakt", "artefact"),
        ("inspect m.safetensor", "m.safetensor", "m.safetensors"),
    ],
)
def test_a_slip_is_answered_with_the_nearest_name_before_a_framework_is_imported(
    folder, arguments, found, meant
) -> None:
    said, loaded = answer(folder, *arguments.split())

    assert f"{found}" in said.partition(": did you mean ")[0]
    assert said.partition(": did you mean ")[2].startswith(f"{meant}?")
    assert said.count("error: ") == 1
    assert loaded == []


@pytest.mark.parametrize(
    "arguments",
    ["compile m.onnx --target z80 --out z", "new quux --out z", "run artefact x --device moon"],
)
def test_a_name_like_no_other_lists_the_known(folder, arguments) -> None:
    said, loaded = answer(folder, *arguments.split())

    assert "did you mean" not in said
    assert "hint: Known: " in said
    assert loaded == []


@pytest.mark.parametrize("device", ["ssh://user:secret@host", "rpc://host"])
def test_a_device_without_a_proper_address_is_answered_at_once(folder, device) -> None:
    said, loaded = answer(folder, "bench", "artefact", "--device", device)

    assert "error: " in said
    assert loaded == []


def test_an_onnx_file_is_told_what_bench_wants(folder) -> None:
    said, loaded = answer(folder, "bench", "m.onnx")

    assert "`vitc compile m.onnx --out DIR`" in said
    assert loaded == []


def test_a_link_to_nothing_says_where_it_points(folder) -> None:
    (folder / "link").symlink_to("gone")

    assert "link is a link to gone, which is not there" in answer(folder, "inspect", "link")[0]


def test_the_names_are_those_of_the_tables() -> None:
    assert names.PRESETS.known == tuple(PRESETS)
    assert names.NORMS.known == NORMS
    assert names.MERGES.known == MERGES
    assert names.SCHEMES.known == tuple(SCHEMES)
    assert names.BASELINES.known == (*BASELINES, "none")
    assert names.PROCESSORS.known == tuple(PROCESSORS)
    kinds = [kind.scheme + ("://" if "://" in kind.syntax else "") for kind in DEVICES]
    assert list(names.DEVICES.known) == kinds


def test_x86_64_v3_is_another_name_of_x86() -> None:
    assert find("x86-64-v3") is TARGETS["x86"]


def test_the_library_names_the_nearest_too() -> None:
    with pytest.raises(VitcError, match=r"There is no target 'rpi6': did you mean rpi5\?"):
        find("rpi6")


@pytest.mark.parametrize("seed", [-1, 1 << 63, 10**30])
def test_a_seed_out_of_range_is_wrong_usage_with_the_range(vitc, tmp_path, seed) -> None:
    outcome = vitc("new", "micro", "--seed", seed, "--out", tmp_path / "m.safetensors")

    assert outcome.code == 2
    assert str((1 << 63) - 1 if seed > 0 else 0) in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_the_largest_seed_works(vitc, tmp_path) -> None:
    path = tmp_path / "m.safetensors"

    assert vitc("new", "micro", "--depth", 1, "--seed", (1 << 63) - 1, "--out", path).code == 0


def test_format_and_its_old_name_must_agree(vitc, built, tmp_path) -> None:
    out = tmp_path / "m.onnx"
    outcome = vitc(
        "export", built.checkpoint, "--format", "int8", "--scheme", "float", "--out", out
    )

    assert outcome.code == 2
    assert "--scheme float differ" in outcome.err
    assert not out.exists()
