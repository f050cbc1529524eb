"""The integer form of a patch embedding: what is rounded, what is refused, what stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import vitc
from vitc.devices.inputs import read_inputs, validated
from vitc.errors import VitcError
from vitc.models.checkpoint import save
from vitc.models.embedding import with_embedding
from vitc.models.layers.byte_projection import ByteProjection
from vitc.models.preprocessing import Preprocessing
from vitc.nn import PatchEmbed

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def projection(weight: torch.Tensor, bias: torch.Tensor, digits: int) -> ByteProjection:
    conv = torch.nn.Conv2d(3, len(weight), weight.shape[2:], stride=weight.shape[2:])
    conv.weight.data, conv.bias.data = weight, bias
    return ByteProjection(conv, MEAN, STD, digits=digits, name="e")


def integers(projected: ByteProjection) -> np.ndarray:
    whole = np.zeros(projected.weight.shape[1:], np.int64)
    for digits in projected.weight.numpy():
        whole = 128 * whole + digits
    return whole


def exact(projected: ByteProjection, image: np.ndarray) -> np.ndarray:
    """As docs/embedding.md says, in numpy."""
    (high, wide), (count, colours, height, width) = projected.patch, image.shape
    cut = image.reshape(count, colours, height // high, high, width // wide, wide)
    rows = cut.transpose(0, 2, 4, 1, 3, 5).reshape(count, -1, colours * high * wide)
    sums = rows.astype(np.int64) @ integers(projected).T
    return sums.astype(np.int32).astype(np.float32) * projected.scale.numpy() + (
        projected.bias.numpy()
    )


@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("patch", [(4, 4), (3, 5), (16, 16)])
def test_integers_and_one_order_of_roundings(digits, patch):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(7, 3, *patch, generator=generator)
    weight[2], weight[3] = 0, weight[3] * 1e-30  # no weights, and weights that are hardly any
    projected = projection(weight, torch.randn(7, generator=generator), digits)
    most = 128**digits - 1
    found = integers(projected)
    assert np.abs(found).max() == most
    assert not found[2].any()
    image = np.random.default_rng(1).integers(0, 256, (2, 3, 2 * patch[0], 3 * patch[1]))
    image = image.astype(np.uint8)
    made = projected(torch.from_numpy(image)).numpy()
    assert np.array_equal(made.view(np.int32), exact(projected, image).view(np.int32))


def test_an_embedding_of_15_bits_is_nearer_than_one_of_8():
    model = vitc.new("micro", seed=4).eval()
    pixels = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    normal = torch.from_numpy(model.preprocessing.normalise(pixels))
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1)))
    with torch.no_grad():
        wanted = model.patch_embed(normal)
        apart = {
            name: float((with_embedding(model, name).patch_embed(image) - wanted).abs().max())
            for name in ("int8", "int15")
        }
    assert 0 < apart["int15"] < apart["int8"] / 50
    assert apart["int8"] < 0.05 * float(wanted.abs().max())


@pytest.mark.parametrize("preset", ["micro", "micro-swin", "micro-pvt", "micro-nest"])
def test_every_backbone_takes_bytes(preset):
    model = vitc.new(preset)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = with_embedding(model, "int15").eval()
    assert (model.config.embedding, other.config.embedding) == ("fp32", "int15")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert other(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, model.config.classes)
    assert with_embedding(other, "int15") is other
    with pytest.raises(VitcError, match=r"takes bytes \(uint8\), found torch.float32"):
        other(torch.zeros(1, 3, 32, 32))


def test_sums_beyond_32_bits_are_refused():
    weight = torch.ones(2, 3, 16, 16)
    weight[0] = torch.linspace(-1, 1, weight[0].numel()).reshape(weight[0].shape)
    with pytest.raises(VitcError, match="beyond 32 bits: its 768 integers of 15 bits"):
        projection(weight, torch.zeros(2), 2)
    negative = projection(-weight, torch.zeros(2), 1)
    assert integers(negative).min() == -127
    projection(weight[:1], torch.zeros(1), 2)  # as many on either side: half a row adds up


def test_what_has_no_integer_form_is_named(tmp_path):
    other = with_embedding(vitc.new("micro"), "int8")
    with pytest.raises(VitcError, match="has the embedding int8 already"):
        with_embedding(other, "int15")
    with pytest.raises(VitcError, match="is no checkpoint"):
        save(other, tmp_path / "m.safetensors")
    with pytest.raises(VitcError, match="a network of PatchEmbed takes normalised floats"):
        with_embedding(PatchEmbed(4, 8), "int15")
    with pytest.raises(VitcError, match="int15"):
        with_embedding(vitc.new("micro"), "int16")


def test_arrays_are_bytes(tmp_path):
    config = with_embedding(vitc.new("micro"), "int15").config
    images = np.full((2, 3, 32, 32), 200, np.uint8)
    assert validated(images, config, "x.npy").dtype == np.uint8
    with pytest.raises(VitcError, match=r"x\.npy holds float32, wanted uint8") as error:
        validated(images.astype(np.float32), config, "x.npy")
    assert "not normalised" in str(error.value)
    np.save(tmp_path / "x.npy", images)
    read = read_inputs([tmp_path / "x.npy"], config, Preprocessing(resize=32, crop=32))
    assert np.array_equal(read.part(0, 2), images)
    Image.fromarray(np.moveaxis(images[0], 0, -1)).save(tmp_path / "p.png")
    read = read_inputs([tmp_path / "p.png"], config, Preprocessing(resize=32, crop=32))
    assert np.array_equal(read.part(0, 1), images[:1])


def test_a_configuration_names_an_embedding_only_where_there_is_one():
    model = vitc.new("micro")
    assert "embedding" not in model.config.to_dict()
    config = with_embedding(model, "int8").config
    assert config.to_dict()["embedding"] == "int8"
    assert type(config).from_dict(config.to_dict()) == config
    with pytest.raises(VitcError, match="embedding must be fp32 or int15 or int8"):
        type(config).from_dict({**config.to_dict(), "embedding": "int4"})
