from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vitc.bench.estimate import PROCESSORS, estimate, find_llvm_mca, loop_cycles
from vitc.bench.measure import BenchOptions
from vitc.compiler.assembly import hot_loops
from vitc.errors import VitcError
from vitc.runtime.artefact import Artefact
from vitc.targets import TARGETS

CHAIN = """
kernel:
.LBB0_1:
	cnt	v0.16b, v0.16b
	add	x0, x0, #1
	add	x0, x0, #1
	add	x0, x0, #1
	add	x0, x0, #1
	add	x0, x0, #1
	cbnz	x0, .LBB0_1
.Lfunc_end0:
"""


@pytest.fixture
def tool() -> str:
    try:
        return find_llvm_mca()
    except VitcError as error:
        pytest.skip(str(error))


def test_a_chain_of_five_additions_takes_five_cycles(tool: str) -> None:
    (loop,) = hot_loops(CHAIN, "popcount")["kernel"]

    for processor in PROCESSORS:
        assert loop_cycles(loop, tool, processor, TARGETS["arm"]) == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("target", ["arm", "armv7"])
def test_every_kernel_with_macs_is_modelled_and_scaled_by_executed_instructions(
    tool: str, compiled: Callable[[str], Artefact], target: str
) -> None:
    artefact = compiled(target)

    once = estimate(artefact, "cortex-a72", 1_000_000)
    twice = estimate(artefact, "cortex-a72", 2_000_000)

    kernels = {step["kernel"] for step in artefact.manifest["steps"] if step["binary"]}
    assert {k.kernel for k in once.kernels if k.unit == "popcount"} == kernels
    assert {k.unit for k in once.kernels} == {"popcount", "fma"}
    assert twice.milliseconds == pytest.approx(2 * once.milliseconds)
    assert once.to_dict()["modelled"] is True
    # Two vector instructions a cycle, three for 128 MACs: XOR, popcount and add.
    assert 1 < once.slowest_product < 128 * 2 / 3


def test_a_missing_llvm_mca_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(VitcError, match="apt-get install llvm"):
        find_llvm_mca()


def test_the_newest_llvm_mca_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llvm-mca", "llvm-mca-14", "llvm-mca-19"):
        path = tmp_path / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_llvm_mca() == shutil.which("llvm-mca-19")


def test_an_unknown_processor_lists_the_known() -> None:
    with pytest.raises(VitcError, match="cortex-a72, cortex-a76"):
        BenchOptions(estimate="cortex-m0")


def test_times_are_modelled_for_arm_only(tool: str, compiled: Callable[[str], Artefact]) -> None:
    with pytest.raises(VitcError, match="for ARM only"):
        estimate(compiled("x86-64-v2"), "cortex-a72", 1_000_000)
