from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vitc.bench import inspect
from vitc.models import preset, random_model, save


@pytest.mark.parametrize(
    ("scheme", "counts"),
    [
        ("bibert", {}),
        # qkv, proj, fc1, fc2 of width 64 and hidden 128; each linear has a tau.
        ("recu", {"alpha": 192 + 64 + 128 + 64, "tau": 4}),
        (
            "bit",
            {
                "move.bias": 3 * 64,
                "input_clip_val": 4,
                "clip_query": 1,
                "clip_key": 1,
                "clip_value": 1,
                "clip_attn": 1,
            },
        ),
    ],
)
def test_what_a_scheme_has_learned_is_counted(
    scheme: str, counts: dict[str, int], tmp_path: Path
) -> None:
    config = replace(preset("micro").config.replace(depth=1, si=False), scheme=scheme)
    model = random_model(config, 2)
    save(model, tmp_path / "m.safetensors")
    found = inspect(tmp_path / "m.safetensors")
    assert {name: count for name, (count, _, _) in found.scheme_parameters.items()} == counts
    if scheme == "recu":
        _, least, largest = found.scheme_parameters["alpha"]
        assert least < 0 < largest
        assert found.to_dict()["scheme_parameters"]["alpha"]["least"] == least
