from __future__ import annotations

import numpy as np
import pytest
import torch

from vitc.training.losses import classification_loss, normalised_difference


def test_without_a_teacher_it_is_the_smoothed_label_loss() -> None:
    logits, targets = torch.randn(5, 7), torch.tensor([0, 3, 6, 1, 3])
    wanted = torch.zeros(5, 7).fill_(0.2 / 7)
    wanted[torch.arange(5), targets] += 0.8
    expected = -(wanted * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(classification_loss(logits, targets, 0.2).total, expected)


def test_with_a_teacher_it_is_95_percent_distillation() -> None:
    logits, teacher = torch.randn(5, 7), torch.randn(5, 7)
    targets = torch.tensor([0, 3, 6, 1, 3])
    distilled = -(teacher.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    label = -logits.log_softmax(1)[torch.arange(5), targets].mean()
    losses = classification_loss(logits, targets, 0.0, teacher)
    torch.testing.assert_close(losses.total, 0.95 * distilled + 0.05 * label)
    torch.testing.assert_close(losses.parts, {"label": label, "distillation": distilled})


def test_normalised_difference_sees_directions_only_and_adds_up_pairs() -> None:
    own = [torch.randn(3, 5, 4, requires_grad=True), torch.randn(3, 2)]
    wanted = [torch.randn(3, 5, 4), torch.randn(3, 2)]
    expected = 0.0
    for a, b in zip(own, wanted, strict=True):
        one, other = a.detach().double().numpy(), b.double().numpy()
        one, other = one / np.sqrt((one**2).sum()), other / np.sqrt((other**2).sum())
        expected += np.sqrt(((one - other) ** 2).sum())
    loss = normalised_difference(own, wanted)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    scaled = normalised_difference(own, [7 * b for b in wanted])
    torch.testing.assert_close(scaled, loss)
    assert float(normalised_difference([-own[1]], [own[1]])) == pytest.approx(2)
    loss.backward()
    assert own[0].grad is not None
    assert abs(float((own[0].grad * own[0].detach()).sum())) < 1e-6
