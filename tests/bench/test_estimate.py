from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vitc.bench.estimate import (
    PROCESSORS,
    estimate,
    find_llvm_mca,
    loop_cycles,
    only_modelled,
)
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

    for processor in PROCESSORS.values():
        if not processor.counted:
            continue
        assert loop_cycles(loop, tool, processor, TARGETS["arm"]) == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("target", ["arm", "armv7"])
def test_every_kernel_with_macs_is_modelled_and_scaled_by_executed_instructions(
    tool: str, compiled: Callable[[str], Artefact], target: str
) -> None:
    artefact = compiled(target)

    once = estimate(artefact, "cortex-a72", 1_000_000)
    twice = estimate(artefact, "cortex-a72", 2_000_000)

    kernels = {step.kernel for step in artefact.manifest.steps if step.binary}
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


@pytest.mark.parametrize(
    ("target", "processor"), [("x86-64-v2", "cortex-a72"), ("arm", "sapphire-rapids")]
)
def test_a_processor_of_another_architecture_is_refused(
    tool: str, compiled: Callable[[str], Artefact], target: str, processor: str
) -> None:
    with pytest.raises(VitcError, match="do not run on"):
        estimate(compiled(target), processor, 1_000_000)


PRODUCTS = """
kernel:
.LBB0_1:
	tdpbssd	%tmm1, %tmm2, %tmm0
	tdpbssd	%tmm3, %tmm4, %tmm5
	decq	%rax
	jne	.LBB0_1
.Lfunc_end0:
"""


def test_a_tile_product_takes_at_least_sixteen_cycles(tool: str) -> None:
    (loop,) = hot_loops(PRODUCTS, "int8")["kernel"]
    assert loop.work("int8") == 2 * 16 * 16 * 64
    assert loop_cycles(loop, tool, PROCESSORS["sapphire-rapids"], TARGETS["x86-amx"]) >= 32


def test_tiles_signs_and_popcounts_of_an_amx_artefact_are_modelled(
    tool: str, compiled: Callable[[str], Artefact]
) -> None:
    artefact = compiled("x86-amx")
    found = estimate(artefact, "sapphire-rapids")

    units = {(k.kernel.rpartition("_")[0], k.unit) for k in found.kernels}
    for product in ("threshold_rows", "threshold_keys", "threshold_columns", "residual"):
        assert {(f"vitc_amx_{product}", "int8"), (f"vitc_amx_{product}", "signs")} <= units
    assert ("vitc_signs", "signs") in units
    assert ("vitc_attention", "popcount") in units
    assert found.milliseconds == pytest.approx(found.hot_cycles / 3e6)
    assert found.to_dict()["hot_loop_share_of_instructions"] is None
    assert only_modelled(artefact, "sapphire-rapids") == bool(artefact.missing_features())
    assert not only_modelled(compiled("arm"), "cortex-a72")
