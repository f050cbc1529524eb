"""A linear classifier of the places of a frozen map, judged by the pixels of masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from vitc.errors import VitcError
from vitc.models.described import both
from vitc.models.twins.twin import Twin
from vitc.training.probes.features import encode
from vitc.training.probes.linear import LinearHead, Schedule, normalised
from vitc.training.probes.masks import MaskedPictures
from vitc.training.probes.options import DenseScore

__all__ = ["dense_score", "score_of"]

_ENCODED: Final = 64
_IGNORED: Final = -100
_MOST_CLASSES: Final = 256


def dense_score(
    twin: Twin,
    train: MaskedPictures,
    test: MaskedPictures,
    schedule: Schedule,
    *,
    void: int,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> DenseScore:
    """Train a linear classifier of places and judge it.

    Logits of places are made those of pixels bilinearly: of the network's image to learn, of the
    mask itself to judge.

    Args:
        twin: Frozen.
        train: To learn from.
        test: To judge by.
        schedule: How.
        void: Value of a mask where nothing is known; none below 0.
        seed: Of weights and orders.
        say: Told what is being done.

    Raises:
        VitcError: If a file cannot be read, or the masks have one class.
    """
    size = both(twin.preprocessing.crop)
    wanted = torch.stack([train.mask(index, size) for index in range(len(train))])
    wanted[wanted == void] = _IGNORED
    classes = int(wanted.max()) + 1
    if classes < 2:
        there = f"{classes} class{'' if classes == 1 else 'es'}"
        raise VitcError(
            f"The masks to learn from have {there} beside void, {void}.",
            "A pixel's value is its class; say by --void which value means nothing, -1 for none.",
        )

    def features(part: MaskedPictures, what: str) -> Tensor:
        return normalised(
            encode(
                twin,
                part.images(_ENCODED),
                pooled=False,
                done=lambda count: say(f"{what} images: {count} of {len(part)} encoded"),
            )
        )

    known, asked = features(train, "training"), features(test, "test")
    generator = torch.Generator().manual_seed(seed)
    head = LinearHead(known.shape[-1], classes, generator)

    def loss(chosen: Tensor) -> Tensor:
        logits = _enlarged(head(known[chosen]), size)
        return F.cross_entropy(logits, wanted[chosen], ignore_index=_IGNORED)

    schedule.run(
        head,
        len(train),
        loss,
        generator,
        lambda epoch, mean: say(f"dense probe: epoch {epoch}/{schedule.epochs}, loss {mean:.3f}"),
    )
    counts = torch.zeros(_MOST_CLASSES, _MOST_CLASSES, dtype=torch.int64)
    with torch.no_grad():
        for index, own in enumerate(asked.unbind()):
            mask = test.mask(index)
            (guess,) = _enlarged(head(own[None]), (mask.shape[0], mask.shape[1])).argmax(dim=1)
            judged = mask != void
            pairs = mask[judged] * _MOST_CLASSES + guess[judged]
            counts += torch.bincount(pairs, minlength=counts.numel()).view_as(counts)
    miou, right, iou = score_of(counts)
    rows, columns = known.shape[1:3]
    return DenseScore(miou, right, iou[:classes], (rows, columns), len(train), len(test))


def score_of(counts: Tensor) -> tuple[float, float, tuple[float | None, ...]]:
    """Mean intersection by union, accuracy, and the first of each class.

    Args:
        counts: Pixels by class and guess, int64 [classes, classes].

    Raises:
        VitcError: If there is none.
    """
    if not counts.any():
        raise VitcError("The masks to judge by are all void.", "Say by --void which value that is.")
    inside = counts.diagonal()
    union = counts.sum(dim=0) + counts.sum(dim=1) - inside
    iou = tuple(
        int(own) / int(whole) if whole else None for own, whole in zip(inside, union, strict=True)
    )
    there = [value for value in iou if value is not None]
    return sum(there) / len(there), int(inside.sum()) / int(counts.sum()), iou


def _enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, rows, columns, classes] to [B, classes, H, W]."""
    return F.interpolate(logits.permute(0, 3, 1, 2), size=size, mode="bilinear")
