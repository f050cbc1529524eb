"""What a network costs before it runs: parameters, bits, bytes and multiply-accumulates by layer.

Everything follows from the configuration, so no weights are needed: an architecture lists its
layers (`vitc.models.architectures`), and what such lists have in common is here. "Folded" is the
least that a compiled network has to store: 1 bit a binary weight; scale and bias of every binary
linear; one threshold and one direction bit where a batch norm and a shift meet a sign; one float a
shift that meets a sign after a linear layer; two bounds where a PReLU meets a sign; and the head,
into which the last norm's class token folds. Totals are those of the SI-BiViT size table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

__all__ = [
    "OWN",
    "PIXELS",
    "Account",
    "Binary",
    "LayerAccount",
    "LayerKind",
    "Own",
    "attention",
    "classifier",
    "in_fp32",
    "moved_linear",
    "of_bytes",
    "spatial",
    "stream_norm",
    "two_layer",
]

LayerKind: TypeAlias = Literal["binary", "folded", "float"]

_FP32_BYTES = 4
_OPS_PER_WORD = 64

PIXELS = "pixels are real numbers; the papers keep the patch embedding in fp32"
_BYTES = "{} times the bytes of pixels, in integers; the papers keep the patch embedding in fp32"
_LOGITS = "class scores are real numbers; the papers keep the head in fp32"
_STREAM = "added to the fp32 residual stream"
_NORM = "folds with the shift that follows into one threshold a row, compared with the fp32 stream"
_READ_TWICE = "a threshold a row for its signs; its floats are read by the reduction, too"
_REDUCED = "places of the map are reduced in fp32, as the papers do"
_MOVED = "is added to each channel in fp32, before the sign"
_CHANNELS = "mean and variance over the channels of a token are real numbers"
_BIAS = "is added to the integer scores of a window in fp32, before they are compared"
_LAST_NORM = "its class token folds into the head"
_SHIFT = "folds into the threshold on the integer before it"
_PRELU = "folds with its shifts into two bounds on the integer before it"
_SCALES = "fold into the slack of the mask and into the threshold of the context"
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
        taps: Taps of the steps that compute it.
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
    taps: tuple[str, ...] = ()

    @property
    def fp32_bytes(self) -> int:
        """Parameters and buffers, 4 bytes each."""
        return _FP32_BYTES * (self.parameters + self.buffers)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without taps."""
        values = asdict(self) | {"fp32_bytes": self.fp32_bytes}
        del values["taps"]
        return values


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
        """JSON values: ``totals`` and ``layers``, without taps."""
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
            "layers": [layer.to_dict() for layer in self.layers],
        }


def of_bytes(layer: LayerAccount, embedding: str, patches: int, patch: int) -> LayerAccount:
    """A layer of a network with an integer embedding: the weights of that are integers.

    Args:
        layer: Any layer.
        embedding: ``int15`` or ``int8``.
        patches: Patches of an image.
        patch: Values of a patch.
    """
    if layer.why != PIXELS:
        return layer
    weights = layer.fp_macs // patches
    saved = weights * (_FP32_BYTES - (1 if embedding == "int8" else 2))
    scales = _FP32_BYTES * weights // patch
    why = _BYTES.format("8 bits" if embedding == "int8" else "15 bits")
    return replace(layer, folded_bytes=layer.folded_bytes - saved + scales, why=why)


@dataclass(frozen=True)
class Own:
    """What a binarization scheme learns beside weight and bias (`vitc.models.schemes`).

    Attributes:
        outputs: Values an output of a linear.
        moves: Values an input channel of a linear, which are added before its signs.
        inputs: Values a linear: of its inputs.
        attention: Values an attention: of queries, keys, values and masks.
    """

    outputs: int = 0
    moves: int = 0
    inputs: int = 0
    attention: int = 0


OWN: Final[Mapping[str, Own]] = MappingProxyType(
    {"bibert": Own(), "recu": Own(outputs=1), "bit": Own(moves=1, inputs=1, attention=4)}
)
"""By scheme."""


@dataclass(frozen=True)
class Binary:
    """How the layers of a network are binarized.

    Attributes:
        weight_bits: 1 or 32.
        scheme: A key of `OWN`.
    """

    weight_bits: int = 1
    scheme: str = "bibert"

    @property
    def own(self) -> Own:
        """What the scheme learns of its own."""
        return OWN[self.scheme]


def attention(
    name: str,
    *,
    tokens: int,
    group: int,
    width: int,
    heads: int,
    binary: Binary,
    norm: str = "batch",
    window: tuple[int, int] | None = None,
    reduction: int | None = None,
    merge: str = "float",
) -> Iterator[LayerAccount]:
    """A norm, binary attention inside groups of tokens, and its projection.

    Args:
        name: Of the layer.
        tokens: Of an image.
        group: Tokens that attend each other; shifts belong to the places in a group.
        width: Channels.
        heads: Attention heads.
        binary: How it is binarized.
        norm: ``batch`` or ``layer``.
        window: Rows and columns of a group whose scores have a bias of relative positions.
        reduction: R of the map whose R x R places together are a key; None where queries, keys and
            values are of one linear.
        merge: ``float`` or ``binary``: what reduces those places.
    """
    query, *held = (f"{name}.{part}" for part in ("query", "key", "value"))
    scores, context = f"{name}.scores", f"{name}.context"
    first = stream_norm(f"{name}.norm", f"{name}.input", tokens=tokens, width=width, norm=norm)
    keys = group // (reduction or 1) ** 2
    product = tokens * keys * width
    if reduction is None:
        yield first
        yield _linear(
            f"{name}.qkv",
            query,
            *held,
            rows=tokens,
            inputs=width,
            outputs=3 * width,
            binary=binary,
        )
    else:
        if reduction > 1 and norm == "batch":
            floats = first.folded_bytes + 2 * _FP32_BYTES * tokens
            first = replace(first, folded_bytes=floats, why=_READ_TWICE)
        yield first
        yield _linear(f"{name}.q", query, rows=tokens, inputs=width, outputs=width, binary=binary)
        if reduction > 1:
            if merge == "binary":
                yield from moved_linear(
                    f"{name}.reduced",
                    rows=keys,
                    inputs=reduction**2 * width,
                    outputs=width,
                    moves=width,
                    binary=binary,
                )
            else:
                weights = reduction**2 * width * width
                yield in_fp32(
                    f"{name}.reduced",
                    f"{name}.reduced",
                    parameters=weights + width,
                    fp_macs=keys * weights,
                    why=_REDUCED,
                )
            yield stream_norm(
                f"{name}.reduced.norm", f"{name}.keys", tokens=keys, width=width, norm=norm
            )
        yield _linear(
            f"{name}.kv", *held, rows=keys, inputs=width, outputs=2 * width, binary=binary
        )
    yield _shift(f"{name}.move", query, *held, values=heads * (group + 2 * keys))
    if window is not None:
        rows, columns = window
        table = (2 * rows - 1) * (2 * columns - 1) * heads
        yield in_fp32(f"{name}.bias", scores, context, parameters=table, why=_BIAS)
    if binary.own.attention:
        yield LayerAccount(
            f"{name}.scales",
            "folded",
            parameters=binary.own.attention,
            why=_SCALES,
            taps=(scores, context),
        )
    yield LayerAccount(scores, "binary", binary_macs=product, taps=(scores, context))
    yield LayerAccount(context, "binary", binary_macs=product, taps=(context,))
    yield _shift(f"{name}.move_fc", context, values=group)
    yield _linear(
        f"{name}.proj",
        f"{name}.output",
        rows=tokens,
        inputs=width,
        outputs=width,
        binary=binary,
        why=_STREAM,
    )


def moved_linear(
    name: str, *, rows: int, inputs: int, outputs: int, moves: int, binary: Binary
) -> Iterator[LayerAccount]:
    """A binary linear whose inputs are moved by channel before their sign.

    Args:
        name: Of the layer.
        rows: Of an image.
        inputs: K.
        outputs: O.
        moves: Channels that are moved.
        binary: How it is binarized.
    """
    yield in_fp32(f"{name}.move", f"{name}.input", parameters=moves, why=_MOVED)
    yield _linear(name, name, rows=rows, inputs=inputs, outputs=outputs, binary=binary, moved=False)


def two_layer(
    name: str,
    *,
    rows: int,
    inputs: int,
    hidden: int,
    binary: Binary,
    times: int = 1,
    norm: str = "batch",
) -> Iterator[LayerAccount]:
    """A norm and two binary linears with a PReLU between, as in the MLP.

    Args:
        name: Of the layer.
        rows: What norm, shifts and slopes belong to.
        inputs: Features that are contracted.
        hidden: Hidden features.
        binary: How it is binarized.
        times: How often it is computed for an image.
        norm: ``batch`` (of the rows) or ``layer`` (of what is contracted).
    """
    yield stream_norm(f"{name}.norm", f"{name}.input", tokens=rows, width=inputs, norm=norm)
    yield _linear(
        f"{name}.fc1",
        f"{name}.hidden",
        rows=times * rows,
        inputs=inputs,
        outputs=hidden,
        binary=binary,
    )
    yield LayerAccount(
        f"{name}.prelu",
        "folded",
        parameters=5 * rows,
        folded_bytes=2 * _FP32_BYTES * rows,
        why=_PRELU,
        taps=(f"{name}.hidden",),
    )
    yield _linear(
        f"{name}.fc2",
        f"{name}.output",
        rows=times * rows,
        inputs=hidden,
        outputs=inputs,
        binary=binary,
        moved=False,
        why=_STREAM,
    )


def spatial(
    name: str, *, width: int, group: int, hidden: int, binary: Binary, groups: int = 1
) -> Iterator[LayerAccount]:
    """The spatial branch: a `two_layer` on the tokens of a group, and its scale a channel.

    Args:
        name: Of the layer.
        width: Channels.
        group: Tokens that are mixed.
        hidden: Hidden tokens.
        binary: How it is binarized.
        groups: Of an image.
    """
    yield from two_layer(name, rows=width, inputs=group, hidden=hidden, binary=binary, times=groups)
    yield in_fp32(f"{name}.scale", f"{name}.output", parameters=width, why=_STREAM)


def classifier(
    *, rows: int, width: int, classes: int, norm: str = "batch"
) -> Iterator[LayerAccount]:
    """The last norm and the head on one token.

    Args:
        rows: What the norm belongs to.
        width: Channels.
        classes: Logits.
        norm: ``batch`` (of the rows) or ``layer`` (of the channels).
    """
    if norm == "layer":
        yield in_fp32("norm", "logits", parameters=2 * width, why=_CHANNELS)
    else:
        yield LayerAccount(
            "norm",
            "folded",
            parameters=2 * rows,
            buffers=2 * rows,
            why=_LAST_NORM,
            taps=("logits",),
        )
    head, macs = classes * width + classes, classes * width
    yield in_fp32("head", "logits", parameters=head, fp_macs=macs, why=_LOGITS)


def in_fp32(name: str, *taps: str, parameters: int, why: str, fp_macs: int = 0) -> LayerAccount:
    """A layer that stays in fp32: what it trains is what a compiled network stores.

    Args:
        name: Of the layer.
        taps: Of the steps that compute it.
        parameters: Trained values.
        why: Why it is not binary.
        fp_macs: Multiply-accumulates.
    """
    return LayerAccount(
        name,
        "float",
        parameters=parameters,
        folded_bytes=_FP32_BYTES * parameters,
        fp_macs=fp_macs,
        why=why,
        taps=taps,
    )


def stream_norm(name: str, *taps: str, tokens: int, width: int, norm: str) -> LayerAccount:
    """A norm whose result is binarized.

    Args:
        name: Of the layer.
        taps: Of the steps that compute it.
        tokens: What a batch norm belongs to.
        width: Channels, which a layer norm belongs to.
        norm: ``batch`` or ``layer``.
    """
    if norm == "layer":
        return in_fp32(name, name, *taps, parameters=2 * width, why=_CHANNELS)
    rows = tokens
    return LayerAccount(
        name,
        "folded",
        parameters=2 * rows,
        buffers=2 * rows,
        folded_bytes=_FP32_BYTES * rows + rows / 8,
        why=_NORM,
        taps=taps,
    )


def _shift(name: str, *taps: str, values: int) -> LayerAccount:
    return LayerAccount(
        name, "folded", parameters=values, folded_bytes=_FP32_BYTES * values, why=_SHIFT, taps=taps
    )


def _linear(
    name: str,
    *taps: str,
    rows: int,
    inputs: int,
    outputs: int,
    binary: Binary,
    moved: bool = True,
    why: str = "",
) -> LayerAccount:
    """A binary linear; `moved` says whether the scheme moves its inputs, if it moves any."""
    weights, macs, own = inputs * outputs, rows * inputs * outputs, binary.own
    moves = own.moves * inputs if moved else 0
    parameters = weights + outputs + own.outputs * outputs + own.inputs + moves
    if binary.weight_bits != 1:
        return in_fp32(name, *taps, parameters=parameters, fp_macs=macs, why=_LATENT)
    return LayerAccount(
        name,
        "binary",
        parameters=parameters,
        binary_weights=weights,
        folded_bytes=weights / 8 + _FP32_BYTES * (2 * outputs + moves),
        binary_macs=macs,
        why=why,
        taps=taps,
    )
