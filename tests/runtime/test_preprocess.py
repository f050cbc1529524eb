"""Preprocessing in C: the same floats as in Python, for every filter, and names of classes."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from PIL import Image

from vitc.compiler.described import UNDESCRIBED, write_description
from vitc.compiler.link import run_zig, runtime_sources
from vitc.models.preprocessing import Preprocessing

OK, ARGUMENT, PORT = 0, 1, 6
LABELS = ('say "??/"', "é\\猫", "", "0\t7")
FORMS = {
    "bicubic": Preprocessing(resize=256, crop=224),
    "bilinear": Preprocessing(resize=36, crop=(32, 31), interpolation="bilinear", mean=(0.5,) * 3),
    "nearest": Preprocessing(resize=(40, 44), crop=33, interpolation="nearest", std=(0.1, 2, 3)),
    "box": Preprocessing(resize=(30, 51), crop=(20, 31)),
}
SIZES = [(1, 1), (7, 300), (300, 7), (41, 57), (480, 641), (33, 33), (999, 1000), (36, 36)]


def library(folder, text):
    (folder / "described.c").write_text(text)
    runtime = runtime_sources()
    strict = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=all"]
    source = runtime / "vitc_preprocess.c"
    linked = ["-shared", "-fPIC", f"-I{runtime}", str(source), "described.c", "-o", "l.so"]
    run_zig([*strict, *linked], folder)
    made = ctypes.CDLL(str(folder / "l.so"))
    made.vitc_label.restype = ctypes.c_char_p
    return made


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    return {
        name: library(tmp_path_factory.mktemp(name), write_description(how.to_dict(), LABELS))
        for name, how in FORMS.items()
    }


def preprocess(made, pixels, height, width, stride, input_):
    array, out = (a.ctypes.data_as(ctypes.c_void_p) for a in (pixels, input_))
    return made.vitc_preprocess(array, height, width, ctypes.c_size_t(stride), out)


@pytest.mark.parametrize("name", FORMS)
def test_floats_are_those_of_python(libraries, name) -> None:
    random = np.random.default_rng(11)
    for index, (height, width) in enumerate(SIZES):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if index % 2:  # edges, which filters overshoot
            pixels = (pixels > 127).astype(np.uint8) * np.uint8(255)
        expected = FORMS[name].apply(Image.fromarray(pixels))
        found = np.full_like(expected, np.nan)
        assert preprocess(libraries[name], pixels, height, width, 0, found) == OK
        # One level of a byte is what rounding may come to where a compiler fuses differently.
        assert np.array_equal(found, expected), (height, width)


@pytest.mark.parametrize("name", FORMS)
def test_bytes_are_those_that_floats_are_made_of(libraries, name) -> None:
    random = np.random.default_rng(12)
    for height, width in SIZES[1:5]:
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = FORMS[name].crop_bytes(pixels)
        found = np.zeros_like(expected)
        given, out = (a.ctypes.data_as(ctypes.c_void_p) for a in (pixels, found))
        made = libraries[name].vitc_preprocess_u8(given, height, width, ctypes.c_size_t(0), out)
        assert made == OK
        assert np.array_equal(found, expected), (height, width)
        normal = FORMS[name].normalise(np.moveaxis(found, 0, -1))
        assert np.array_equal(normal, FORMS[name].apply(pixels))


def test_rows_may_lie_apart(libraries) -> None:
    wide = np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    cut = np.ascontiguousarray(wide[:, :45])
    expected = FORMS["box"].apply(Image.fromarray(cut))
    found = np.zeros_like(expected)

    assert preprocess(libraries["box"], wide, 50, 45, wide.strides[0], found) == OK
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("height", "width", "stride"),
    [(0, 5, 0), (5, -1, 0), (65536, 5, 0), (5, 5, 14), (1, 65535, 0)],
)
def test_what_is_no_picture_is_an_argument_error(libraries, height, width, stride) -> None:
    pixels, out = np.zeros(3 * 65536, np.uint8), np.zeros((3, 224, 224), np.float32)

    assert preprocess(libraries["bicubic"], pixels, height, width, stride, out) == ARGUMENT
    assert libraries["bicubic"].vitc_preprocess(None, 5, 5, 0, None) == ARGUMENT


def test_names_are_whole_and_of_their_class(libraries) -> None:
    found = [libraries["box"].vitc_label(i) for i in range(-1, 5)]

    assert found == [None, *(name.encode() for name in LABELS), None]


def test_a_model_that_says_nothing_has_no_preprocessing(tmp_path) -> None:
    made = library(tmp_path, UNDESCRIBED)
    pixels, out = np.zeros((9, 9, 3), np.uint8), np.zeros(9, np.float32)

    assert preprocess(made, pixels, 9, 9, 0, out) == PORT
    assert made.vitc_get_preprocessing(out.ctypes.data_as(ctypes.c_void_p)) == PORT
    assert made.vitc_label(0) is None
