# AMX in many encodings, for tests of the emulator. Each program takes (configuration, a, b, c) and, with tiles of
# 0: sums, 1: left, 2: right operand in the configuration, leaves c + a * b in c. Rows lie 64 bytes apart.
        .intel_syntax noprefix
        .text

        .macro program name
        .globl \name
\name:
        .endm

program signed_signed
        ldtilecfg [rdi]
        mov eax, 64
        tileloadd tmm0, [rcx + rax]
        tileloadd tmm1, [rsi + rax]
        tileloadd tmm2, [rdx + rax]
        tdpbssd tmm0, tmm1, tmm2
        tilestored [rcx + rax], tmm0
        tilerelease
        ret

# Displacements of 8 bits, a scaled index, and an index among the upper registers.
program signed_unsigned
        ldtilecfg [rdi]
        push r14
        mov r14d, 32
        sub rcx, 100
        tileloadd tmm0, [rcx + 2*r14 + 100]
        tileloaddt1 tmm1, [rsi + 2*r14]
        tileloaddt1 tmm2, [rdx + 2*r14]
        tdpbsud tmm0, tmm1, tmm2
        tilestored [rcx + 2*r14 + 100], tmm0
        pop r14
        tilerelease
        ret

# Bases that need a SIB byte (r12) or a displacement (r13, rbp) by themselves; displacements of 32 bits.
program unsigned_signed
        push rbp
        push r12
        push r13
        mov r12, rcx
        lea r13, [rsi + 5000]
        mov rbp, rdx
        ldtilecfg [rdi]
        mov edx, 8
        tileloadd tmm0, [r12 + 8*rdx]
        tileloadd tmm1, [r13 + 8*rdx - 5000]
        tileloadd tmm2, [rbp + 8*rdx]
        tdpbusd tmm0, tmm1, tmm2
        tilestored [r12 + 8*rdx], tmm0
        pop r13
        pop r12
        pop rbp
        tilerelease
        ret

# A configuration that was read back from the processor, relative to rsp; an index among the upper registers.
program unsigned_unsigned
        sub rsp, 200
        ldtilecfg [rdi]
        sttilecfg [rsp + 136]
        tilerelease
        ldtilecfg [rsp + 136]
        mov r9d, 64
        tileloadd tmm0, [rcx + r9]
        tileloadd tmm1, [rsi + r9]
        tileloadd tmm2, [rdx + r9]
        tdpbuud tmm0, tmm1, tmm2
        tilestored [rcx + r9], tmm0
        add rsp, 200
        tilerelease
        ret

# A configuration relative to rip, the uppermost tiles, and a sum that starts from zero.
program upper_tiles
        ldtilecfg [rip + mirrored]
        mov eax, 64
        tileloadd tmm7, [rcx + rax]
        tilezero tmm7
        tileloadd tmm6, [rsi + rax]
        tileloadd tmm5, [rdx + rax]
        tdpbssd tmm7, tmm6, tmm5
        tilestored [rcx + rax], tmm7
        tilerelease
        ret

program before_configuration
        tilezero tmm0
        ret

program same_tile_twice
        ldtilecfg [rdi]
        .byte 0xc4, 0xe2, 0x73, 0x5e, 0xc1 # tdpbssd tmm0, tmm1, tmm1, which assemblers refuse
        ret

program after_release
        ldtilecfg [rdi]
        tilerelease
        tdpbssd tmm0, tmm1, tmm2
        ret

program tile_without_shape
        ldtilecfg [rdi]
        tilezero tmm3
        ret

program not_amx
        ud2
        ret

        .data
        .balign 64
mirrored:
        .byte 1
        .zero 15
        .zero 10
        .short 64, 64, 64
        .zero 16
        .zero 5
        .byte 16, 16, 16
        .zero 8
        .section .note.GNU-stack,"",%progbits
