from __future__ import annotations

import pytest

from vitc.compiler.assembly import hot_loops

X86 = """
	.text
kernel:                                 # @kernel
	subq	$64, %rsp
.LBB0_1:                                # outer
	vpopcntd	%zmm0, %zmm0
.LBB0_2:                                # inner
	vmovdqu64	(%rdi), %zmm1
	vpxord	%zmm1, %zmm2, %zmm1
	vpopcntd	%zmm1, %zmm1
	vpaddd	32(%rsp), %zmm1, %zmm1
	vmovdqu64	%zmm1, 32(%rsp)
	cmpq	%rax, (%rdx)
	incq	%rax
	jne	.LBB0_2
.LBB0_3:                                # remainder
	vpopcntd	%xmm1, %xmm1
	jne	.LBB0_3
	jmp	.LBB0_1
.Lfunc_end0:
other:
	retq
.Lfunc_end1:
"""

ARM = """
kernel:                                 // @kernel
.LBB0_1:                                // =>This Inner Loop Header
	ldp	q0, q1, [x1], #32
	eor	v2.16b, v0.16b, v1.16b
	cnt	v2.16b, v2.16b
	cnt	v3.8b, v3.8b
	stp	q2, q3, [sp, #32]
	fmla	v4.4s, v5.4s, v6.4s
	bl	memset
	b.ne	.LBB0_1
.Lfunc_end0:
"""


def test_the_hot_loop_is_the_innermost_one_with_the_most_macs() -> None:
    loops = hot_loops(X86, "popcount")

    assert list(loops) == ["kernel"]
    (loop,) = loops["kernel"]
    assert loop.label == ".LBB0_2"
    assert loop.work("popcount") == 512
    assert len(loop.instructions) == 8
    assert loop.count("vpxord", "vpaddd") == 2


def test_stores_stack_accesses_and_calls_are_told_apart() -> None:
    (x86,) = hot_loops(X86, "popcount")["kernel"]
    (arm,) = hot_loops(ARM, "popcount")["kernel"]

    assert [i.mnemonic for i in x86.instructions if i.stores] == ["vmovdqu64"]
    assert [i.mnemonic for i in x86.instructions if i.on_stack] == ["vpaddd", "vmovdqu64"]
    assert not any(i.calls for i in x86.instructions)
    assert [i.mnemonic for i in arm.instructions if i.stores or i.on_stack] == ["stp"]
    assert [i.mnemonic for i in arm.instructions if i.calls] == ["bl"]


@pytest.mark.parametrize(("unit", "macs"), [("popcount", 128 + 64), ("fma", 4)])
def test_macs_of_an_arm_loop_are_bits_counted_and_lanes_multiplied(unit, macs) -> None:
    (loop,) = hot_loops(ARM, unit)["kernel"]

    assert loop.work(unit) == macs


def test_a_kernel_without_such_instructions_has_no_hot_loop() -> None:
    assert hot_loops(X86, "fma") == {}
