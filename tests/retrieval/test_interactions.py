"""What the paper says of its modes, as checks (claims 2, 3 and 5), and the score of signs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitc.errors import VitcError
from vitc.models.retrieval.modes import MODES
from vitc.models.retrieval.scores import late_interaction, sign_interaction
from vitc.models.retrieval.towers import SharedTowers, TowerSizes
from vitc.training.retrieval.losses import (
    collapsed_value,
    distillation_entropy,
    perfect_value,
    ranking_loss,
    shrink_loss,
)
from vitc.training.retrieval.recall import Recall, ranks

SIZES = TowerSizes(
    width=12, heads=3, hidden=20, layers=2, vocabulary=30, positions=9, region_width=7, codes=5
)
TOKENS = 6


def sized(codes: int) -> TowerSizes:
    return TowerSizes(**{**vars(SIZES), "codes": codes})


def given(seed: int, images: int = 4, texts: int = 3) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    words = torch.randint(1, 30, (texts, TOKENS), generator=draws)
    words[1, 2:] = 0
    return torch.randn(images, TOKENS, 7, generator=draws), words


def test_a_score_is_the_best_image_vector_of_each_text_vector_and_each_side_is_encoded_alone():
    towers = SharedTowers(SIZES).eval()
    regions, words = given(1)
    image, text = towers.image(regions), towers.text(words)
    scores = late_interaction(image, text).detach()
    for i in range(4):
        for t in range(3):
            products = (text[t] @ image[i].T).tolist()
            assert float(scores[i, t]) == pytest.approx(sum(map(max, products)), abs=1e-5)
    torch.testing.assert_close(towers.image(regions[2:3])[0], image[2])
    read = (towers.words.word.weight, towers.text_codes.table)
    assert torch.autograd.grad(image.sum(), read, allow_unused=True) == (None, None)


@pytest.mark.parametrize("codes", [0, 1, 5])
def test_codes_are_rows_at_the_input_that_all_attend_to(codes):
    torch.manual_seed(2)
    towers = SharedTowers(sized(codes)).eval()
    regions, words = given(3)
    text, image = towers.text(words), towers.image(regions)
    assert text.shape[1] == image.shape[1] == TOKENS + codes
    base = SharedTowers(sized(0))
    more = sum(p.numel() for p in towers.parameters()) - sum(p.numel() for p in base.parameters())
    assert more == 2 * codes * SIZES.width
    mode = MODES["inflate"]
    assert mode.interactions(TOKENS, codes) == text.shape[1] * image.shape[1]
    ranking_loss(late_interaction(image[:3], text), mode.margin).backward()
    for table in (towers.text_codes.table, towers.image_codes.table):
        assert table.grad is not None
        # Each code, and through the attention of the words and regions too.
        assert bool((table.grad.abs().sum(dim=1) > 0).all())


def test_without_codes_inflate_is_base():
    towers, (regions, words) = SharedTowers(sized(0)).eval(), given(4)
    base, inflate = MODES["base"], MODES["inflate"]
    text, image = towers.text(words), towers.image(regions)
    assert base.interactions(TOKENS, 0) == inflate.interactions(TOKENS, 0)
    assert torch.equal(base.kept(text), inflate.kept(text))
    assert torch.equal(base.kept(image), image)


def test_what_stands_behind_the_padding_changes_nothing_before_it():
    towers = SharedTowers(SIZES).eval()
    _, words = given(5)
    short = towers.text(words[1:2, :2])
    # Pads are excluded as keys, by a term that leaves e^-10000 of them.
    torch.testing.assert_close(short[:, :2], towers.text(words[1:2])[:, :2])


def test_a_student_has_a_fresh_encoder_on_a_frozen_front_end_and_learns_towards_the_entropy():
    torch.manual_seed(6)
    teacher = SharedTowers(SIZES).eval()
    student = teacher.student().eval()
    assert student.sizes.codes == 0
    trained = [name for name, p in student.named_parameters() if p.requires_grad and p.numel()]
    assert all(name.startswith("encoder.") for name in trained)
    assert torch.equal(student.words.word.weight, teacher.words.word.weight)
    own, theirs = student.encoder.layers[0].fc1.weight, teacher.encoder.layers[0].fc1.weight
    assert not torch.equal(own, theirs)
    regions, words = given(7, images=3)
    with torch.no_grad():
        told = late_interaction(teacher.image(regions), teacher.text(words))
    least = float(distillation_entropy(told, 16.0))
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(60):
        scores = late_interaction(student.image(regions), student.text(words))
        loss = shrink_loss(told, scores, teacher_scale=16.0, student_scale=16.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert least <= losses[-1] < least + 0.2 * (losses[0] - least)


def test_a_perfect_batch_and_a_collapsed_one_cost_what_they_are_said_to():
    perfect, collapsed = 100 * torch.eye(5).double(), torch.ones(5, 5).double()
    assert float(ranking_loss(perfect, 0.6)) == pytest.approx(perfect_value(5, 0.6))
    assert float(ranking_loss(collapsed, 0.2)) == pytest.approx(collapsed_value(5, 0.2))


def test_the_distillation_of_scores_far_apart_is_finite():
    student = (1000 * torch.randn(6, 6)).requires_grad_()
    loss = shrink_loss(torch.randn(6, 6), student, teacher_scale=16.0, student_scale=16.0)
    loss.backward()
    assert bool(loss.isfinite())
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("width", [1, 31, 64, 100])
def test_the_score_of_signs_is_the_score_of_their_vectors_times_the_width(width):
    draws = torch.Generator().manual_seed(width)
    image = torch.randint(0, 2, (5, 4, width), generator=draws, dtype=torch.uint8)
    text = torch.randint(0, 2, (6, 3, width), generator=draws, dtype=torch.uint8)
    made = sign_interaction(image, text)
    assert made.dtype == torch.int32
    vectors = [(2.0 * bits.double() - 1) / width**0.5 for bits in (image, text)]
    torch.testing.assert_close(made.double() / width, late_interaction(*vectors))
    hamming = (text[None, :, :, None] != image[:, None, None]).sum(dim=-1).amin(dim=-1)
    assert torch.equal(made.long(), 3 * width - 2 * hamming.sum(dim=-1))


def test_equal_scores_do_not_count_as_right():
    scores = torch.zeros(3, 3)
    of_image, of_text = ranks(scores, torch.tensor([2, 1, 0]))
    assert of_image.tolist() == [2, 1, 0]
    assert of_text.tolist() == [2, 1, 0]
    assert vars(Recall.of(of_text)) == pytest.approx(vars(Recall(100 / 3, 100, 100, 2, 2)))


def test_texts_that_belong_to_no_image_are_refused():
    with pytest.raises(VitcError, match="do not belong to 3 images"):
        ranks(torch.zeros(3, 3), torch.tensor([0, 1, 1]))
    with pytest.raises(VitcError, match="meets 9 positions"):
        SharedTowers(SIZES).text(torch.ones(1, 10, dtype=torch.int64))
    with pytest.raises(VitcError, match="does not split into 5 heads"):
        TowerSizes(**{**vars(SIZES), "heads": 5})
