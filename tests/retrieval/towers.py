"""Small towers for tests."""

from __future__ import annotations

import torch

from tests.randomised import randomised
from vitc.models.architectures import preset, twin_preset
from vitc.models.architectures.retrieval import RetrievalConfig
from vitc.models.build import build_network
from vitc.models.preprocessing import SMALL_PICTURES
from vitc.models.retrieval.network import Retrieval
from vitc.models.retrieval.word_pieces import learn_pieces

CAPTIONS = ("a small red chess knight", "a big blue snowman at the left", "a dog on a beach")
PIECES = learn_pieces(CAPTIONS, 64)
LENGTH, WIDTH = 7, 40


def configured(
    mode: str, *, codes: int = 0, twin: bool = False, on: str = "micro", **own: object
) -> RetrievalConfig:
    backbone = (twin_preset if twin else preset)(on).config.replace(classes=WIDTH)
    if not twin or on == "micro":  # other twins have the blocks of their preset
        backbone = backbone.replace(depth=1)
    sizes = {"length": LENGTH, "pieces": PIECES, "text_width": 24, "text_heads": 2}
    sizes |= {"text_hidden": 32, "text_layers": 1}
    return RetrievalConfig.of(backbone, mode=mode, codes=codes, **{**sizes, **own})


def towers(mode: str, seed: int = 0, **own: object) -> Retrieval:
    """With parameters that are all but zero, in eval mode."""
    torch.manual_seed(seed)
    model = build_network(configured(mode, **own), SMALL_PICTURES)
    assert isinstance(model, Retrieval)
    mask = model.text.pads.clone()
    randomised(model, seed)
    model.text.pads.copy_(mask)  # a constant of the sizes, in no file
    return model.eval()
