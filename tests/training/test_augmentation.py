from __future__ import annotations

import torch

from vitc.training.augmentation import mirror, shift


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
