"""What a program may give a model: any array of floats, and nothing that would lose a value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitc.errors import VitcError
from vitc.runtime.images import as_images

SHAPE = (3, 4, 5)


@pytest.fixture
def wanted():
    return np.random.default_rng(7).standard_normal((2, *SHAPE), dtype=np.float32)


def strided(x):
    wide = np.full((2, 3, 8, 10), np.nan, np.float32)
    wide[:, :, ::2, ::-2] = x
    return wide[:, :, ::2, ::-2]


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: x.tolist(),
        lambda x: tuple(x),
        lambda x: list(x),
        np.asfortranarray,
        strided,
        lambda x: x.astype(">f4"),
        lambda x: x.astype("<f8"),
        lambda x: x.astype(">f8"),
        lambda x: x.astype(np.longdouble),
        np.ma.array,
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch.from_numpy(x).double(),
        lambda x: torch.from_numpy(x.transpose(0, 2, 3, 1).copy()).permute(0, 3, 1, 2),
        lambda x: torch.complex(torch.zeros(x.shape), torch.from_numpy(-x)).conj().imag,
        lambda x: [torch.from_numpy(part).requires_grad_() for part in x],
        lambda x: torch.nn.Parameter(torch.from_numpy(x)),
    ],
)
def test_every_array_of_floats_gives_the_same_values(wanted, form):
    found = as_images(form(wanted), SHAPE)
    assert found.dtype == np.float32
    assert found.dtype.isnative
    assert found.flags.c_contiguous
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("half", ["f2", torch.float16, torch.bfloat16])
def test_a_half_is_its_own_value_as_a_float(wanted, half):
    given = wanted.astype(half) if isinstance(half, str) else torch.from_numpy(wanted).to(half)
    expected = np.asarray(given if isinstance(half, str) else given.float(), np.float32)
    assert np.array_equal(as_images(given, SHAPE), expected)
    assert not np.array_equal(expected, wanted)


def test_a_mapped_file_is_taken(wanted, tmp_path):
    np.save(tmp_path / "x.npy", wanted)
    assert np.array_equal(as_images(np.load(tmp_path / "x.npy", mmap_mode="r"), SHAPE), wanted)


def masked(x):
    return np.ma.array(x, mask=x > 1)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda _: None, "The input is None, wanted float32 of N x 3 x 4 x 5"),
        (lambda _: "a photo", "is a str, wanted float32"),
        (lambda _: b"bytes", "is a bytes, wanted"),
        (lambda _: [["x"]], "is a list of str"),
        (lambda _: {}, "is a dict, wanted"),
        (lambda x: x.astype(object), "is a ndarray of float, wanted"),
        (lambda x: [None, x[0]], "is a list that is no array"),
        (lambda x: [x[0].tolist(), x[1, :2].tolist()], "is a list that is no array"),
        (lambda _: [], "has shape 0"),
        (lambda _: 5.0, "has shape no dimensions"),
        (lambda x: x.astype("c8"), "holds complex64, wanted float32"),
        (lambda x: x > 0, "holds bool, wanted float32"),
        (lambda x: x.astype("u1"), "holds uint8, wanted float32"),
        (lambda x: torch.from_numpy(x).int(), "holds int32, wanted float32"),
        (lambda x: x.astype("i8").astype("M8[s]"), "holds datetime64"),
        (lambda _: np.zeros((2, *SHAPE), [("a", "f4")]), "is a ndarray of void, wanted"),
        (masked, "values are masked"),
        (lambda x: torch.from_numpy(x).to_sparse(), "is a Tensor that is no array"),
        (lambda _: torch.empty((2, *SHAPE), device="meta"), "is a Tensor that is no array"),
        (lambda x: x[0], r"has shape 3 x 4 x 5.*x\[None\]"),
        (lambda x: x[:0], "has shape 0 x 3 x 4 x 5"),
        (lambda x: x[..., :4], "wanted N x 3 x 4 x 5"),
        (lambda x: x.transpose(0, 2, 3, 1), r"colours come first: x.transpose\(0, 3, 1, 2\)"),
    ],
)
def test_whatever_is_no_array_of_such_images_is_a_sentence(wanted, form, said):
    with pytest.raises(VitcError, match=said):
        as_images(form(wanted), SHAPE)


@pytest.mark.parametrize("kind", ["f8", ">f8", np.longdouble, torch.float64])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1e300, r"holds 1e\+300 beyond float32 at \[1, 2, 3, 4\]"),
        (-3.5e38, "beyond float32"),
        (np.inf, r"holds inf at \[1, 2, 3, 4\]"),
        (np.nan, r"holds NaN at \[1, 2, 3, 4\]"),
    ],
)
def test_a_value_that_float32_does_not_have_is_refused_with_its_place(wanted, kind, value, said):
    given = wanted.astype("f8" if kind is torch.float64 else kind)
    given[1, 2, 3, 4] = value
    with pytest.raises(VitcError, match=said):
        as_images(torch.from_numpy(given) if kind is torch.float64 else given, SHAPE)


def test_what_float32_still_has_is_taken(wanted):
    given = wanted.astype("f8")
    given.flat[:4] = 3.4e38, -3.4e38, 1e-300, 0.0
    assert np.array_equal(as_images(given, SHAPE), given.astype("f4"))


def test_the_array_given_is_not_written_to(wanted):
    kept = wanted.copy()
    found = as_images(torch.from_numpy(wanted).double(), SHAPE)
    found[:] = 0
    assert np.array_equal(wanted, kept)
