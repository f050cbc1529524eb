from __future__ import annotations

import torch

from vitc.training.losses import classification_loss


def test_without_a_teacher_it_is_the_smoothed_label_loss() -> None:
    logits, targets = torch.randn(5, 7), torch.tensor([0, 3, 6, 1, 3])
    wanted = torch.zeros(5, 7).fill_(0.2 / 7)
    wanted[torch.arange(5), targets] += 0.8
    expected = -(wanted * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(classification_loss(logits, targets, 0.2), expected)


def test_with_a_teacher_it_is_95_percent_distillation() -> None:
    logits, teacher = torch.randn(5, 7), torch.randn(5, 7)
    targets = torch.tensor([0, 3, 6, 1, 3])
    distilled = -(teacher.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    label = -logits.log_softmax(1)[torch.arange(5), targets].mean()
    torch.testing.assert_close(
        classification_loss(logits, targets, 0.0, teacher), 0.95 * distilled + 0.05 * label
    )
