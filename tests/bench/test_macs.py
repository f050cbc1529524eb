from __future__ import annotations

import pytest

from vitc.bench.account import account
from vitc.bench.macs import StepMacs, step_macs
from vitc.errors import VitcError
from vitc.models.config import PRESETS


def taps(depth: int, *, si: bool) -> list[str]:
    parts = ["attn.input", "attn.query", "attn.key", "attn.value", "attn.context", "attn.output"]
    parts += ["mlp.input", "mlp.hidden", "mlp.output"]
    if si:
        parts += ["si.input", "si.hidden", "si.output"]
    blocks = [f"blocks.{i}.{part}" for i in range(depth) for part in parts]
    return ["embedding", *blocks, "logits"]


@pytest.mark.parametrize("preset", ["deit-tiny", "deit-small", "deit-base", "micro"])
@pytest.mark.parametrize("si", [False, True])
def test_the_steps_make_the_macs_of_the_network(preset: str, si: bool) -> None:
    config = PRESETS[preset].config.replace(si=si)

    steps = step_macs(taps(config.depth, si=si), config.to_dict())

    total = account(config)
    assert sum(step.binary for step in steps) == total.binary_macs
    assert sum(step.fp for step in steps) == total.fp_macs


def test_deit_small_makes_its_3504_million_binary_macs_where_they_belong() -> None:
    config = PRESETS["deit-small"].config
    names = taps(config.depth, si=True)

    steps = dict(zip(names, step_macs(names, config.to_dict()), strict=True))

    assert steps["embedding"] == StepMacs(0, 196 * 384 * 768)
    assert steps["blocks.3.attn.input"] == StepMacs(0, 0)
    assert steps["blocks.3.attn.key"] == StepMacs(197 * 384 * 384, 0)
    assert steps["blocks.3.attn.context"] == StepMacs(2 * 6 * 197 * 197 * 64, 0)
    assert steps["blocks.11.si.output"] == StepMacs(384 * 197 * 197, 0)
    assert round(sum(step.binary for step in steps.values()) / 1e6) == 3504


def test_steps_that_miss_a_layer_are_refused() -> None:
    config = PRESETS["micro"].config
    names = [tap for tap in taps(config.depth, si=True) if tap != "blocks.1.attn.value"]

    with pytest.raises(VitcError, match="binary"):
        step_macs(names, config.to_dict())
