"""What a network costs before it runs: parameters, bits, bytes and multiply-accumulates by layer.

Everything follows from the configuration, so no weights are needed. "Folded" is the least that a
compiled network has to store: 1 bit a binary weight; scale and bias of every binary linear; one
threshold and one direction bit where a batch norm and a shift meet a sign; one float a shift that
meets a sign after a linear layer; two bounds where a PReLU meets a sign; and the head, into which
the last norm's class token folds. Totals are those of the SI-BiViT size table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from vitc.models.config import ModelConfig

__all__ = ["Account", "LayerAccount", "LayerKind", "account"]

LayerKind: TypeAlias = Literal["binary", "folded", "float"]

_FP32_BYTES = 4
_OPS_PER_WORD = 64

_PIXELS = "pixels are real numbers; the papers keep the patch embedding in fp32"
_LOGITS = "class scores are real numbers; the papers keep the head in fp32"
_STREAM = "added to the fp32 residual stream"
_NORM = "folds with the shift that follows into one threshold a row, compared with the fp32 stream"
_LAST_NORM = "its class token folds into the head"
_SHIFT = "folds into the threshold on the integer before it"
_PRELU = "folds with its shifts into two bounds on the integer before it"
_LATENT = "32-bit weights: only the activations of this checkpoint are binary"


@dataclass(frozen=True)
class LayerAccount:
    """The cost of one layer for one image.

    Attributes:
        name: Layer, named as in the tap names.
        kind: ``binary`` (1-bit operands), ``folded`` (only thresholds remain) or ``float``.
        parameters: Trained values.
        buffers: Values that training collects (batch norm statistics).
        binary_weights: Weights that take one bit.
        fp32_bytes: Parameters and buffers in fp32.
        folded_bytes: What a compiled network stores.
        binary_macs: Multiply-accumulates of 1-bit operands.
        fp_macs: Multiply-accumulates in floating point.
        why: Why the layer is not binary, or not all of it; empty if it is.
    """

    name: str
    kind: LayerKind
    parameters: int = 0
    buffers: int = 0
    binary_weights: int = 0
    folded_bytes: float = 0
    binary_macs: int = 0
    fp_macs: int = 0
    why: str = ""

    @property
    def fp32_bytes(self) -> int:
        """Parameters and buffers, 4 bytes each."""
        return _FP32_BYTES * (self.parameters + self.buffers)


@dataclass(frozen=True)
class Account:
    """The cost of a network for one image, by layer and in total."""

    layers: tuple[LayerAccount, ...]

    @property
    def parameters(self) -> int:
        """Trained values."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def binary_weights(self) -> int:
        """Weights that take one bit."""
        return sum(layer.binary_weights for layer in self.layers)

    @property
    def fp32_bytes(self) -> int:
        """Bytes of parameters and buffers in fp32."""
        return sum(layer.fp32_bytes for layer in self.layers)

    @property
    def folded_bytes(self) -> float:
        """Bytes of the folded 1-bit network."""
        return sum(layer.folded_bytes for layer in self.layers)

    @property
    def binary_macs(self) -> int:
        """Multiply-accumulates of 1-bit operands."""
        return sum(layer.binary_macs for layer in self.layers)

    @property
    def fp_macs(self) -> int:
        """Multiply-accumulates in floating point."""
        return sum(layer.fp_macs for layer in self.layers)

    @property
    def ops(self) -> float:
        """Binary MACs / 64 + floating-point MACs, the papers' unit."""
        return self.binary_macs / _OPS_PER_WORD + self.fp_macs

    def to_dict(self) -> dict[str, Any]:
        """JSON values: ``totals`` and ``layers``."""
        return {
            "totals": {
                "parameters": self.parameters,
                "binary_weights": self.binary_weights,
                "fp32_bytes": self.fp32_bytes,
                "folded_bytes": self.folded_bytes,
                "binary_macs": self.binary_macs,
                "fp_macs": self.fp_macs,
                "ops": self.ops,
            },
            "layers": [asdict(layer) | {"fp32_bytes": layer.fp32_bytes} for layer in self.layers],
        }


def account(config: ModelConfig) -> Account:
    """Cost of a network by layer.

    Args:
        config: Its sizes.

    Returns:
        Layers in the order of computation.
    """
    return Account(tuple(_layers(config)))


def _layers(config: ModelConfig) -> Iterator[LayerAccount]:
    C, N, patch = config.width, config.tokens, 3 * config.patch_size**2
    embedding = C * patch + C + C + N * C
    yield LayerAccount(
        "embedding",
        "float",
        parameters=embedding,
        folded_bytes=_FP32_BYTES * embedding,
        fp_macs=(N - 1) * C * patch,
        why=_PIXELS,
    )
    for i in range(config.depth):
        yield from _attention(config, f"blocks.{i}.attn")
        yield from _mlp(config, f"blocks.{i}.mlp", rows=N, inputs=C, hidden=config.hidden)
        if config.si:
            yield from _mlp(config, f"blocks.{i}.si", rows=C, inputs=N, hidden=config.si_hidden)
            yield LayerAccount(
                f"blocks.{i}.si.scale",
                "float",
                parameters=C,
                folded_bytes=_FP32_BYTES * C,
                why=_STREAM,
            )
    yield LayerAccount("norm", "folded", parameters=2 * N, buffers=2 * N, why=_LAST_NORM)
    head = config.classes * C + config.classes
    yield LayerAccount(
        "head",
        "float",
        parameters=head,
        folded_bytes=_FP32_BYTES * head,
        fp_macs=config.classes * C,
        why=_LOGITS,
    )


def _attention(config: ModelConfig, name: str) -> Iterator[LayerAccount]:
    C, N, h = config.width, config.tokens, config.heads
    product = h * N * N * config.head_width
    yield _norm(f"{name}.norm", rows=N)
    yield _linear(config, f"{name}.qkv", rows=N, inputs=C, outputs=3 * C)
    yield _shift(f"{name}.move", values=3 * h * N)
    yield LayerAccount(f"{name}.scores", "binary", binary_macs=product)
    yield LayerAccount(f"{name}.context", "binary", binary_macs=product)
    yield _shift(f"{name}.move_fc", values=N)
    yield _linear(config, f"{name}.proj", rows=N, inputs=C, outputs=C, why=_STREAM)


def _mlp(
    config: ModelConfig, name: str, *, rows: int, inputs: int, hidden: int
) -> Iterator[LayerAccount]:
    yield _norm(f"{name}.norm", rows=rows)
    yield _linear(config, f"{name}.fc1", rows=rows, inputs=inputs, outputs=hidden)
    yield LayerAccount(
        f"{name}.prelu",
        "folded",
        parameters=5 * rows,
        folded_bytes=2 * _FP32_BYTES * rows,
        why=_PRELU,
    )
    yield _linear(config, f"{name}.fc2", rows=rows, inputs=hidden, outputs=inputs, why=_STREAM)


def _norm(name: str, *, rows: int) -> LayerAccount:
    return LayerAccount(
        name,
        "folded",
        parameters=2 * rows,
        buffers=2 * rows,
        folded_bytes=_FP32_BYTES * rows + rows / 8,
        why=_NORM,
    )


def _shift(name: str, *, values: int) -> LayerAccount:
    return LayerAccount(
        name, "folded", parameters=values, folded_bytes=_FP32_BYTES * values, why=_SHIFT
    )


def _linear(
    config: ModelConfig, name: str, *, rows: int, inputs: int, outputs: int, why: str = ""
) -> LayerAccount:
    weights, macs = inputs * outputs, rows * inputs * outputs
    if config.weight_bits != 1:
        return LayerAccount(
            name,
            "float",
            parameters=weights + outputs,
            folded_bytes=_FP32_BYTES * (weights + outputs),
            fp_macs=macs,
            why=_LATENT,
        )
    return LayerAccount(
        name,
        "binary",
        parameters=weights + outputs,
        binary_weights=weights,
        folded_bytes=weights / 8 + 2 * _FP32_BYTES * outputs,
        binary_macs=macs,
        why=why,
    )
