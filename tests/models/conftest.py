from __future__ import annotations

import pytest

from vitc.models import ModelConfig


@pytest.fixture(params=["si", "plain"])
def odd_config(request: pytest.FixtureRequest) -> ModelConfig:
    """10 tokens, 3 heads of 7 channels, hidden sizes that are no multiple of anything."""
    si = request.param == "si"
    return ModelConfig(
        image_size=12,
        patch_size=4,
        width=21,
        depth=2,
        heads=3,
        hidden=37,
        classes=5,
        si=si,
        si_hidden=11 if si else 0,
    )
