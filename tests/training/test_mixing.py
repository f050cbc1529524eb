from __future__ import annotations

import pytest
import torch

from vitc.training.mixing import mix


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGES = torch.randn(7, 3, 12, 10)
TARGETS = torch.tensor([0, 1, 2, 3, 4, 0, 2])
PARTNER = [1, 0, 3, 2, 5, 4, 6]


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_a_mean_of_neighbours_and_of_their_labels(seed: int) -> None:
    mixed, shares = mix(IMAGES, TARGETS, 5, generator(seed), mixup=0.8)
    own = float(shares[0, 0])
    assert 0 <= own <= 1
    expected = torch.zeros(7, 5)
    for place, partner in enumerate(PARTNER):
        expected[place, TARGETS[place]] += own
        expected[place, TARGETS[partner]] += 1 - own
    torch.testing.assert_close(shares, expected)
    torch.testing.assert_close(mixed, own * IMAGES + (1 - own) * IMAGES[PARTNER])


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_puts_one_rectangle_of_the_neighbour_in_and_counts_its_pixels(seed: int) -> None:
    mixed, shares = mix(IMAGES, TARGETS, 5, generator(seed), cutmix=1.0)
    from_partner = (mixed[:6] != IMAGES[:6]).all(1)
    assert (from_partner == from_partner[0]).all()
    box = from_partner[0]
    rows, columns = box.any(1), box.any(0)
    assert torch.equal(box, rows[:, None] & columns[None])
    assert torch.equal(mixed, torch.where(box, IMAGES[PARTNER], IMAGES))
    assert float(shares[0, 1]) == pytest.approx(float(box.float().mean()), abs=1e-6)
    torch.testing.assert_close(shares.sum(1), torch.ones(7))


def test_shares_are_as_beta_has_them_and_both_methods_are_taken() -> None:
    own = torch.stack(
        [mix(IMAGES, TARGETS, 5, generator(seed), mixup=0.2)[1][0, 0] for seed in range(300)]
    )
    # Beta(0.2, 0.2) has mean 1/2 and variance 1 / (4 * 1.4).
    assert abs(float(own.mean()) - 0.5) < 0.08
    assert abs(float(own.var()) - 1 / 5.6) < 0.03
    kinds = [
        bool((mix(IMAGES, TARGETS, 5, generator(s), mixup=1, cutmix=1)[0][0] == IMAGES[0]).any())
        for s in range(100)
    ]
    assert 25 < sum(kinds) < 75


@pytest.mark.parametrize("how", [{"mixup": 0.5}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 1.0}])
def test_parts_that_begin_at_an_even_place_are_mixed_as_in_the_whole(
    how: dict[str, float],
) -> None:
    for seed in range(4):
        draws = generator(seed)
        whole = mix(IMAGES, TARGETS, 5, draws, **how)
        for begin, end in ((0, 4), (4, 7)):
            own = generator(seed)
            part = mix(IMAGES[begin:end], TARGETS[begin:end], 5, own, **how)
            for mine, all_of_it in zip(part, whole, strict=True):
                assert torch.equal(mine, all_of_it[begin:end])
            assert torch.equal(own.get_state(), draws.get_state())
