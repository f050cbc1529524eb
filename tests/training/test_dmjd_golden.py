"""Masks, targets, losses, schedules against the results of the authors' code (golden files)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vitc.models.twins.block import Attention, Block
from vitc.training.dmjd.branches import Distiller, Reconstructor
from vitc.training.dmjd.losses import DISTANCES, masked_loss, visible_loss
from vitc.training.dmjd.masking import Masking, Views
from vitc.training.dmjd.network import encode
from vitc.training.dmjd.positions import sine_positions
from vitc.training.dmjd.schedule import adaptive_rate, layer_scale, warm_cosine
from vitc.training.dmjd.targets import hog, hog_targets
from vitc.training.lars import LARS

_BRANCH = {
    "decoder_embed": "embed",
    "decoder_blocks": "blocks",
    "decoder_norm": "norm",
    "decoder_pred": "head",
}
_ROUNDING_DECIDES = {("hog_edges", "i17"), ("hog_edges", "i18")}


@pytest.fixture
def dmjd(golden: Path) -> Path:
    return golden / "dmjd"


def stated(dmjd: Path, name: str) -> Any:
    return json.loads((dmjd / f"{name}.json").read_text())


def within(got: Tensor, wanted: Tensor, limit: float, what: str) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=limit, msg=lambda text: f"{what}: {text}")


def views_of(tensors: dict[str, Tensor], prefix: str = "") -> Views:
    return Views(tensors[f"{prefix}ids_keep"].long(), tensors[f"{prefix}ids_restore"].long())


def test_golden_masks(dmjd: Path) -> None:
    tensors = load_file(dmjd / "masks.safetensors")
    for case in stated(dmjd, "masks")["cases"]:
        name, rows = case["case"], case["grid"]
        blocks = case["kind"] == "block"
        masking = Masking(rows, case["tokens"] // rows, case["m_corr"], case["m_pred"], 2, blocks)
        sizes = masking.units, masking.kept, masking.masked, masking.fresh, masking.union
        wanted = ("units", "len_keep", "num_mask", "num_extra", "union")
        assert sizes == tuple(case[size] for size in wanted), name
        drawn = masking.draw(case["images"], torch.Generator().manual_seed(case["seed"]))
        for got, key in ((drawn.keep, "ids_keep"), (drawn.restore, "ids_restore")):
            assert torch.equal(got, tensors[f"{name}.{key}"].long()), (name, key)
        assert torch.equal(drawn.mask, tensors[f"{name}.mask"].float()), name


def test_golden_float_traps_of_the_number_of_visible_units(dmjd: Path) -> None:
    traps = stated(dmjd, "masks")["float_traps"]["rows"]
    assert traps
    for units, rate, kept, _ in traps:
        if kept:
            assert Masking(1, units, rate, blocks=False).kept == kept, (units, rate)


@pytest.mark.parametrize("name", ["hog_random", "hog_photos_64", "hog_photo_224", "hog_edges"])
def test_golden_gradients(dmjd: Path, name: str) -> None:
    tensors = load_file(dmjd / f"{name}.safetensors")
    for item in stated(dmjd, name)["items"]:
        if (name, item["item"]) in _ROUNDING_DECIDES:
            continue
        key = item["item"]
        image = tensors[f"{key}.image"]
        within(hog(image, item["cell"]), tensors[f"{key}.hist"], 1e-4, key)
        within(hog_targets(image, item["patch"]), tensors[f"{key}.target"], 1e-5, key)


def test_golden_losses(dmjd: Path) -> None:
    tensors = load_file(dmjd / "losses.safetensors")
    for case in stated(dmjd, "losses")["cases"]:
        name = case["case"]
        views, target = views_of(tensors, f"{name}."), tensors[f"{name}.target"]
        for kind in DISTANCES:
            told = tensors[f"{name}.pred"].requires_grad_()
            loss = masked_loss(told, target, views, kind)
            assert float(loss.detach()) == pytest.approx(case[f"invisible_{kind}"], rel=1e-6)
            (grad,) = torch.autograd.grad(loss, told)
            within(grad, tensors[f"{name}.invisible_{kind}.grad_pred"], 1e-7, name)
            told = tensors[f"{name}.pred_visible"].requires_grad_()
            loss = visible_loss(told, target, views, kind)
            assert float(loss.detach()) == pytest.approx(case[f"visible_{kind}_aligned"], rel=1e-6)
            # The figure of the misaligned targets is another one, so the two are told apart.
            released = case[f"visible_{kind}_as_released"]
            assert float(loss.detach()) != pytest.approx(released, rel=1e-4)


def test_golden_positions(dmjd: Path) -> None:
    for name, wanted in load_file(dmjd / "positions.safetensors").items():
        width, side = (int(part[1:]) for part in name.split("_")[:2])
        within(sine_positions(width, side, side), wanted[-side * side :], 1e-6, name)


def test_golden_schedules(dmjd: Path) -> None:
    told = stated(dmjd, "schedule")
    for row in told["adaptive_lr"]["rows"]:
        batch = row["batch"] * row["processes"] * row["accumulate"]
        got = adaptive_rate(row["blr"], batch, row["m_corr"], row["m_pred"])
        assert got == pytest.approx(row["lr"], rel=1e-12)
    for case in told["warmup_cosine"]["cases"]:
        for epoch, rate, _ in case["rows"]:
            got = warm_cosine(
                case["lr"],
                epoch,
                epochs=case["epochs"],
                warmup=case["warmup_epochs"],
                least=case["min_lr"],
            )
            assert got == pytest.approx(rate, rel=1e-12, abs=1e-18)
    for case in told["layer_decay"]["cases"]:
        for name, wanted in case["parameters"].items():
            got = layer_scale(name, case["depth"], case["layer_decay"])
            assert got == pytest.approx(wanted["lr_scale"], rel=1e-12), name


def test_golden_lars(dmjd: Path) -> None:
    tensors, told = load_file(dmjd / "lars.safetensors"), stated(dmjd, "lars")
    learnt = {name: nn.Parameter(tensors[f"{name}0"].double()) for name in ("w", "b", "zero")}
    optimizer = LARS(
        learnt.values(),
        told["lr"],
        weight_decay=told["weight_decay"],
        momentum=told["momentum"],
        trust=told["trust_coefficient"],
    )
    step = 0
    while f"grad_w{step}" in tensors:
        for name, parameter in learnt.items():
            parameter.grad = tensors[f"grad_{name}{step}"].double()
        optimizer.step()
        step += 1
        for name, parameter in learnt.items():
            within(parameter.detach(), tensors[f"{name}{step}"], 1e-9, f"{name}{step}")
    assert step > 1


def test_golden_step(dmjd: Path) -> None:
    tensors, told = load_file(dmjd / "step.safetensors"), stated(dmjd, "step")["config"]
    weights = {
        key.removeprefix("weight."): tensor
        for key, tensor in tensors.items()
        if key.startswith("weight.")
    }

    def part(prefix: str) -> dict[str, Tensor]:
        dotted = f"{prefix}."
        return {k.removeprefix(dotted): v for k, v in weights.items() if k.startswith(dotted)}

    width, grid, channels = told["width"], told["grid"], told["target_channels"]
    eps = told["layer_norm_eps"]
    blocks = nn.ModuleList(
        Block(
            Attention(width, told["heads"]), told["encoder_mlp_ratio"] * width, eps=eps, name=str(i)
        )
        for i in range(told["depth"])
    )
    norm = nn.LayerNorm(width, eps=eps)
    reconstructor = Reconstructor(
        width,
        told["decoder_width"],
        told["decoder_depth"],
        told["decoder_heads"],
        channels,
        grid,
        grid,
        ratio=told["decoder_mlp_ratio"],
    )
    distiller = Distiller(width, told["decoder_width"], channels)
    blocks.load_state_dict(part("blocks3"))
    norm.load_state_dict(part("norm"))
    ours = {f"{b}.{k}": v for a, b in _BRANCH.items() for k, v in part(a).items()}
    reconstructor.load_state_dict({**ours, "mask_token": weights["mask_token"]})
    distiller.projector.load_state_dict(part("proj_embed"))
    distiller.predictor.load_state_dict(part("predictor.0"))

    tokens, views = tensors["tokens"].requires_grad_(), views_of(tensors)
    latent = encode(tokens + sine_positions(width, grid, grid), views, blocks, norm)
    rebuilt, told_visible = reconstructor(latent, views), distiller(latent)
    within(latent, tensors["latent"], 1e-5, "latent")
    within(rebuilt, tensors["pred"], 1e-5, "pred")
    within(told_visible, tensors["pred_visible"], 1e-5, "pred_visible")
    invisible = masked_loss(rebuilt, tensors["target"], views)
    visible = visible_loss(told_visible, tensors["target"], views)
    assert float(invisible.detach()) == pytest.approx(float(tensors["loss_invisible"]), rel=1e-5)
    assert float(visible.detach()) == pytest.approx(
        float(tensors["loss_visible_aligned"]), rel=1e-5
    )
    for loss, name in ((invisible, "grad_invisible"), (visible, "grad_visible_aligned")):
        (grad,) = torch.autograd.grad(loss, tokens, retain_graph=True)
        within(grad, tensors[f"{name}.tokens"], 1e-5, name)
    (invisible + visible).backward()  # type: ignore[no-untyped-call]
    found = dict(blocks.named_parameters(prefix="blocks3"))
    found |= dict(norm.named_parameters(prefix="norm"))
    for theirs, own in _BRANCH.items():
        found |= dict(getattr(reconstructor, own).named_parameters(prefix=theirs))
    found["mask_token"] = reconstructor.mask_token
    found |= dict(distiller.projector.named_parameters(prefix="proj_embed"))
    found |= dict(distiller.predictor.named_parameters(prefix="predictor.0"))
    for name, parameter in found.items():
        assert parameter.grad is not None, name
        within(parameter.grad, tensors[f"grad_total_aligned.{name}"], 1e-5, name)
