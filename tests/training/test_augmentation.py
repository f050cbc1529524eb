from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vitc.training.augmentation import erase, mirror, resized_crop, shift
from vitc.training.epoch_order import Share


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shift_moves_each_image_as_a_whole_and_repeats_its_border() -> None:
    images = torch.randn(40, 3, 9, 7)
    moved = shift(images, 2, generator())
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    places = set()
    for before, after in zip(padded, moved, strict=True):
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if torch.equal(before[:, y : y + 9, x : x + 7], after)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 10


def test_shift_of_zero_changes_nothing() -> None:
    images = torch.randn(4, 3, 5, 5)
    assert torch.equal(shift(images, 0, generator()), images)


def test_mirror_flips_about_half_of_the_images_left_to_right() -> None:
    images = torch.randn(200, 3, 5, 6)
    got = mirror(images, generator())
    same = (got == images).flatten(1).all(1)
    flipped = (got == images.flip(-1)).flatten(1).all(1)
    assert (same ^ flipped).all()
    assert 60 < int(flipped.sum()) < 140


def test_the_generator_decides() -> None:
    images = torch.randn(20, 3, 9, 9)
    assert torch.equal(shift(images, 2, generator(1)), shift(images, 2, generator(1)))
    assert not torch.equal(shift(images, 2, generator(1)), shift(images, 2, generator(2)))


def ramps(count: int, height: int, width: int) -> Tensor:
    """Images whose channels are the column, the row and the image."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    each = torch.arange(count)[:, None, None].expand(count, height, width)
    return torch.stack((columns.expand_as(each), rows.expand_as(each), each), dim=1).float()


def test_crops_are_rectangles_of_the_asked_areas_and_ratios_at_every_place() -> None:
    side = 64
    images = ramps(200, side, side)
    crops = resized_crop(images, (0.2, 0.6), generator())
    assert crops.shape == images.shape
    assert torch.equal(crops[:, 2], images[:, 2])
    # Enlarged by s, neighbours in the middle of a ramp differ by 1 / s.
    middle = slice(side // 4, side // 2)
    widths, heights = (
        side * crops[:, channel].diff(dim=axis)[:, middle, middle].mean((1, 2))
        for channel, axis in ((0, -1), (1, -2))
    )
    areas, ratios = widths * heights / side**2, widths / heights
    assert 0.19 < float(areas.min()) < 0.25
    assert 0.55 < float(areas.max()) < 0.62
    assert 0.72 < float(ratios.min()) < 0.8
    assert 1.25 < float(ratios.max()) < 1.37
    left = crops[:, 0].amin((1, 2))
    assert float(left.min()) < 4
    assert float(left.max()) > 16
    assert not torch.equal(crops[0, :2], crops[1, :2])


def test_a_crop_of_the_whole_area_is_the_image() -> None:
    images = torch.randn(6, 3, 16, 16)
    torch.testing.assert_close(resized_crop(images, (1.0, 1.0), generator()), images)


def test_some_images_get_one_rectangle_of_noise() -> None:
    height, width = 24, 30
    images = torch.zeros(400, 3, height, width)
    erased = erase(images, 0.25, generator())
    assert not images.any()
    changed = (erased != 0).any(1)
    hit = changed.flatten(1).any(1)
    assert 70 < int(hit.sum()) < 130
    for one, noise in zip(changed[hit], erased[hit], strict=True):
        rows, columns = one.any(1).nonzero(), one.any(0).nonzero()
        h, w = len(rows), len(columns)
        assert one.sum() == h * w == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert 0.01 < h * w / (height * width) < 0.37
        assert 0.2 < h / w < 5
        assert float(noise[:, one].mean().abs()) < 1.5
    assert 0.95 < float(erased[hit].permute(0, 2, 3, 1)[changed[hit]].std()) < 1.05


@pytest.mark.parametrize(
    "change",
    [
        lambda images, draws, share: shift(images, 3, draws, share),
        mirror,
        lambda images, draws, share: resized_crop(images, (0.1, 1.0), draws, share),
        lambda images, draws, share: erase(images, 0.5, draws, share),
    ],
    ids=["shift", "mirror", "resized_crop", "erase"],
)
def test_shares_of_a_batch_get_what_they_get_in_the_whole(
    change: Callable[[Tensor, torch.Generator, Share], Tensor],
) -> None:
    images = torch.randn(11, 3, 16, 12)
    draws = generator(3)
    whole = change(images, draws, Share.whole(11))
    assert not torch.equal(whole, images)
    for begin, end in ((0, 6), (6, 11), (4, 4)):
        own = generator(3)
        part = change(images[begin:end], own, Share(begin, end, 11))
        assert torch.equal(part, whole[begin:end])
        assert torch.equal(own.get_state(), draws.get_state())
