"""Conformance with the official code, whose float64 results the golden files hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.verify.origins import origins
from vitc.models import ModelConfig, load, observe, preset
from vitc.models.taps import TapEvent

FILES = {
    "released_tiny": "released_tiny.pth.tar",
    "si_tiny": "si_tiny.safetensors",
    "ratio4_tiny": "ratio4_tiny.safetensors",
    "si_micro": "si_micro.safetensors",
}

# Golden values are float64 results stored as fp32, so this is their rounding with room to spare.
BLOCK_TOLERANCE = 1e-5
LOGIT_TOLERANCE = 1e-4


def expected(golden: Path, name: str) -> dict[str, Tensor]:
    return load_file(golden / f"{name}.expected.safetensors")


TINY = ModelConfig(
    image_size=224, patch_size=16, width=192, depth=2, heads=3, hidden=384, classes=10
)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("released_tiny", TINY),
        ("si_tiny", TINY.replace(depth=3, si=True)),
        ("ratio4_tiny", TINY.replace(mlp_ratio=4)),
        ("si_micro", preset("micro").config),
    ],
)
def test_configuration_of_official_files_follows_from_shapes(
    golden: Path, name: str, config: ModelConfig
) -> None:
    assert load(golden / FILES[name]).config == config


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("frozen", [False, True])
def test_fp32_logits_are_those_of_the_official_code(golden: Path, name: str, frozen: bool) -> None:
    values = expected(golden, name)
    model = load(golden / FILES[name])
    with torch.no_grad():
        got = (model.frozen() if frozen else model)(values["input"])
    torch.testing.assert_close(got, values["logits"], rtol=0, atol=LOGIT_TOLERANCE)


def test_micro_golden_batch_is_eight(golden: Path) -> None:
    assert expected(golden, "si_micro")["input"].shape == (8, 3, 32, 32)


@pytest.mark.parametrize("name", list(FILES))
def test_every_block_in_float64_is_that_of_the_official_code(golden: Path, name: str) -> None:
    values = expected(golden, name)
    model = load(golden / FILES[name]).double()
    for i, block in enumerate(model.blocks):
        events: dict[str, TapEvent] = {}
        with (
            torch.no_grad(),
            observe(lambda event, events=events: events.__setitem__(event.name, event)),
        ):
            output = block(values[f"block{i}.input"].double())
        context = origins(block, values[f"block{i}.input"].double())
        for what, got in (
            ("attention", context[f"blocks.{i}.attn.context"].pre),
            ("after_attention", events[f"blocks.{i}.attn.output"].value),
            ("output", output),
        ):
            wanted = values[f"block{i}.{what}"].double()
            torch.testing.assert_close(
                got, wanted, rtol=0, atol=BLOCK_TOLERANCE, msg=lambda m, w=what: f"{w}: {m}"
            )


@pytest.mark.parametrize("name", list(FILES))
def test_embedding_is_the_first_block_input(golden: Path, name: str) -> None:
    values = expected(golden, name)
    model = load(golden / FILES[name]).double()
    with torch.no_grad():
        got = model.embed(values["input"].double())
    torch.testing.assert_close(got, values["block0.input"].double(), rtol=0, atol=BLOCK_TOLERANCE)
