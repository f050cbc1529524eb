"""No rounding of fp32 lies outside its bound, and no fault inside it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models import ModelConfig, random_model
from vitc.models.binary_linear import BinaryLinear, freeze
from vitc.models.fast_paths import without_fast_paths
from vitc.models.schemes import BIBERT
from vitc.models.taps import TapEvent, binarize, observe, tap
from vitc.verify import bounds, forcing
from vitc.verify.bounds import LAMBDA, RoundingErrors
from vitc.verify.forcing import Reference, TapComparison
from vitc.verify.report import LayerReport

CONFIG = ModelConfig(
    image_size=24, patch_size=8, width=48, heads=3, depth=2, hidden=80, classes=9, si=True,
    si_hidden=7,
)  # fmt: skip


def traced(model: nn.Module, images: torch.Tensor) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    with (
        torch.no_grad(),
        observe(lambda event: values.__setitem__(event.name, event.value.numpy().copy())),
    ):
        model(images)
    return values


def judged(model: nn.Module, trace: dict[str, np.ndarray], images: torch.Tensor) -> TapComparison:
    reference, comparison = Reference(model), TapComparison()
    drift = reference.drift(images.numpy(), trace)
    reference.compare(images.numpy(), comparison, trace, drift)
    return comparison


def images_of(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 24, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(6))
def test_fp32_is_within_every_bound_of_a_layer_and_of_all_before_it(seed):
    model, images = random_model(CONFIG, seed), images_of(seed)
    found = judged(model, traced(freeze(model), images), images)
    assert [layer.name for layer in found.layers if layer.mismatches] == []
    # A bound a hundred times too wide would hide a fault.
    worst = [layer.worst for layer in found.layers if layer.kind == "float"]
    assert min(worst) > 0.002
    assert max(worst) < 0.8


@pytest.mark.parametrize("weight_bits", [1, 32])
def test_one_signed_weights_whose_errors_add_up_are_within_too(weight_bits):
    model, images = random_model(CONFIG.replace(weight_bits=weight_bits), 7), images_of(7).abs()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("mlp2.fc1.weight") and "norm" not in name:
                parameter.abs_()
    candidate = model.eval() if weight_bits == 32 else freeze(model)
    found = judged(model, traced(candidate, images), images)
    assert [layer.name for layer in found.layers if layer.mismatches] == []


def test_the_rounding_of_forty_blocks_is_within_its_accumulated_bound():
    model, images = random_model(CONFIG.replace(depth=40, si=False), 5), images_of(5, 2)
    found = judged(model, traced(freeze(model), images), images)
    assert len(found.layers) > 400
    assert [layer.name for layer in found.layers if layer.mismatches] == []


def damaged(name: str, change: Callable[[torch.Tensor], object]) -> nn.Module:
    model = freeze(random_model(CONFIG, 2))
    with torch.no_grad():
        change(model.state_dict()[name])
    return model


FAULTS = {
    "one sign of a weight": ("blocks.0.attn.proj.sign_bits", lambda w: w[5, 7].bitwise_xor_(1)),
    "a scale by 2^-15": ("blocks.1.mlp.fc2.scale", lambda w: w[3].mul_(1 + 2.0**-15)),
    "a bias by 2^-14": ("blocks.0.attn.proj.bias", lambda b: b[1].mul_(1 + 2.0**-14)),
    "a position by 1e-4": ("pos_embed", lambda p: p[0, 4, 9].add_(1e-4)),
    "a weight of the patches": ("patch_embed.proj.weight", lambda w: w[2, 1, 3, 3].add_(1e-3)),
    "a weight of the head": ("head.weight", lambda w: w[4, 4].add_(1e-4)),
    "a bias of the head": ("head.bias", lambda b: b[0].add_(2e-5)),
    "a gain of the spatial branch": ("blocks.0.learnablescaling", lambda g: g.mul_(1.0001)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_no_planted_fault_lies_inside_a_bound(name):
    images = images_of(2)
    found = judged(random_model(CONFIG, 2), traced(damaged(*FAULTS[name]), images), images)
    assert any(layer.mismatches for layer in found.layers)


def test_no_flipped_bit_of_a_clear_value_is_a_tie_and_few_values_are_unclear():
    model, images = random_model(CONFIG, 3), images_of(3)
    reference, errors, unclear = Reference(model)._double, RoundingErrors(), {}

    def observer(event: TapEvent) -> None:
        with errors.paused(event.name):
            origin = errors.origin(event.value)
            if origin is not None and origin.bound is not None:
                unclear[event.name] = float((origin.pre.abs() <= origin.bound).double().mean())

    with torch.no_grad(), errors, observe(observer):
        reference(images.double())
    assert len(unclear) == 2 * 9
    assert max(unclear.values()) < 1e-3


def test_a_layer_with_more_ties_than_chance_makes_is_at_fault():
    assert LayerReport("x", "bits", 3000, 0, 3, 1.0).equal
    assert not LayerReport("x", "bits", 3000, 0, 4, 1.0).equal
    assert LayerReport("x", "bits", 30, 0, 1, 1.0).equal


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@torch.no_grad()
def test_integers_are_rounded_beyond_24_bits(sign, dtype):
    with RoundingErrors() as errors:
        exact = torch.tensor([sign * 2**24, 0], dtype=dtype).double()
        rounded = torch.tensor([sign * (2**24 + 1), 0], dtype=dtype).double()
        none = torch.zeros(0, dtype=dtype).double()
    assert errors.bound(exact) is None
    assert errors.bound(none) is None
    found = errors.bound(rounded)
    assert found[0] >= 1
    assert found[1] == 0


def test_masks_and_integers_have_no_bound_so_any_difference_is_a_fault():
    model, images = random_model(CONFIG, 4), images_of(4)
    trace: dict[str, np.ndarray] = {}

    def observer(event: TapEvent) -> torch.Tensor:
        value = event.value.clone()
        if event.name == "blocks.1.attn.mask":
            value[0, 0, 0, 0] ^= 1
        trace[event.name] = value.numpy()
        return value

    candidate = freeze(model)
    with torch.no_grad(), observe(observer):
        candidate(images)
    found = judged(model, trace, images)
    assert [layer.name for layer in found.layers if layer.mismatches] == ["blocks.1.attn.mask"]


class Branches(nn.Module):
    """No transformer: floats through many operators, bits between, two outputs."""

    def __init__(self, seed: int, signed: bool) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 16, 3, padding=1, stride=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.first, self.second = BinaryLinear(16, 24, BIBERT), BinaryLinear(24, 16, BIBERT)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 40)
        self.back, self.head = nn.Linear(40, 16), nn.Linear(16, 5)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        if not signed:
            for parameter in self.parameters():
                parameter.data.abs_()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        x = F.silu(self.depthwise(x)) + F.avg_pool2d(x, 3, 1, 1)
        x = tap("net.stem", x.flatten(2).transpose(1, 2))
        bits = binarize(self.norm(x), "net.bits")
        hidden = binarize(F.gelu(self.first.sections(bits)[0].value()), "net.hidden")
        x = x + self.second.sections(hidden)[0].value()
        x = tap("net.mixed", x + self.back(torch.tanh(self.fc(self.norm(x)))))
        p = torch.softmax(x @ x.mT * 0.25, -1)
        seen = tap("net.seen", p @ x / (1 + x.abs().mean(-1, keepdim=True)))
        return {
            "scores": tap("scores", self.head(seen.mean(1))),
            "boxes": tap("boxes", torch.sigmoid(seen[:, :, :4]).clamp(0.1, 0.9).sqrt()),
        }


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "one-signed"])
@pytest.mark.parametrize("seed", range(5))
def test_any_network_and_each_of_its_outputs_is_held_to_its_own_bound(seed, signed):
    model = Branches(seed, signed).eval()
    images = images_of(seed) if signed else images_of(seed).abs()
    trace = traced(freeze(model), images)
    found = judged(model, trace, images)
    assert [layer.name for layer in found.layers] == [
        "net.stem", "net.bits", "net.hidden", "net.mixed", "net.seen", "scores", "boxes",
    ]  # fmt: skip
    assert [layer.name for layer in found.layers if layer.mismatches] == []
    for output in ("scores", "boxes"):
        moved = {**trace, output: trace[output] + np.float32(1e-3)}
        wrong = [layer.name for layer in judged(model, moved, images).layers if layer.mismatches]
        assert wrong == [output]


def test_an_operator_without_a_rule_is_named_with_its_layer():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(tap("blocks.3.mlp.output", x + 1))

    with (
        torch.no_grad(),
        pytest.raises(
            VitcError, match=r"no rule .*special_bessel_j0.* behind the tap blocks\.3\.mlp\.output"
        ),
    ):
        Reference(Odd()).drift(np.zeros((1, 2), np.float32), {})


def test_a_comparison_of_rounded_values_may_only_choose():
    with (
        torch.no_grad(),
        RoundingErrors(),
        pytest.raises(VitcError, match=r"aten\.sum\.default before the first tap"),
    ):
        (torch.randn(3, dtype=torch.float64) * 0.1 > 0).sum()


@pytest.mark.parametrize("terms", [3, 64, 768, 3072])
@pytest.mark.parametrize("order", ["as it comes", "ascending", "one sign"])
def test_sums_in_any_order_stay_within_the_bound_and_not_far_below(terms, order):
    rng = np.random.default_rng(terms)
    a, b = rng.standard_normal((2, 1000, terms)).astype(np.float32)
    if order == "one sign":
        a, b = np.abs(a), np.abs(b)
    if order == "ascending":  # all that is negative first: the largest partial sums
        places = np.argsort(a * b, axis=1)
        a, b = np.take_along_axis(a, places, 1), np.take_along_axis(b, places, 1)
    single = np.zeros(1000, np.float32)
    for column in range(terms):
        single = single + a[:, column] * b[:, column]
    with torch.no_grad(), RoundingErrors() as errors:
        x, y = torch.from_numpy(a).double()[:, None], torch.from_numpy(b).double()[..., None]
        exact = x @ y
    bound = errors.bound(exact)
    assert bound is not None
    ratio = np.abs(single - exact.numpy().ravel()) / bound.numpy().ravel()
    assert ratio.max() < 1
    assert ratio.max() > 0.5 / (LAMBDA * math.sqrt(terms))


def test_errors_that_wait_are_those_that_are_worked_out_at_once(monkeypatch):
    model, images = random_model(CONFIG, 6), images_of(6)
    trace = traced(freeze(model), images)
    late = Reference(model).drift(images.numpy(), trace)
    monkeypatch.setattr(bounds, "_WAITING", 0)
    early = Reference(model).drift(images.numpy(), trace)
    assert len(late.floats) >= 8
    for name, (own, limit) in late.floats.items():
        assert torch.equal(own, early.floats[name][0])
        assert torch.equal(limit, early.floats[name][1])


def test_an_error_is_that_of_the_values_before_they_are_changed_in_place():
    with torch.no_grad(), RoundingErrors() as errors:
        scale = torch.full((3,), 4.0, dtype=torch.float64)
        x = torch.ones(3, dtype=torch.float64) / 3
        where = torch.tensor([1, 1, 0])
        y = torch.where(where.bool(), x * scale, x)
        before = torch.where(where.bool(), 4.0, 1.0) * 2.0**-24 / 3
        where.zero_()
        bound = errors.bound(y)
    assert bound is not None
    assert (bound >= LAMBDA * before).all()
    assert (bound <= 2 * LAMBDA * before).all()


def test_a_chain_of_thousands_of_operators_needs_no_recursion():
    with torch.no_grad(), RoundingErrors() as errors:
        x = torch.ones(2, dtype=torch.float64) / 3
        for _ in range(5000):
            x = x * 1.0
        bound = errors.bound(x)
    assert bound is not None
    assert float(bound[0]) == pytest.approx(LAMBDA * 2.0**-24 / 3 * math.sqrt(5001), rel=1e-3)


class Counted(Reference):
    """Counts the images that it runs in float64."""

    ran = 0

    def _run(self, inputs):
        self.ran += len(inputs["input"])
        return super()._run(inputs)


def test_only_images_on_which_another_candidate_has_other_bits_are_followed_again():
    model, images = random_model(CONFIG, 8), images_of(8, 4)
    trace = traced(freeze(model), images)
    name = "blocks.1.mlp.input"
    other = {**trace, name: trace[name].copy()}
    other[name][2, 1, 5] ^= 1
    other[name][3, 0, 0] ^= 1
    lacking = {key: value for key, value in other.items() if "mask" not in key}
    reference, inputs = Counted(model), {"input": images.numpy()}
    for candidate, runs in ((trace, 4), (trace, 0), (lacking, 2), (other, 0), (trace, 2)):
        reference.ran = 0
        own, alone = reference.drift(inputs, candidate), Reference(model).drift(inputs, candidate)
        assert reference.ran == runs
        assert own.flips.keys() == alone.flips.keys()
        assert all(own.flips[key].keys() == flips.keys() for key, flips in alone.flips.items())
        for key, (value, limit) in alone.floats.items():
            torch.testing.assert_close(own.floats[key][0], value, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(own.floats[key][1], limit, rtol=1e-9, atol=0)


def test_a_candidate_that_has_the_bits_of_the_reference_is_followed_by_the_run_for_outputs():
    model, images = random_model(CONFIG, 8), images_of(8, 4)
    trace = traced(freeze(model), images)
    name = "blocks.1.mlp.input"
    other = {**trace, name: trace[name].copy()}
    other[name][1, 1, 5] ^= 1
    front = {key: value[:2] for key, value in trace.items()}
    for candidate, asked, runs in ((trace, images, 4), (front, images[:2], 0), (other, images, 4)):
        reference = Counted(model)
        reference.outputs({"input": images.numpy()}, followed=2)
        assert reference.ran == 4
        own = reference.drift({"input": asked.numpy()}, candidate)
        assert reference.ran == 4 + runs
        alone = Reference(model).drift({"input": asked.numpy()}, candidate)
        assert {key: flips.keys() for key, flips in own.flips.items()} == {
            key: flips.keys() for key, flips in alone.flips.items()
        }
        for key, (value, limit) in alone.floats.items():
            torch.testing.assert_close(own.floats[key][0], value, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(own.floats[key][1], limit, rtol=1e-9, atol=0)
    reference = Counted(model)
    reference.outputs({"input": images.numpy()}, followed=4)
    flips = reference.drift({"input": images.numpy()}, other).flips
    assert reference.ran == 5
    assert set(flips[name]) == {(1, 1, 5)}


def test_outputs_are_those_of_what_was_given_now():
    model, images = random_model(CONFIG, 9), images_of(9).numpy()
    reference = Counted(model)
    one = reference.outputs({"input": images})["logits"].value
    assert reference.outputs({"input": images.copy()})["logits"].value is one
    assert reference.ran == 3
    images[1] += 1
    assert (reference.outputs({"input": images})["logits"].value[1] != one[1]).any()
    assert reference.ran == 6


def test_outputs_of_inputs_that_were_given_before_are_not_computed_again(monkeypatch):
    model = random_model(CONFIG, 9)
    given = [{"input": images_of(seed).numpy()} for seed in (9, 10, 11)]
    reference = Counted(model)
    first = [reference.outputs(inputs)["logits"] for inputs in given]
    again = [reference.outputs(inputs)["logits"] for inputs in given]
    assert reference.ran == 9
    for inputs, one, other in zip(given, first, again, strict=True):
        alone = Reference(model).outputs(inputs)["logits"]
        assert np.array_equal(one.value, alone.value)
        assert np.array_equal(other.value, alone.value)
        assert np.array_equal(other.bound, alone.bound)
    # Where there is room for one only, the one before it goes.
    monkeypatch.setattr(forcing, "_KEPT", 1)
    reference, runs = Counted(model), []
    for inputs in (given[0], given[0], given[1], given[0]):
        reference.outputs(inputs)
        runs.append(reference.ran)
    assert runs == [3, 3, 6, 9]


class Changing(nn.Module):
    """What is written in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x * 2
        total += x
        return F.hardswish(total.mul_(0.3), inplace=True)


MADE_OF_OTHERS = {
    "GroupNorm": nn.GroupNorm(2, 6),
    "InstanceNorm": nn.InstanceNorm2d(6, affine=True),
    "RMSNorm": nn.RMSNorm(7),
    "Hardswish": nn.Hardswish(),
    "ELU": nn.ELU(0.7),
    "Mish": nn.Mish(),
    "SiLU": nn.SiLU(),
    "LeakyReLU": nn.LeakyReLU(0.2),
    "bilinear": nn.Upsample((13, 4), mode="bilinear"),
    "shrunk": nn.AdaptiveAvgPool2d((4, 3)),
    "largest": nn.AdaptiveMaxPool2d((4, 3)),
    "attention": nn.TransformerEncoderLayer(7, 1, 9, batch_first=True),
    "padding by 0.1": nn.ConstantPad2d(1, 0.1),
    "reflection": nn.ReflectionPad2d(2),
    "in place": Changing(),
}


@pytest.mark.parametrize("name", MADE_OF_OTHERS)
def test_an_operator_without_a_rule_has_the_bound_of_its_parts(name):
    layer = copy.deepcopy(MADE_OF_OTHERS[name]).eval()
    x = torch.randn(3, 6, 9, 7, generator=torch.Generator().manual_seed(4)) * 1.7
    x = x[:, 0] if name == "attention" else x
    double = copy.deepcopy(layer).double()
    with torch.no_grad(), without_fast_paths():
        single = layer(x * 1.1).double()
        with RoundingErrors() as errors:
            exact = double(x.double() * float(np.float32(1.1)))
    bound = errors.bound(exact)
    assert bound is not None
    assert (exact.abs() * 1e-8 < bound).double().mean() > 0.5
    assert ((single - exact).abs() <= bound).all()
    assert not ((single + single.abs() * 0.001 + 1e-4 - exact).abs() <= bound).any()


def test_what_has_other_views_is_not_changed_in_place():
    with torch.no_grad(), RoundingErrors():
        part = (torch.randn(3, 4).double() * 1.1)[:, 1:]
        with pytest.raises(VitcError, match="of which it has other"):
            part.add_(1)


def test_a_comparison_that_rounding_could_turn_counts_both_of_its_sides():
    with torch.no_grad(), RoundingErrors() as errors:
        x = torch.tensor([0.3, 1.0], dtype=torch.float64) * 1.1
        chosen = torch.where(x > 0.33, x, -x)
    bound = errors.bound(chosen)
    assert bound is not None
    assert bound[0] > 0.66
    assert bound[1] < 1e-5
