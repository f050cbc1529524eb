"""The driver and the tables of a model under sanitizers, warnings as errors, and valgrind.

The kernels are object code of TVM and run as they are; what they read and write is checked where
the sanitizer intercepts it, by valgrind everywhere.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.absent import absent, need_gcc, unrandomised
from tests.runtime import hand_made
from vitc.compiler import compile as compiling
from vitc.compiler import compile_model
from vitc.exporter import export
from vitc.models import ModelConfig
from vitc.models.initialise import random_model

RUNTIME = Path(__file__).parents[2] / "toolchain" / "runtime"
STRICT = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{RUNTIME}"]
CONFIG = ModelConfig(
    image_size=12,
    patch_size=4,
    width=42,
    depth=1,
    heads=2,
    hidden=37,
    classes=5,
    si=True,
    si_hidden=13,
)

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="builds x86-64 kernels")


def gcc(*arguments: object) -> None:
    done = subprocess.run(
        [need_gcc(), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr


def name_weights(kept: Path) -> None:
    """Name the file of the weights in full: the assembler looks for it in its own folder."""
    weights = (kept / "weights.S").read_text().replace("weights.bin", f"{kept}/weights.bin")
    (kept / "weights.S").write_text(weights)


@pytest.fixture(scope="module")
def parts_by_hand(tmp_path_factory) -> Path:
    """The same of a library with two entries."""
    kept = tmp_path_factory.mktemp("by_hand")
    hand_made.make_library(tmp_path_factory.mktemp("ports"), kept)
    name_weights(kept)
    return kept


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """What a library is linked of: tables.c, weights.S, weights.bin and kernels.o."""
    folder, kept = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("parts")
    export(random_model(CONFIG, 1), folder / "m.onnx")
    link = compiling.link_library

    def keep(work, *arguments, **options):
        objects = link(work, *arguments, **options)
        shutil.copytree(work, kept, dirs_exist_ok=True)
        name_weights(kept)
        return objects

    compiling.link_library = keep
    try:
        compile_model(folder / "m.onnx", "x86-64-v2", folder / "out", batch=2)
    finally:
        compiling.link_library = link
    return kept


def build(parts: Path, out: Path, *options: str, program: str = "stress.c") -> Path:
    gcc(
        *STRICT,
        "-g",
        "-O1",
        *options,
        Path(__file__).with_name(program),
        RUNTIME / "vitc_driver.c",
        parts / "tables.c",
        parts / "weights.S",
        parts / "kernels.o",
        "-lpthread",
        "-no-pie",
        "-o",
        out,
    )
    return out


def run(*command: object, timeout: float = 600) -> None:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=timeout, check=False
    )
    if "unexpected memory mapping" in done.stderr:
        absent("this kernel places memory where ThreadSanitizer keeps its own", "VITC_REQUIRE_GCC")
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "fine\n"


PROGRAMS = ["stress.c", "stress_tvm.c"]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
def test_careless_use_is_clean_under(parts, tmp_path, kind, program):
    flags = (f"-fsanitize={kind}", "-fno-sanitize-recover=all")
    run(*unrandomised(), build(parts, tmp_path / "stress", *flags, program=program))


@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
def test_ports_of_every_size_are_clean_under(parts_by_hand, tmp_path, kind):
    flags = (f"-fsanitize={kind}", "-fno-sanitize-recover=all")
    built = build(parts_by_hand, tmp_path / "stress", *flags, program="stress_ports.c")
    run(*unrandomised(), built)


SANITIZED = ("-fsanitize=address,undefined", "-Wl,--wrap=pthread_create")


@pytest.mark.parametrize("flags", [(), SANITIZED], ids=["plain", "address"])
def test_forks_under_load_are_exact_and_never_hang(parts, tmp_path, flags):
    # Not under the thread sanitizer, which starts no threads in a child of a threaded process.
    run(*unrandomised(), build(parts, tmp_path / "fork", *flags, program="fork.c"))


def test_a_fault_is_seen_by_the_sanitizer(parts, tmp_path):
    # The claim of the test above is worth something only if it can fail.
    source = tmp_path / "fault.c"
    source.write_text(
        '#include "vitc_model.h"\n'
        "int main(void) {\n"
        "  static float input[2 * 3 * 12 * 12];\n"
        "  float output[1];\n"
        "  vitc_model *model;\n"
        "  vitc_create(1, &model);\n"
        "  vitc_run(model, input, output);\n"
        "  return 0;\n"
        "}\n"
    )
    gcc(
        *STRICT, "-O0", "-g", "-fsanitize=address", source, RUNTIME / "vitc_driver.c",
        parts / "tables.c", parts / "weights.S", parts / "kernels.o", "-lpthread", "-no-pie",
        "-o", tmp_path / "fault",
    )  # fmt: skip
    fault = [*unrandomised(), tmp_path / "fault"]
    done = subprocess.run(fault, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "stack-buffer-overflow" in done.stderr


@pytest.mark.parametrize("name", ["driver", "tvm", "loader", "arrays", "self_test"])
def test_the_c_sources_are_standard_without_a_warning(tmp_path, name):
    gcc(*STRICT, "-Wpedantic", "-O2", "-c", RUNTIME / f"vitc_{name}.c", "-o", tmp_path / "out.o")


def test_the_runner_compiles_without_a_warning(tmp_path):
    # Not pedantic: functions are looked up by name, which ISO C has no pointer for.
    gcc(*STRICT, "-O2", "-c", RUNTIME / "vitc_run.c", "-o", tmp_path / "out.o")


def test_the_header_is_c_plus_plus_too(tmp_path):
    # By zig's compiler: gcc may be there without its C++.
    options = ["-x", "c++", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c"]
    command = [sys.executable, "-m", "ziglang", "c++", *options, RUNTIME / "vitc_model.h"]
    command += ["-o", tmp_path / "out.o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_valgrind_finds_nothing(parts, tmp_path, program):
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        absent("no valgrind, `apt install valgrind` brings it", "VITC_REQUIRE_VALGRIND")
    built = build(parts, tmp_path / "stress", program=program)
    # Threads that spin for each other get nowhere unless each has its turn.
    options = ("--quiet", "--error-exitcode=9", "--leak-check=full", "--fair-sched=yes")
    run(valgrind, *options, built, timeout=1200)
