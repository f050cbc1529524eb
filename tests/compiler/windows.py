"""A block of a network of windows, written operator by operator, of any sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from tests.compiler.graphs import onnx_graph
from vitc.dialect.bodies import set_functions
from vitc.dialect.metadata import DIALECT_KEY, FORM_KEY, TAP_KEY
from vitc.dialect.packing import pack_bits
from vitc.dialect.proto import to_proto

__all__ = ["Block", "block", "write_block"]

Array = np.ndarray


@dataclass(frozen=True)
class Block:
    """Sizes of a block.

    Attributes:
        map: Rows and columns of tokens.
        window: Those of a window.
        shift: How far windows are moved.
        width: Channels.
        heads: Attention heads.
        hidden: Channels of the MLP.
        si: Whether tokens of an unshifted window are mixed.
        bias: Whether scores have a bias.
        scale: Size of its numbers.
        keys: Side of the squares whose means are the keys of the one window; 0 for its tokens.
        seed: Of all constants.
    """

    map: tuple[int, int] = (4, 6)
    window: tuple[int, int] = (2, 3)
    shift: tuple[int, int] = (0, 0)
    width: int = 40
    heads: int = 2
    hidden: int = 50
    si: bool = True
    bias: bool = False
    scale: float = 8.0
    keys: int = 0
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Of the map."""
        return self.map[0] * self.map[1]

    @property
    def places(self) -> int:
        """Tokens of a window."""
        return self.window[0] * self.window[1]

    @property
    def count(self) -> int:
        """Windows."""
        return self.tokens // self.places


def block(size: Block) -> tuple[ir.Model, list[str]]:
    """The graph of x [1, tokens, width] -> y, and the names of its taps."""
    writer = _Writer(size)
    x = writer.attention("x")
    x = writer.mlp(x)
    if size.si:
        x = writer.spatial(x)
    writer.node("Add", [x, writer.constant(np.float32(1))], "y")
    shape = ["images", size.tokens, size.width]
    return onnx_graph(shape, writer.nodes, writer.constants), writer.taps


def write_block(size: Block, path: Path) -> list[str]:
    """Write the graph of `block` as a file that `vitc compile` takes; returns the names of taps."""
    model, taps = block(size)
    set_functions(model)
    model.graph.outputs[0].shape = ir.Shape(("images", size.tokens, size.width))
    model.metadata_props.update({DIALECT_KEY: "1", FORM_KEY: "packed"})
    for node in model.graph:
        for value in node.outputs:
            if value.name in taps:
                value.metadata_props[TAP_KEY] = str(value.name)
    path.write_bytes(to_proto(model).SerializeToString())
    return taps


class _Writer:
    def __init__(self, size: Block) -> None:
        self.size = size
        self.rng = np.random.default_rng(size.seed)
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.taps: list[str] = []

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def whole(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def node(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        name = name or f"v{len(self.nodes)}"
        self.nodes.append((kind, inputs, name, attributes))
        return name

    def tap(self, value: str, name: str) -> str:
        self.taps.append(name)
        return self.node("Identity", [value], name)

    def reshape(self, value: str, *shape: int) -> str:
        return self.node("Reshape", [value, self.whole(*shape)])

    def turn(self, value: str, *order: int) -> str:
        return self.node("Transpose", [value], perm=list(order))

    def roll(self, value: str, shift: tuple[int, int], channels: int) -> str:
        value = self.reshape(value, 1, *self.size.map, channels)
        for axis, (by, side) in enumerate(zip(shift, self.size.map, strict=True), 1):
            if by % side:
                ends = [(by % side, side), (0, by % side)]
                parts = [
                    self.node("Slice", [value, self.whole(a), self.whole(b), self.whole(axis)])
                    for a, b in ends
                ]
                value = self.node("Concat", parts, axis=axis)
        return self.reshape(value, 1, self.size.tokens, channels)

    def split(self, value: str, shift: tuple[int, int]) -> str:
        """[1, N, C] to [1, G, n, C]."""
        size, ((height, width), (rows, columns)) = self.size, (self.size.map, self.size.window)
        value = self.roll(value, shift, size.width)
        cut = (1, height // rows, rows, width // columns, columns, size.width)
        value = self.turn(self.reshape(value, *cut), 0, 1, 3, 2, 4, 5)
        return self.reshape(value, 1, size.count, size.places, size.width)

    def join(self, value: str, shift: tuple[int, int]) -> str:
        """The inverse of `split`."""
        size, ((height, width), (rows, columns)) = self.size, (self.size.map, self.size.window)
        cut = (1, height // rows, width // columns, rows, columns, size.width)
        value = self.turn(self.reshape(value, *cut), 0, 1, 3, 2, 4, 5)
        value = self.reshape(value, 1, size.tokens, size.width)
        return self.roll(value, (-shift[0], -shift[1]), size.width)

    def floats(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant((scale * self.rng.standard_normal(shape)).astype(np.float32))

    def sign(self, value: str, *shape: int) -> str:
        flip = self.constant(self.rng.random(shape) < 0.5)
        return self.node("vitc.Binarize", [value, self.floats(*shape, scale=0.5), flip])

    def packed(self, value: str, k: int) -> str:
        return self.node("vitc.PackBits", [value], k=k)

    def weight(self, outputs: int, k: int) -> str:
        return self.constant(pack_bits(self.rng.integers(0, 2, (outputs, k), dtype=np.uint8)))

    def affine(self, outputs: int) -> list[str]:
        scale = np.abs(self.rng.standard_normal(outputs)).astype(np.float32)
        return [self.constant(scale), self.floats(outputs)]

    def threshold(self, bits: str, k: int, outputs: int, places: int, groups: int) -> str:
        upper = self.floats(places, groups)
        lower = (
            self.floats(places, 1, scale=0.2)
            if groups == 1
            else self.constant(np.full((1, 1), -np.inf, np.float32))
        )
        if groups == 1:
            self.constants[lower] -= np.float32(4)
        inputs = [bits, self.weight(outputs, k), *self.affine(outputs), upper, lower]
        return self.node("vitc.BinaryLinearThreshold", inputs, k=k)

    def residual(self, bits: str, k: int, outputs: int, gain: str, to: str, turned: int) -> str:
        inputs = [bits, self.weight(outputs, k), *self.affine(outputs), gain, to]
        return self.node("vitc.BinaryLinearResidual", inputs, k=k, transposed=turned)

    def heads(self, bits: str, windows: int, places: int, name: str) -> str:
        size = self.size
        shape = (1, windows, places, size.heads, size.width // size.heads)
        return self.tap(self.turn(self.reshape(bits, *shape), 0, 1, 3, 2, 4), name)

    def attention(self, x: str) -> str:
        size, width = self.size, self.size.width
        head = width // size.heads
        bits = self.tap(self.split(self.sign(x, size.tokens, 1), size.shift), "attn.input")
        packed = self.packed(bits, width)
        windows, places = size.count, size.places
        held, others = places, packed
        if size.keys:
            held, others = self.pooled(x)
        made = []
        for name, source, count in (
            ("query", packed, places), ("key", others, held), ("value", others, held)
        ):  # fmt: skip
            made.append(self.threshold(source, width, width, count, size.heads))
            made[-1] = self.heads(made[-1], windows, count, f"attn.{name}")
        query, key, value = made
        pair = [self.packed(query, head), self.packed(key, head)]
        scores = self.node("vitc.BinaryScores", pair, k=head)
        if size.bias:
            mask = self.biased(scores, windows, held)
        else:
            mask = self.node("vitc.RowBestMask", [scores], slack=3)
        by_token = self.packed(self.turn(value, 0, 1, 2, 4, 3), held)
        context = self.node("vitc.MaskSignMatMul", [self.packed(mask, held), by_token], k=held)
        limit = self.constant(self.rng.integers(-3, 4, (places, 1)).astype(np.int32))
        context = self.node("vitc.IntegerThreshold", [context, limit])
        context = self.turn(context, 0, 1, 3, 2, 4)
        context = self.tap(self.reshape(context, 1, windows, places, width), "attn.context")
        one = self.constant(np.ones((1, 1), np.float32))
        to = self.split(x, size.shift)
        out = self.residual(self.packed(context, width), width, width, one, to, 0)
        return self.tap(self.join(out, size.shift), "attn.output")

    def biased(self, scores: str, windows: int, keys: int) -> str:
        size, rng = self.size, self.rng
        shape = (size.heads, size.places, keys)
        bias = (size.scale * rng.standard_normal(shape)).astype(np.float32)
        # Ties at the cut, which is 12: scores differ by even numbers.
        bias = np.where(rng.random(shape) < 0.5, 2 * rng.integers(-3, 4, shape), bias)
        bias[rng.random(shape) < 0.1] = -np.inf
        bias[rng.random(shape) < 0.05] = rng.choice([1e-40, -1e-40, 5000, -5000])
        bias[..., rng.integers(keys)] = 1
        excluded = np.zeros((1, 1, 1, 1), bool)
        if any(size.shift):
            kinds = rng.integers(0, 2, (3, keys)).astype(bool)
            kinds[:, rng.integers(keys)] = False
            excluded = kinds[rng.integers(0, 3, windows)][:, None, None].repeat(size.places, 2)
        inputs = [scores, self.constant(bias.astype(np.float32)), self.constant(excluded)]
        return self.node("vitc.BiasedBestMask", inputs, cut=12.0)

    def pooled(self, x: str) -> tuple[int, str]:
        """Signs of the means of squares, which are keys of all tokens: how many, and packed."""
        side = self.size.keys
        (height, width), channels = self.size.map, self.size.width
        cut = (1, height // side, side, width // side, side, channels)
        means = self.node("ReduceMean", [self.reshape(x, *cut), self.whole(2, 4)], keepdims=0)
        count = height // side * (width // side)
        stream = self.reshape(means, 1, 1, count, channels)
        return count, self.packed(self.sign(stream, 1, count, 1), channels)

    def mlp(self, x: str) -> str:
        size, width = self.size, self.size.width
        bits = self.packed(self.tap(self.sign(x, size.tokens, 1), "mlp.input"), width)
        hidden = self.threshold(bits, width, size.hidden, size.tokens, 1)
        packed = self.packed(self.tap(hidden, "mlp.hidden"), size.hidden)
        one = self.constant(np.ones((1, 1), np.float32))
        return self.tap(self.residual(packed, size.hidden, width, one, x, 0), "mlp.output")

    def spatial(self, x: str) -> str:
        width, places = self.size.width, self.size.places
        bits = self.turn(self.split(self.sign(x, 1, width), (0, 0)), 0, 1, 3, 2)
        packed = self.packed(self.tap(bits, "si.input"), places)
        hidden = self.tap(self.threshold(packed, places, places, width, 1), "si.hidden")
        gain = self.floats(width, 1)
        to = self.split(x, (0, 0))
        out = self.residual(self.packed(hidden, places), places, places, gain, to, 1)
        return self.tap(self.join(out, (0, 0)), "si.output")
