"""How many MACs each step of an artefact makes, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from vitc.bench.account import account
from vitc.errors import VitcError
from vitc.models.config import ModelConfig

__all__ = ["StepMacs", "step_macs"]


@dataclass(frozen=True)
class StepMacs:
    """Multiply-accumulates of one step for one image, without padding.

    Attributes:
        binary: Of 1-bit operands.
        fp: Of fp32 operands.
    """

    binary: int
    fp: int


# End of a step's tap: the layers of the account that it computes, and its share of them.
_THIRD: Final = Fraction(1, 3)
_LAYERS: Final[Mapping[str, tuple[tuple[str, Fraction], ...]]] = {
    "embedding": (("embedding", Fraction(1)),),
    "attn.query": (("attn.qkv", _THIRD),),
    "attn.key": (("attn.qkv", _THIRD),),
    "attn.value": (("attn.qkv", _THIRD),),
    "attn.context": (("attn.scores", Fraction(1)), ("attn.context", Fraction(1))),
    "attn.output": (("attn.proj", Fraction(1)),),
    "mlp.hidden": (("mlp.fc1", Fraction(1)),),
    "mlp.output": (("mlp.fc2", Fraction(1)),),
    "si.hidden": (("si.fc1", Fraction(1)),),
    "si.output": (("si.fc2", Fraction(1)),),
    "logits": (("head", Fraction(1)),),
}


def step_macs(taps: Sequence[str], config: Mapping[str, Any]) -> list[StepMacs]:
    """MACs of each step.

    Args:
        taps: Tap of each step, in order, as in the manifest.
        config: Model configuration, as in the manifest.

    Raises:
        VitcError: If the sum over the steps is not that of the network.
    """
    total = account(ModelConfig.from_dict(config))
    known = {layer.name: layer for layer in total.layers}
    steps = []
    for tap in taps:
        block, end = _split(tap)
        binary = fp = Fraction(0)
        for name, share in _LAYERS.get(end, ()):
            layer = known[block + name]
            binary += share * layer.binary_macs
            fp += share * layer.fp_macs
        steps.append(StepMacs(int(binary), int(fp)))
    found = (sum(step.binary for step in steps), sum(step.fp for step in steps))
    if found != (total.binary_macs, total.fp_macs):
        raise VitcError(
            f"The steps make {found[0]} binary and {found[1]} fp MACs, the network "
            f"{total.binary_macs} and {total.fp_macs}.",
            "The manifest does not fit its configuration; compile the model again.",
        )
    return steps


def _split(tap: str) -> tuple[str, str]:
    """`blocks.3.attn.query` to `blocks.3.` and `attn.query`."""
    parts = tap.split(".")
    return ("", tap) if parts[0] != "blocks" else (".".join(parts[:2]) + ".", ".".join(parts[2:]))
