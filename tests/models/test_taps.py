from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from tests.verify.origins import origins
from vitc.exporter.recording import record
from vitc.models import ModelConfig, SIBiViT, observe, preset, random_images, random_model
from vitc.models.taps import TapEvent, tap
from vitc.verify.forcing import Reference, TapComparison


def seen(model: SIBiViT, images: Tensor) -> dict[str, TapEvent]:
    events: dict[str, TapEvent] = {}
    with observe(lambda event: events.__setitem__(event.name, event)), torch.no_grad():
        model(images)
    return events


def wanted_taps(config: ModelConfig, batch: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    n, c, h, d = config.tokens, config.width, config.heads, config.head_width
    stream = ("float", (batch, n, c))
    wanted = {"embedding": stream}
    for i in range(config.depth):
        a = f"blocks.{i}.attn"
        wanted[f"{a}.input"] = ("bits", (batch, n, c))
        for name in ("query", "key", "value"):
            wanted[f"{a}.{name}"] = ("bits", (batch, h, n, d))
        wanted[f"{a}.scores"] = ("int", (batch, h, n, n))
        wanted[f"{a}.mask"] = ("bits", (batch, h, n, n))
        wanted[f"{a}.context"] = ("bits", (batch, n, c))
        wanted[f"{a}.output"] = stream
        wanted[f"blocks.{i}.mlp.input"] = ("bits", (batch, n, c))
        wanted[f"blocks.{i}.mlp.hidden"] = ("bits", (batch, n, config.hidden))
        wanted[f"blocks.{i}.mlp.output"] = stream
        if config.si:
            wanted[f"blocks.{i}.si.input"] = ("bits", (batch, c, n))
            wanted[f"blocks.{i}.si.hidden"] = ("bits", (batch, c, config.si_hidden))
            wanted[f"blocks.{i}.si.output"] = stream
    wanted["logits"] = ("float", (batch, config.classes))
    return wanted


def test_taps_are_those_of_the_design_in_order(odd_config: ModelConfig) -> None:
    events = seen(random_model(odd_config), random_images(odd_config, 3))
    got = {name: (event.kind, tuple(event.value.shape)) for name, event in events.items()}
    assert list(got.items()) == list(wanted_taps(odd_config, 3).items())
    dtypes = {"bits": torch.uint8, "int": torch.int32, "float": torch.float32}
    assert all(event.value.dtype == dtypes[event.kind] for event in events.values())


def test_bits_are_the_signs_of_the_value_before_them(odd_config: ModelConfig) -> None:
    model, images = random_model(odd_config, 1), random_images(odd_config, 3)
    found = origins(model, images)
    bits = {name: event for name, event in seen(model, images).items() if event.kind == "bits"}
    assert {name for name in bits if not name.endswith(".mask")} == set(found)
    for name, origin in found.items():
        assert torch.equal(bits[name].value.bool(), origin.pre >= 0), name
        assert origin.bound is not None
        assert origin.bound.min() > 0


def test_replacement_goes_on_through_the_forward_pass(odd_config: ModelConfig) -> None:
    model, images = random_model(odd_config, 2), random_images(odd_config, 2)
    before = seen(model, images)

    def flip_all(event: TapEvent) -> Tensor | None:
        return 1 - event.value.long() if event.name == "blocks.0.attn.input" else None

    after: dict[str, TapEvent] = {}

    def both(event: TapEvent) -> Tensor | None:
        after[event.name] = event
        return flip_all(event)

    with observe(both):
        model(images)
    for name in ("embedding", "blocks.0.attn.input"):
        assert torch.equal(before[name].value, after[name].value)
    assert not torch.equal(before["blocks.0.attn.query"].value, after["blocks.0.attn.query"].value)
    assert after["blocks.0.attn.query"].value.dtype == torch.uint8


def test_nothing_is_observed_outside_the_context_or_from_another_thread() -> None:
    names: list[str] = []
    value = torch.zeros(2)
    with observe(lambda event: names.append(event.name)):
        tap("inside", value)
        thread = threading.Thread(target=lambda: tap("elsewhere", value))
        thread.start()
        thread.join()
    assert tap("outside", value) is value
    assert names == ["inside"]


def test_observer_is_removed_after_an_error() -> None:
    def refuse(event: TapEvent) -> None:
        raise KeyError(event.name)

    value = torch.zeros(2)
    with pytest.raises(KeyError, match="broken"), observe(refuse):
        tap("broken", value)
    assert tap("later", value) is value


def disagreements(reference: SIBiViT, candidate: SIBiViT, images: Tensor) -> list[str]:
    """Force each candidate tap into a float64 pass; name the taps outside their bounds."""
    comparison = TapComparison()
    values = {name: event.value.numpy() for name, event in seen(candidate, images).items()}
    Reference(reference).compare(images.numpy(), comparison, values)
    return [layer.name for layer in comparison.layers if layer.mismatches]


@pytest.mark.parametrize("seed", [0, 1])
def test_fp32_stays_within_the_bounds_of_float64(odd_config: ModelConfig, seed: int) -> None:
    images = random_images(odd_config, 16, seed)
    model = random_model(odd_config, seed)
    assert disagreements(random_model(odd_config, seed), model, images) == []


@pytest.mark.parametrize(
    ("parameter", "tap_name"),
    [
        ("blocks.0.norm1.weight", "blocks.0.attn.input"),
        ("blocks.1.attn.movek.bias", "blocks.1.attn.key"),
        ("blocks.0.attn.movefc.bias", "blocks.0.attn.context"),
        ("blocks.1.mlp.prelu.weight", "blocks.1.mlp.hidden"),
        ("blocks.0.mlp2.moveact2.bias", "blocks.0.si.hidden"),
        ("blocks.1.learnablescaling", "blocks.1.si.output"),
        ("head.bias", "logits"),
    ],
)
def test_wrong_parameter_is_found_at_its_own_layer_and_nowhere_else(
    parameter: str, tap_name: str
) -> None:
    config = preset("micro").config
    candidate = random_model(config, 3)
    with torch.no_grad():
        candidate.get_parameter(parameter).mul_(-1.5)
    outside = disagreements(random_model(config, 3), candidate, random_images(config, 8, 4))
    assert outside == [tap_name]


def test_a_recording_keeps_every_tap_name(odd_config: ModelConfig) -> None:
    frozen = random_model(odd_config, 5).frozen()
    calls = record(frozen, random_images(odd_config, 3, 6)).calls
    names = [call.arguments[1] for call in calls if call.operator is torch.ops.vitc.tap.default]
    assert names == list(wanted_taps(odd_config, 3))
    linears = [call for call in calls if call.operator is torch.ops.vitc.binary_linear.default]
    assert len(linears) == odd_config.depth * (8 if odd_config.si else 6)
