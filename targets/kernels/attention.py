"""Binary attention of one head and query: scores, mask, mask times signs, threshold.

Instruction set: any. Tile: one query against all keys. Layouts: queries as rows, keys and values
(along tokens) as lanes, context as rows with every head padded to a multiple of 32 bits.

Softmax and its threshold of a quarter of the maximum vanish (Hamming distance <= row minimum +
slack), and with acc = popcount(A & v) the bit [2 acc - popcount(A) >= t] is [acc >= ceil((t +
popcount(A)) / 2)].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from vitc.targets.isa import Isa
from vitc.targets.kernels.emitter import HALF, Emitter, Kernel, mask_bits
from vitc.targets.kernels.popcount_tile import chunks
from vitc.targets.layouts import WORD, Axis, round_up

__all__ = ["MAX_BYTE_DISTANCE", "AttentionShape", "attention_kernel"]

MAX_BYTE_DISTANCE = 240
"""Largest head width whose distance plus slack fits 8-bit lanes."""

_UNROLLED_BLOCKS = 16


@dataclass(frozen=True)
class AttentionShape:
    """Geometry of one attention layer.

    Attributes:
        tokens: Queries, and keys.
        head: Heads and their width.
        slack: Hamming distance above the row minimum that is still attended.
    """

    tokens: int
    head: Axis
    slack: int


def _row_minimum(vector: Any, element: str, lanes: int) -> Any:
    bits = element.removeprefix("uint")
    return T.call_llvm_pure_intrin(element, f"llvm.vector.reduce.umin.v{lanes}i{bits}", vector)


def attention_kernel(symbol: str, isa: Isa, shape: AttentionShape) -> Kernel:
    """Build the attention kernel.

    Arguments of the C function: queries, keys, values, threshold [tokens] (int32), out, begin, end.

    Args:
        symbol: Name of the C function.
        isa: Instruction set.
        shape: Geometry.

    Returns:
        The kernel. Its tasks are (head, query) pairs.
    """
    emitter = Emitter(symbol)
    lanes, element, tokens = isa.lanes, isa.element, shape.tokens
    head = shape.head
    key_blocks = round_up(tokens, lanes) // lanes
    width = head.padded_group // isa.element_bits
    value_blocks = head.padded_group // lanes
    words = round_up(tokens, WORD) // WORD
    token_elements = words * WORD // isa.element_bits
    context_halves = head.padded // HALF
    most = (1 << isa.element_bits) - 1
    with emitter.open() as e:
        queries, keys, values, threshold, out = e.pointers(
            queries=element, keys=element, values=element, threshold="int32", out="uint16"
        )
        distances = e.local(element, key_blocks * lanes)
        nearest = e.local(element, lanes)
        mask = e.local("uint32", words)
        mask_elements = T.decl_buffer((token_elements,), element, data=mask.data, scope="local")
        total = e.local("int32", 1)

        def measure(query: Any, first: Any, block: Any, *, last: bool) -> None:
            """Distances of one block of keys, and the nearest; padding keys are out of reach."""
            value = e.constant(element, 0, lanes)
            for w in range(width):
                key = e.load(keys, first + (block * width + w) * lanes, lanes)
                value = value + T.popcount(T.bitwise_xor(e.splat(queries[query + w], lanes), key))
            if last and tokens % lanes:
                lane = T.Ramp(T.int32(0), T.int32(1), lanes)
                inside = lane < e.constant("int32", tokens % lanes, lanes)
                value = T.Select(inside, value, e.constant(element, most, lanes))
            value = e.let(value)
            e.store(distances, block * lanes, value, lanes)
            e.store(nearest, 0, T.min(e.load(nearest, 0, lanes), value), lanes)

        def choose(word: Any, limit: Any, *, last: bool) -> None:
            """Mask bits of 32 keys, in one word; put together in registers, not in memory."""
            first_block = word * (WORD // lanes)
            blocks = min(WORD // lanes, key_blocks - first_block) if last else WORD // lanes
            bits = e.constant("uint32", 0)
            for i in range(blocks):
                near = e.load(distances, (first_block + i) * lanes, lanes) <= e.splat(limit, lanes)
                part = e.cast("uint32", mask_bits(near, lanes))
                bits = T.bitwise_or(bits, T.shift_left(part, T.uint32(i * lanes)))
            if last and tokens % WORD:
                # Set even in padding when the largest distance is within the slack.
                bits = T.bitwise_and(bits, e.constant("uint32", (1 << tokens % WORD) - 1))
            word_bits = e.let(bits)
            e.store(mask, word, word_bits)
            e.store(total, 0, total[0] + e.cast("int32", T.popcount(word_bits)))

        def each(count: int, body: Callable[[Any, bool], None]) -> None:
            """Unroll where everything stays in registers, else loop; the last one is apart."""
            if key_blocks <= _UNROLLED_BLOCKS:
                for index in range(count - 1):
                    body(index, False)
            else:
                with e.loop(0, count - 1) as index:
                    body(index, False)
            body(count - 1, True)

        with e.loop(e.begin, e.end) as task:
            h = e.let(T.floordiv(task, tokens))
            n = e.let(T.floormod(task, tokens))
            query = e.let((n * head.groups + h) * width)
            first_key = e.let(h * (key_blocks * width * lanes))
            e.store(nearest, 0, e.constant(element, most, lanes), lanes)
            each(key_blocks, lambda block, last: measure(query, first_key, block, last=last))
            limit = e.let(
                _row_minimum(e.load(nearest, 0, lanes), element, lanes)
                + e.constant(element, shape.slack)
            )
            e.store(total, 0, e.constant("int32", 0))
            each(words, lambda word, last: choose(word, limit, last=last))
            # Arithmetic shift: floor((t + c + 1) / 2) = ceil((t + c) / 2).
            bound = e.let(T.shift_right(threshold[n] + total[0] + 1, T.int32(1)))
            for block in range(value_blocks):
                first = (h * value_blocks + block) * (token_elements * lanes)
                counted = _attended(e, isa, values, first, mask_elements, token_elements)
                for half in range(lanes // HALF):
                    sums = e.cast("int32", e.load(counted, half * HALF, HALF), HALF)
                    bits = mask_bits(sums >= e.splat(bound, HALF))
                    valid = head.size - block * lanes - half * HALF
                    if valid < HALF:
                        keep = (1 << max(valid, 0)) - 1
                        bits = T.bitwise_and(bits, e.constant("uint16", keep))
                    index = n * context_halves + h * (head.padded_group // HALF)
                    e.store(out, index + block * (lanes // HALF) + half, bits)
    return emitter.kernel(head.groups * tokens)


def _attended(e: Emitter, isa: Isa, values: Any, first: Any, mask: Any, elements: int) -> Any:
    """Popcounts of mask AND values for one block of lanes; returns a local buffer of sums."""
    lanes = isa.lanes
    wide = isa.element_bits == 8 and len(chunks(elements)) > 1
    sums = e.local(isa.element, lanes)
    total = e.local("uint16", lanes) if wide else sums
    runs = chunks(elements) if wide else [(0, elements)]
    for number, (start, stop) in enumerate(runs):
        e.store(sums, 0, e.constant(isa.element, 0, lanes), lanes)
        for index in range(start, stop):
            value = e.load(values, first + index * lanes, lanes)
            count = T.popcount(T.bitwise_and(e.splat(mask[index], lanes), value))
            e.store(sums, 0, e.load(sums, 0, lanes) + count, lanes)
        if wide:
            widened = e.cast("uint16", e.load(sums, 0, lanes), lanes)
            if number:
                widened = widened + e.load(total, 0, lanes)
            e.store(total, 0, widened, lanes)
    return total
