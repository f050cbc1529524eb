"""What disjoint masking and joint distillation promise, for sizes that no golden file holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vitc.errors import VitcError
from vitc.models import build_network
from vitc.models.architectures.float_deit import DeiTTwinConfig
from vitc.training.dmjd.losses import masked_loss, visible_loss
from vitc.training.dmjd.masking import Masking, Views
from vitc.training.dmjd.network import MaskedEncoder, Pretrained
from vitc.training.dmjd.targets import hog_targets, pixel_targets


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rate", [0.13, 0.37, 0.5, 0.62, 0.81])
@pytest.mark.parametrize(
    ("rows", "columns", "blocks"), [(5, 7, False), (6, 10, True), (9, 9, False)]
)
@pytest.mark.parametrize("views", [1, 2, 3, 5])
def test_every_view_hides_its_share_and_the_union_is_as_large_as_can_be(
    rows: int, columns: int, blocks: bool, rate: float, views: int
) -> None:
    masking = Masking(rows, columns, rate, 1.0, views, blocks)
    images, each = 7, 4 if blocks else 1
    drawn = masking.draw(images, chance(rows + views))
    tokens = rows * columns
    assert drawn.mask.sum(dim=1).eq(masking.masked * each).all()
    assert drawn.keep.shape == (views * images, tokens - masking.masked * each)
    for k, kept in enumerate(drawn.keep):
        assert not drawn.mask[k, kept].any()
    assert torch.equal(
        drawn.restore.sort(dim=1).values, torch.arange(tokens).expand(len(drawn.restore), -1)
    )
    used = drawn.mask.reshape(views, images, tokens).sum(dim=0)
    union = (used > 0).sum(dim=1)
    assert union.eq(masking.union * each).all()
    if views == 2:
        wanted = masking.masked + int(min(1 - rate, rate) * masking.units)
        assert masking.union == wanted
    if views > 2:
        assert masking.union == min(masking.units, views * masking.masked)
        assert int(used.max() - used.min()) <= 1
    if blocks:
        grid = drawn.mask.reshape(-1, rows // 2, 2, columns // 2, 2)
        assert torch.equal(grid.amax((2, 4)), grid.amin((2, 4)))


def test_the_second_view_depends_on_the_first() -> None:
    drawn = Masking(4, 8, 0.5, 1.0, 2, blocks=False).draw(64, chance(1))
    first, second = drawn.mask.chunk(2)
    assert torch.equal(second, 1 - first)
    assert len({tuple(row) for row in first.int().tolist()}) > 60


def test_a_prediction_rate_limits_what_is_hidden_in_all() -> None:
    masking = Masking(10, 10, 0.6, 0.75, blocks=False)
    first, second = masking.draw(9, chance(3)).mask.chunk(2)
    assert torch.maximum(first, second).sum(dim=1).eq(75).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"corruption": 0.0}, "between 0 and 1"),
        ({"corruption": 0.6, "prediction": 0.5}, "at least what is masked in one"),
        ({"views": 0}, "one or more"),
        ({"views": 3, "prediction": 0.8}, "two views"),
        ({"rows": 5}, "no blocks of 2 x 2"),
        ({"rows": 2, "columns": 2}, "leaves 0 visible"),
    ],
)
def test_masks_that_cannot_be_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(VitcError) as caught:
        Masking(**{"rows": 4, "columns": 4, **options})  # type: ignore[arg-type]
    assert said in f"{caught.value} {caught.value.hint}"


def reference_targets(images: np.ndarray, patch: int) -> np.ndarray:
    """Section 3 of the method, pixel by pixel."""
    batch, channels, height, width = images.shape
    cell = patch // 2
    histogram = np.zeros((batch, channels, height // cell, width // cell, 9))
    x = images.astype(np.float64)
    for b, c, i, j in np.ndindex(*images.shape):
        gy = x[b, c, i + 1, j] - x[b, c, i - 1, j] if 0 < i < height - 1 else 0.0
        gx = x[b, c, i, j + 1] - x[b, c, i, j - 1] if 0 < j < width - 1 else 0.0
        index = int(math.degrees(math.atan2(gy, gx)) % 180 // 20) % 9
        histogram[b, c, i // cell, j // cell, index] += math.hypot(gx, gy) / cell**2
    spread = histogram.var(axis=-1, keepdims=True)
    told = (histogram - histogram.mean(axis=-1, keepdims=True)) / np.sqrt(spread + 1e-5)
    tokens = []
    for i in range(0, height // cell, 2):
        for j in range(0, width // cell, 2):
            part = told[:, :, i : i + 2, j : j + 2]
            tokens.append(part.transpose(0, 2, 3, 4, 1).reshape(batch, -1))
    return np.stack(tokens, axis=1)


@pytest.mark.parametrize(("height", "width", "patch"), [(16, 24, 8), (12, 8, 4), (8, 8, 2)])
def test_gradients_equal_those_taken_pixel_by_pixel(height: int, width: int, patch: int) -> None:
    images = torch.randint(0, 256, (2, 3, height, width), generator=chance(4), dtype=torch.uint8)
    images[1, :, : height // 2] = 100  # Flat cells.
    got = hog_targets(images, patch)
    assert got.shape == (2, height * width // patch**2, 108)
    np.testing.assert_allclose(got, reference_targets(images.numpy(), patch), rtol=0, atol=1e-5)


def test_pixels_of_a_patch_have_mean_zero_and_deviation_one() -> None:
    told = pixel_targets(torch.rand(2, 3, 8, 12, generator=chance(5)) * 255, 4)
    assert told.shape == (2, 6, 48)
    torch.testing.assert_close(told.mean(-1), torch.zeros(2, 6), rtol=0, atol=1e-5)
    torch.testing.assert_close(told.std(-1), torch.ones(2, 6), rtol=1e-4, atol=0)


def test_visible_tokens_are_compared_with_their_own_targets() -> None:
    masking = Masking(4, 6, 0.5, blocks=False)
    views = masking.draw(3, chance(6))
    target = torch.arange(24.0)[None, :, None].expand(3, -1, 5)
    told = views.keep[..., None].expand(-1, -1, 5).float()
    assert float(visible_loss(told, target, views)) == 0
    assert float(masked_loss(target.repeat(2, 1, 1), target, views)) == 0
    in_order = told.sort(dim=1).values
    assert float(visible_loss(in_order, target, views)) > 1


def tiny() -> Pretrained:
    config = DeiTTwinConfig(
        image_size=16, classes=2, patch_size=4, width=16, depth=2, heads=2, hidden=32
    )
    torch.manual_seed(7)
    return Pretrained(MaskedEncoder(build_network(config)), 108)


def step_of(model: Pretrained, images: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    target = hog_targets(images, 4)
    rebuilt, told = model(images / 128 - 1, views)
    assert told is not None
    return masked_loss(rebuilt, target, views), visible_loss(told, target, views)


def test_each_branch_learns_from_its_own_tokens_and_the_encoder_from_both() -> None:
    model = tiny()
    images = torch.rand(4, 3, 16, 16, generator=chance(8)) * 255
    views = Masking(4, 4, 0.5).draw(4, chance(9))
    encoder = [p for p in model.encoder.parameters() if p.requires_grad]
    own = list(model.reconstructor.parameters())
    others = list(model.distiller.parameters()) if model.distiller else []
    for loss, reached, spared in zip(
        step_of(model, images, views), (own, others), (others, own), strict=True
    ):
        grads = torch.autograd.grad(loss, spared, retain_graph=True, allow_unused=True)
        assert all(grad is None for grad in grads)
        assert all(grad.any() for grad in torch.autograd.grad(loss, reached, retain_graph=True))
        of_encoder = torch.autograd.grad(loss, encoder, retain_graph=True, allow_unused=True)
        assert all(grad is not None for grad in of_encoder)


def test_masked_tokens_do_not_reach_the_encoder() -> None:
    model = tiny().eval()
    images = torch.rand(2, 3, 16, 16, generator=chance(10))
    views = Masking(4, 4, 0.5, views=1).draw(2, chance(11))
    told = model.encoder(images, views)
    hidden = views.mask.reshape(2, 1, 4, 1, 4, 1).expand(-1, 3, -1, 4, -1, 4)
    other = torch.where(hidden.reshape(2, 3, 16, 16) > 0, torch.rand(2, 3, 16, 16), images)
    assert torch.equal(model.encoder(other, views), told)


def test_both_losses_fall_far_below_those_of_the_mean_predictor() -> None:
    model = tiny()
    images = torch.rand(8, 3, 16, 16, generator=chance(12)) * 255
    target = hog_targets(images, 4)
    views = Masking(4, 4, 0.5).draw(8, chance(13))
    mean = target.mean((0, 1)).expand_as(target)
    naive = masked_loss(mean.repeat(2, 1, 1), target, views)
    shown = torch.gather(
        mean.repeat(2, 1, 1), 1, views.keep[..., None].expand(-1, -1, mean.shape[-1])
    )
    naive_visible = visible_loss(shown, target, views)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        invisible, visible = step_of(model, images, views)
        optimizer.zero_grad()
        (invisible + visible).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(invisible.detach()) < 0.9 * float(naive)
    assert float(visible.detach()) < 0.9 * float(naive_visible)
