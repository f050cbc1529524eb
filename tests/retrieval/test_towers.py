"""Packed towers: what the abstract claims of late interaction and of codes, exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.retrieval.towers import LENGTH, PIECES, WIDTH, configured, towers
from vitc.dialect.packing import pack_bits
from vitc.errors import VitcError
from vitc.models import load
from vitc.models.architectures import account
from vitc.models.architectures.retrieval import RetrievalConfig
from vitc.models.checkpoint import save
from vitc.models.retrieval.scores import late_interaction, sign_interaction
from vitc.models.retrieval.word_pieces import PAD, START, WordPieces, learn_pieces
from vitc.retrieval.scan import interactions


def given(seed: int, count: int = 3) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    words = torch.randint(3, len(PIECES), (count, LENGTH), generator=source)
    words[:, 0] = START
    words[0, 4:] = PAD
    return {"pixels": torch.randn(count, 3, 32, 32, generator=source), "words": words}


def test_without_codes_inflate_is_base_exactly():
    base, inflated = towers("base"), towers("inflate", codes=0)
    assert base.state_dict().keys() == inflated.state_dict().keys()
    inflated.load_state_dict(base.state_dict())
    for name, bits in base(**given(1)).items():
        assert torch.equal(bits, inflated(**given(1))[name])


@pytest.mark.parametrize("twin", [False, True])
def test_codes_are_rows_of_both_inputs_and_nothing_else_is_new(twin):
    k = 5
    base = towers("base", twin=twin)
    inflated = towers("inflate", codes=k, twin=twin)
    made = inflated(**given(2))
    tokens = base.config.image_tokens
    assert made["image"].shape == (3, tokens + k, WIDTH)
    assert made["text"].shape == (3, LENGTH + k, WIDTH)
    assert inflated.image.codes.table.numel() == k * inflated.config.image.width
    assert inflated.text.codes.table.numel() == k * inflated.config.text_width
    products = inflated.config.image_vectors * inflated.config.text_vectors
    assert products == (tokens + k) * (LENGTH + k)


def test_gradients_reach_both_tables_of_codes():
    model = towers("inflate", codes=4).train()
    made = model(**given(3, 4))
    late_interaction(made["image"], made["text"]).diagonal().sum().backward()
    for codes in (model.image.codes, model.text.codes):
        assert codes.table.grad.abs().sum() > 0


def test_spatial_interaction_mixes_tokens_only():
    model = towers("inflate", codes=4).train(False)
    block, count = model.image.blocks[0], model.config.image_tokens
    x = torch.randn(2, count + 4, model.config.image.width)
    out = x + block.attn(block.norm1(x))
    out = out + block.mlp(block.norm2(out))
    with torch.no_grad():
        block.learnablescaling.fill_(0.5)
        mixed = block(x)
    assert torch.equal(mixed[:, count:], out[:, count:])
    assert not torch.equal(mixed[:, :count], out[:, :count])


@pytest.mark.parametrize(("mode", "codes"), [("base", 0), ("inflate", 3), ("fast", 0)])
def test_vectors_of_an_image_do_not_depend_on_the_text(mode, codes):
    model = towers(mode, codes=codes)
    one, other = given(4), given(5)
    mixed = model(one["pixels"], other["words"])
    assert torch.equal(mixed["image"], model(**one)["image"])
    assert torch.equal(mixed["text"], model(**other)["text"])
    assert not torch.equal(mixed["text"], model(**one)["text"])


def test_padding_is_not_attended_but_stays_in_the_sum():
    model = towers("base", codes=0)
    words = given(6)["words"][1:]
    words[:, 5:] = PAD
    before = model.text_rows(words)
    with torch.no_grad():
        model.text.word.weight[PAD] = torch.randn(model.config.text_width)
    after = model.text_rows(words)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-2)


@pytest.mark.parametrize(("mode", "codes"), [("base", 0), ("inflate", 3), ("fast", 0)])
def test_packed_scores_are_the_sign_products_of_the_towers(mode, codes):
    model = towers(mode, codes=codes)
    inputs = given(7, 6)
    bits = model(**inputs)
    image, text = bits["image"], bits["text"]
    signs = [2 * part.numpy().astype(np.int64) - 1 for part in (image, text)]
    wanted = np.einsum("tad,ibd->itab", signs[1], signs[0]).max(-1).sum(-1)
    assert np.array_equal(sign_interaction(image, text).numpy(), wanted)
    packed, queries = pack_bits(image.numpy()), pack_bits(text.numpy())
    for number, query in enumerate(queries):
        assert np.array_equal(interactions(query, packed, WIDTH), wanted[:, number])
    unit = late_interaction(
        model.vectors(model.image_rows(inputs["pixels"])),
        model.vectors(model.text_rows(inputs["words"])),
    )
    np.testing.assert_allclose(WIDTH * unit.detach().numpy(), wanted, rtol=0, atol=1e-3)


def test_a_checkpoint_holds_all_that_a_query_needs(tmp_path):
    model = towers("inflate", codes=2, packed=True)
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert again.config.pieces == PIECES
    for name, bits in model(**given(8)).items():
        assert torch.equal(again(**given(8))[name], bits)


def test_the_account_has_every_parameter_of_both_towers():
    for twin in (False, True):
        model = towers("inflate", codes=3, twin=twin)
        counted = sum(p.numel() for p in model.parameters())
        stated = account(model.config)
        assert stated.parameters == counted
        assert {"codes", "text.embedding", "text.head"} <= {layer.name for layer in stated.layers}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"codes": 2}, "Mode base has no codes"),
        ({"mode": "slow"}, "no mode"),
        ({"pieces": ("a", "a", "b")}, "each once"),
        ({"text_heads": 5}, "does not split"),
        ({"packed": 1}, "packed must be true or false"),
        ({"length": 0}, "length must be a positive integer"),
    ],
)
def test_a_configuration_that_does_not_hold_is_refused(change, says):
    with pytest.raises(VitcError, match=says):
        configured("base", **change) if "mode" not in change else dataclasses.replace(
            configured("base"), **change
        )


def test_a_configuration_comes_back_from_json():
    config = configured("inflate", codes=2)
    assert RetrievalConfig.from_dict(config.to_dict()) == config
    for damaged in ({"image": 3}, {"image": {"arch": "swin"}}, {"classes": 7}):
        with pytest.raises(VitcError):
            RetrievalConfig.from_dict({**config.to_dict(), **damaged})


def test_words_become_the_same_numbers_whatever_order_the_captions_had():
    captions = [f"a {colour} {what}" for colour in ("red", "blue") for what in ("dog", "cat")]
    pieces = learn_pieces(captions, 40)
    assert pieces == learn_pieces(reversed(captions), 40)
    words = WordPieces(pieces, 6)
    (short, long, strange) = words(["A red Dog", "blue " * 9, "\u2603 dog"])
    assert short.tolist()[0] == START
    assert short.tolist()[4:] == [PAD, PAD]
    assert PAD not in long.tolist()
    assert strange.tolist()[1] == 1, "an unknown word"
    assert words(["a\u0301 red DOG"]).tolist() == words(["a red dog"]).tolist()


@pytest.mark.parametrize("preset", ["micro-swin", "micro-pvt", "micro-nest"])
@pytest.mark.parametrize("twin", [False, True])
def test_rows_of_the_last_stage_are_the_vectors_and_what_is_classified_is_the_fast_one(
    preset, twin
):
    base, fast = (towers(mode, 3, on=preset, twin=twin, packed=False) for mode in ("base", "fast"))
    fast.image.load_state_dict(base.image.state_dict())
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert base.image_rows(pixels).shape == (2, base.config.image_vectors, WIDTH)
        wanted = fast.image_spread(fast.image(pixels)[:, None])
        assert torch.allclose(fast.image_rows(pixels), wanted, atol=1e-5)


@pytest.mark.parametrize("preset", ["micro-swin", "micro-pvt", "micro-nest"])
def test_codes_are_refused_where_tokens_do_not_attend_all(preset):
    with pytest.raises(VitcError, match="Codes attend all tokens in every block"):
        configured("inflate", codes=2, on=preset)
